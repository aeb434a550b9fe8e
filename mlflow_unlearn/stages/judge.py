"""Stage `judge`: the verdict for both effects, from the evaluation, the run behind it and the policy alone."""

from __future__ import annotations

from ..documents import encode
from ..judge import judge
from ..records import Evaluation, Unlearned
from .workbench import NO_REQUEST, Workbench


def run(bench: Workbench) -> str:
    """Write build/verdict.json."""
    if bench.no_request("verdict", "evaluation"):
        return NO_REQUEST
    evaluation = bench.value(Evaluation, "evaluation")
    unlearned = bench.value(Unlearned, "unlearned")
    verdicts = judge(evaluation, bench.policy, unlearned)
    bench.write("verdict", {"requests": list(evaluation.requests), "attempt": evaluation.attempt, "verdicts": encode(verdicts)})
    return "; ".join(f"{verdict.effect}: {verdict.outcome}" for verdict in verdicts)
