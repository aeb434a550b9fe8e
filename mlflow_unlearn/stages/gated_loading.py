"""`mlflow_unlearn.load_model`: a model for serving, from files that were verified first."""

from __future__ import annotations

import logging
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, GateError
from ..policy import Enforcement
from ..verifier import subject_of

if TYPE_CHECKING:
    from ..adapters.loading import Flavor
    from ..gate import Decision

_logger = logging.getLogger("mlflow_unlearn")


def load_model(
    uri: str, *, enforcement: Enforcement | None = None, flavor: Flavor = "pyfunc", folder: str | Path | None = None, **options: Any
) -> Any:
    """Load a registered model if the gate lets it be deployed.

    An alias is resolved once; that version is asked about, its files are fetched, held against what was signed, and loaded from where they lie. On a
    local artifact store that is the store itself: who can write there could still change them between the look and the load.

    Args:
        uri: `models:/NAME/VERSION` or `models:/NAME@ALIAS`.
        enforcement: what a no or undecided does: `observe` logs it, `warn` warns, `enforce` raises; default: gate.enforcement of policy.yaml if an
            owner stands for it, else `enforce` once anything was signed.
        flavor: `pyfunc` or `transformers`.
        folder: the pipeline folder with params.yaml and policy.yaml; default: the current one.
        options: for MLflow's loader.

    Raises:
        GateError: the answer is not yes and is enforced.
        UnlearnError: registry, ledger or settings do not let it be decided, whatever is enforced.
    """
    from ..adapters.loading import load
    from ..adapters.statements import Statements
    from .gating import Question, answer, asked
    from .workbench import Workbench

    if enforcement not in (None, "observe", "warn", "enforce") or flavor not in ("pyfunc", "transformers"):
        raise ConfigError("load_model: expected enforcement of observe, warn or enforce, and flavor of pyfunc or transformers")
    bench = Workbench(Path(folder)) if folder else Workbench()
    question = asked(bench, uri)
    files = Statements(bench.registry).folder(question.model)
    found = answer(bench, Question(model=question.model, alias=question.alias, subject=partial(subject_of, files)))
    _heed(found.decision, enforcement or found.enforcement)
    return load(files, flavor, options)


def _heed(decision: Decision, enforcement: Enforcement) -> None:
    if decision.answer == "yes":
        return
    text = "\n".join([decision.sentence, *(f"- {reason.text}" for reason in decision.reasons if reason.answer != "note")])
    if enforcement == "enforce":
        raise GateError(text)
    if enforcement == "warn":
        warnings.warn(text, stacklevel=3)
    else:
        _logger.info("%s", text)
