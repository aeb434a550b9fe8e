"""What `evaluator_config` of the evaluator may say: the keys of `evaluate` in params.yaml, and beside them where models, rows and limits are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ..audit import measures_of
from ..config import read_yaml
from ..documents import decode, unknown_key
from ..errors import ConfigError
from ..evaluate import Measures
from ..params import Columns, DataParams, EvaluateParams, SelectionParams
from ..policy import Policy

WHERE = "evaluator_config"


@dataclass(frozen=True, kw_only=True)
class Vouched:
    """What only the ledger and git know. The caller vouches for it; without it the verdict is INCONCLUSIVE at best."""

    committed: bool = False
    """The coin flips were in git with the training data."""
    attempt: int = 1
    """How often these canaries were opened, this time included."""
    first_policy: str = ""
    """Digest of the policy that was in force when they were first opened."""
    pool_spent_by: str | None = None
    """A closed request that used this pool already."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The keys beside those of `evaluate` in params.yaml. A model is a URI, a folder, a hub id or a pair of model and tokenizer in memory."""

    parent: object
    """The model before unlearning."""
    model: object = None
    """The unlearned model, where `mlflow.models.evaluate` was not given it."""
    retrained: object = None
    """A model retrained without the records, shown beside the others; also what attacks compare with unless `reference` names another."""
    set_column: str = "set"
    """The column of the data that names the set of a row."""
    columns: Columns | None = None
    """Names of the data's other columns, as `data.columns` of params.yaml has them. Null: the columns of build/raw/sets where the data have them,
    else the default names, and every other role under its own name where there is such a column."""
    template: str = DataParams.template
    """How a prompt is written for the model."""
    kept_sample: int = SelectionParams.kept_sample
    """Retained records that choosing a step watched (unlearn.selection.kept_sample): they are not measured."""
    device: str = "auto"
    precisions: tuple[str, ...] | None = None
    """In which the model is deployed; null: those of the policy."""
    policy: str | Mapping[str, Any] | None = None
    """Path of a policy.yaml, or its keys; null: no verdict."""
    vouched: Vouched = Vouched()


@dataclass(frozen=True, kw_only=True)
class Settings:
    """An evaluator_config that was read."""

    asked: Asked
    params: EvaluateParams
    policy: Policy
    judged: bool
    """Whether a policy was given, so that there is a verdict."""

    @property
    def precisions(self) -> tuple[str, ...]:
        """In which the model is looked at."""
        return self.asked.precisions or self.policy.deployed_precisions

    @property
    def measures(self) -> Measures:
        """The metrics and attacks, as the stage `evaluate` builds them.

        Raises:
            ConfigError: one of them is not known.
        """
        return measures_of(self.params, f"{WHERE}: ")


def read(given: Mapping[str, Any]) -> Settings:
    """The settings of one evaluation.

    Raises:
        ConfigError: unknown or missing keys, wrong types, or a policy that is not there; all complaints about keys at once.
    """
    given = {key: str(value) if isinstance(value, Path) else value for key, value in given.items()}
    own, measured = ({each.name for each in fields(cls)} for cls in (Asked, EvaluateParams))
    complaints = [unknown_key(str(key), tuple(sorted(own | measured)), WHERE) for key in given if key not in own | measured]
    found: list[Any] = [None, None]
    for place, (cls, names) in enumerate(((Asked, own), (EvaluateParams, measured))):
        try:
            found[place] = decode(cls, {key: value for key, value in given.items() if key in names}, WHERE)
        except ConfigError as error:
            complaints.append(str(error))
    if complaints:
        raise ConfigError("\n".join(complaints))
    asked, params = found
    return Settings(asked=asked, params=params, policy=_policy(asked.policy), judged=asked.policy is not None)


def _policy(given: str | Mapping[str, Any] | None) -> Policy:
    if given is None:
        return Policy()
    return decode(Policy, read_yaml(Path(given)) if isinstance(given, str) else given, f"{WHERE}: policy")
