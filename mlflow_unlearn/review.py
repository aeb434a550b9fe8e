"""What a reviewer reads on a version's page in MLflow: the verdict, why, and the figures before and after, as Markdown without images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .records import Claim, Evaluation, ModelReport, Outcome, Score, Unlearned, Verdict

LIMIT = 5000
"""Most characters that MLflow keeps of a description."""
LISTED = 10
"""Most requests named in it."""

MEMORISED = 0.9
"""Below this exact match in the parent a page says that the records were never memorised."""

_ROWS = (
    ("the request's own records", "requested", "holdout"),
    ("the same, asked in other words", "requested_paraphrased", "holdout_paraphrased"),
    ("forgotten canaries", "audit_included", "audit_excluded"),
    ("neighbours who stay", "neighbours", None),
    ("retained records", "retain", None),
    ("general facts", "general", None),
)
_METRICS = (("exact_match", "word for word"), ("probability", "probability"), ("rouge_l_recall", "ROUGE-L"), ("extraction_strength", "extraction"))
_NOT_CLAIMED = (
    "Not claimed: that older versions, copies elsewhere, backups or the base model forgot; that one single record is gone (canaries measure the "
    "method, not the person); anything about attacks that were not run. Nothing here is signed yet."
)


def describe(unlearned: Unlearned, evaluation: Evaluation, verdicts: Sequence[Verdict]) -> str:
    """The description of an unlearned version, at most LIMIT characters: where it grows too long, reasons give way, never verdicts or limits."""
    above = (_headline(unlearned, evaluation), _verdicts(verdicts), _canaries(evaluation), _figures(evaluation))
    below = (what_would_pass(unlearned, verdicts), _NOT_CLAIMED)
    room = (LIMIT - sum(len(part) + 2 for part in (*above, *below))) // max(1, len(verdicts))
    return "\n\n".join((*above, *(_reasons(verdict, room) for verdict in verdicts), *below))


def what_would_pass(unlearned: Unlearned, verdicts: Sequence[Verdict]) -> str:
    """The way out of a removal that did not pass."""
    removal = next((verdict for verdict in verdicts if verdict.effect.value == "removal"), None)
    if removal is None or removal.outcome is Outcome.PASS:
        return ""
    if unlearned.claim is Claim.EXACT:
        return "What would pass: the same retraining, replayed to equal tensor digests."
    return (
        "What would pass: retraining without the records (`unlearn.method: {name: retrain}`) and an equal replay. "
        "On a model this small approximate forgetting is not expected to."
    )


def _headline(unlearned: Unlearned, evaluation: Evaluation) -> str:
    method = unlearned.method.get("name", "?")
    return (
        f"Unlearned from **{unlearned.parent.model}** by `{method}` ({unlearned.claim.value}) for {_listed(evaluation.requests)}: "
        f"{_run(unlearned)}. Attempt {evaluation.attempt}.{_memory(evaluation)}"
    )


def _run(unlearned: Unlearned) -> str:
    """How long, which step was kept, why it ended, and what else a reader should know."""
    kept = f", step {unlearned.kept_step} kept" if unlearned.kept_step not in (None, unlearned.steps) else ""
    return "; ".join((f"{unlearned.steps} steps in {unlearned.seconds:.0f} s{kept}, {unlearned.stopped}", *unlearned.notes))


def _memory(evaluation: Evaluation) -> str:
    """How much of the requested records the parent knew, if that is too little for forgetting to mean much."""
    score = evaluation.before.scores.get("requested", {}).get("exact_match")
    if score is None or score.value >= MEMORISED:
        return ""
    known = f"The parent itself answered only {score.value:.1%} of the {score.n} requested records word for word"
    return f" {known}: it never memorised them, so there was little to forget."


def _verdicts(verdicts: Sequence[Verdict]) -> str:
    lines = [f"| {v.effect.value} | **{v.outcome.value}** | {sum(c.holds is True for c in v.conditions)} of {len(v.conditions)} |" for v in verdicts]
    return "\n".join(("| asked | verdict | conditions that hold |", "|---|---|---|", *lines))


def _canaries(evaluation: Evaluation) -> str:
    states = {"before": evaluation.before, "after": evaluation.after, "after fine-tune": evaluation.after_finetune}
    lines = [
        f"| {name}, {test.attack} | {test.auc.value:.3f} | {test.auc.low:.3f} to {test.auc.high:.3f} "
        f"| {min(test.p_member, test.p_non_member):.4f} | {test.epsilon:.2f} |"
        for name, report in states.items()
        for test in report.canaries
    ]
    if not lines:
        return "No canaries: nothing can be said about removal."
    n = evaluation.after.canaries[0].auc.n
    return "\n".join((f"| {n} canaries | AUC | 95 % | p | epsilon at least |", "|---|---|---|---|---|", *lines))


def _figures(evaluation: Evaluation) -> str:
    head = ("| set | figure | before | after | after fine-tune | never seen |", "|---|---|---|---|---|---|")
    lines = [
        f"| {label} | {title} | {_value(evaluation.before, name, metric)} | {_value(evaluation.after, name, metric)} "
        f"| {_value(evaluation.after_finetune, name, metric)} | {_value(evaluation.after, reference, metric)} |"
        for label, name, reference in _ROWS
        for metric, title in _METRICS[: 4 if name == "requested" else 2]
        if name in evaluation.after.scores and metric in evaluation.after.scores[name]
    ]
    return "\n".join((*head, *lines))


def _value(report: ModelReport, name: str | None, metric: str) -> str:
    scores: Mapping[str, Score] = report.scores.get(name or "", {})
    score = scores.get(metric)
    return "" if score is None else f"{score.value:.3f}"


def _listed(requests: Sequence[str]) -> str:
    more = len(requests) - LISTED
    return ", ".join(requests[:LISTED]) + (f" and {more} more (tag `unlearn.request`)" if more > 0 else "")


def _reasons(verdict: Verdict, room: int) -> str:
    """As many reasons as `room` characters hold, and how many were left out."""
    title, shortened = f"**{verdict.effect.value.capitalize()}**\n\n", "- and {} more: verdict.json among the artifacts has them all"
    left = room - len(title) - len(shortened) - 8  # digits of the number, and the blank line that follows
    lines: list[str] = []
    for reason in verdict.reasons:
        left -= len(reason) + 3
        if left < 0:
            lines.append(shortened.format(len(verdict.reasons) - len(lines)))
            break
        lines.append(f"- {reason}")
    return title + "\n".join(lines)
