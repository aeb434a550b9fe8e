"""The verb `gate`: may a version be deployed? It answers no or undecided for everything until certificates exist; it never guesses yes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from .lineage import Trace, TracedVersion, VersionLineage
from .records import Outcome, Verdict

UNSIGNED = "unsigned: no certificate or signed lineage binds this version's data and weights to a trusted key"


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The gate's answer with all its reasons."""

    answer: Literal["yes", "no", "undecided"]
    reasons: tuple[str, ...]


def gate(version: VersionLineage, traced: Trace | None, verdicts: Sequence[Verdict]) -> Decision:
    """Decide about one version.

    Args:
        version: what the registry says about it.
        traced: the trace of every request that was not refused; None when there is none.
        verdicts: what was registered with it, for an unlearned version.
    """
    line, kind = _line(version, traced)
    reasons = [f"{kind}: {line.why}"] if line else []
    if version.problem:
        reasons.append(f"unknown: {version.problem}")
    reasons += [f"{verdict.effect.value} {verdict.outcome.value}: {reason}" for verdict in verdicts for reason in verdict.reasons]
    if version.requests and not verdicts:
        reasons.append(f"its verdict cannot be read: the run has no verdict for {', '.join(version.requests)}")
    refused = kind == "affected" or any(verdict.outcome is Outcome.FAIL for verdict in verdicts)
    return Decision(answer="no" if refused else "undecided", reasons=(*reasons, UNSIGNED))


def _line(version: VersionLineage, traced: Trace | None) -> tuple[TracedVersion | None, str]:
    for kind in ("affected", "unknown", "clear") if traced else ():
        for line in getattr(traced, kind):
            if line.model == version.model:
                return line, kind
    return None, ""
