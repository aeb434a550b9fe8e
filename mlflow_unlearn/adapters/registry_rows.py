"""What MLflow holds about models, as plain rows: equal whether they were read from its tables or asked of its client."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

DVC = "dvc"
"""MLflow's source type of a dataset under DVC."""
BASE_KEYS = frozenset(
    {
        *("base_model", "base_model_id", "base_model_name", "base_model_name_or_path", "base_model_path", "base_model_uri", "local_base_model_path"),
        *("model_name_or_path", "name_or_path", "_name_or_path", "pretrained_model", "pretrained_model_name_or_path", "resume_from_checkpoint"),
        *("source_model", "source_model_name"),
    }
)
"""Last words of params and metadata under which people and libraries write what training started from."""
BASE_TAG = "unlearn.base"
"""On a run: tensor digest of the local model that training started from."""
BASE_MODEL_TAG, RELATION_TAG = "unlearn.base_model", "unlearn.relation"
"""On a version, logged model or run: `models:/NAME/VERSION` or `m-...` (several with commas, or `none`), and what was made of it."""
PROBLEM_TAG = "unlearn.lineage.problem"
ADOPTED_TAG = "unlearn.lineage.adopted"
"""On a version, for ever: which of its tags a person stated afterwards, with commas."""
CERTIFICATE_TAG, LINEAGE_TAG = "unlearn.certificate", "unlearn.lineage.statement"
"""On a version: payload digests of what is signed about it."""
LINEAGE_RUN_TAG = "unlearn.lineage.run"
"""On a version without a run: the one that holds what is signed about it."""
ORIGIN_TAGS = frozenset({BASE_TAG, BASE_MODEL_TAG, RELATION_TAG, PROBLEM_TAG})
"""Tags of runs and logged models that count; what else they say of datasets is a hint about a repository, no claim about training."""
_PREFIX = "unlearn."


@dataclass(frozen=True, kw_only=True, slots=True)
class VersionRow:
    """A registered version; `source` is `models:/m-...`, `models:/NAME/VERSION` or the URI of its files."""

    name: str
    version: str
    run_id: str | None
    source: str
    tags: Mapping[str, str]


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class DatasetRow:
    """A dataset input of a run."""

    name: str
    digest: str
    source_type: str
    source: str
    """MLflow's JSON about the source; empty for one under DVC, whose digest says all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRow:
    """A run, deleted or not: its origin tags, the params that may name a base model, and its inputs and outputs."""

    run_id: str
    experiment: str
    tags: Mapping[str, str]
    params: Mapping[str, str]
    datasets: tuple[DatasetRow, ...]
    read: tuple[str, ...]
    """Ids of the logged models that are inputs of the run."""
    made: tuple[str, ...]
    """Ids of the logged models that are its outputs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LoggedModelRow:
    """A logged model that is not deleted."""

    model_id: str
    run_id: str | None
    location: str
    tags: Mapping[str, str]
    params: Mapping[str, str]


class Rows(Protocol):
    """A way to read them. Everything is read in few questions, whatever the number of versions."""

    def versions(self) -> list[VersionRow]:
        """Every version that is not deleted; no prompts."""

    def untagged(self) -> list[VersionRow]:
        """The same, where it costs less without their tags."""

    def tags(self, versions: Collection[tuple[str, str]]) -> dict[tuple[str, str], dict[str, str]]:
        """(name, version) -> the tags that this project reads."""

    def aliases(self) -> dict[tuple[str, str], tuple[str, ...]]:
        """(name, version) -> aliases, sorted."""

    def runs(self, ids: Collection[str]) -> dict[str, RunRow]:
        """Runs by id; one that is gone for good is missing."""

    def logged_models(self, ids: Collection[str]) -> dict[str, LoggedModelRow]:
        """Logged models by id; a deleted one is missing."""

    def readers(self, digests: Collection[str]) -> set[str]:
        """Ids of runs that have a dataset under DVC with one of these digests as an input."""

    def models_of(self, run_ids: Collection[str]) -> dict[str, tuple[str, ...]]:
        """Run -> ids of the logged models whose source it is."""


ADDRESSES = ("models:/", "runs:/")


def our_tags(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The tags of a version that this project reads."""
    return {key: value or "" for key, value in pairs if key.startswith(_PREFIX)}


def origin_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """The tags of a run or logged model that this project reads."""
    return {key: tags[key] for key in tags.keys() & ORIGIN_TAGS}


def names_base(key: str, value: str = "") -> bool:
    """Whether a param may say what training started from: by its last word, or because its value is an address of MLflow's."""
    return key.replace("/", ".").rpartition(".")[2] in BASE_KEYS or value.startswith(ADDRESSES)


def chunks(ids: Collection[str], size: int) -> Iterable[list[str]]:
    """The ids, sorted, a few at a time."""
    wanted = sorted(ids)
    for start in range(0, len(wanted), size):
        yield wanted[start : start + size]
