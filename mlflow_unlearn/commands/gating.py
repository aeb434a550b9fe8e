"""What `gate` says of one version, as a function from arguments to a JSON-ready document."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..gate import Decision
from ..stages.gating import answer, asked
from ..stages.workbench import Workbench


def gate_version(uri: str, policy: Path | None = None, alias: str | None = None, opened: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """The gate's answer for one version.

    Args:
        uri: `models:/NAME/VERSION` or `models:/NAME@ALIAS`.
        policy: another policy file than policy.yaml; the owner has to stand for it as well.
        alias: for which alias, where the URI names a version.
        opened: called once the registry is open, and MLflow with it.

    Raises:
        UnlearnError: nothing could be decided.
    """
    bench = Workbench()
    question = asked(bench, uri, alias, policy)
    opened()
    return document(answer(bench, question).decision)


def document(decision: Decision) -> dict[str, Any]:
    """A decision for people and scripts.

    Returns:
        `version`, `answer` (yes, no or undecided), `sentence`, `reasons` (what keeps it from yes), `notes` (what else a reader should know), `codes`
        and `evidence` (digests of what it rests on).
    """
    return {
        "version": str(decision.model),
        "answer": decision.answer,
        "sentence": decision.sentence,
        "reasons": [reason.text for reason in decision.reasons if reason.answer != "note"],
        "notes": [reason.text for reason in decision.reasons if reason.answer == "note"],
        "codes": list(decision.codes),
        "evidence": list(decision.evidence),
    }
