"""What a reviewer reads on a version's page in MLflow: the verdict, why, and the figures before and after, as Markdown without images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .exact_conditions import SHARED, TRUSTED, replays_of, retrained
from .exactness import Exactness, ShardLog
from .records import Claim, Evaluation, ModelReport, Outcome, Score, Unlearned, Verdict
from .statements import UNSIGNED

LIMIT = 5000
"""Most characters that MLflow keeps of a description."""
LISTED = 10
"""Most requests named in it."""
NOTED = 4
"""Most notes of a run repeated in it."""

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
    "that older versions, copies elsewhere, backups or the base model forgot",
    "that one single record is gone (canaries measure the method, not the person)",
    "anything about attacks that were not run",
)
_NOT_CLAIMED_EXACTLY = (
    "that older versions, copies elsewhere or backups forgot",
    "anything about the base model where it is only trusted",
    "that facts about the person are not in other people's records",
    "that nothing of them is in settings chosen by people who had seen the data",
    "anything where what is asked to be forgotten depends on published models (adaptive requests: Gupta et al. 2021, arXiv:2106.04378)",
    "that a replay is more than this project's own word, until somebody else repeats it",
)
_SIGNATURE = 200
"""Characters kept free for who signs it, which is said in the place of UNSIGNED later on."""


def describe(unlearned: Unlearned, evaluation: Evaluation, verdicts: Sequence[Verdict]) -> str:
    """The description of an unlearned version, at most LIMIT characters: where it grows too long, reasons give way, never verdicts or limits."""
    shards = [_sharding(unlearned.exactness, evaluation)] if unlearned.exactness else []
    above = (_headline(unlearned, evaluation), _verdicts(verdicts), *shards, _canaries(evaluation), _figures(evaluation))
    below = (what_would_pass(unlearned, verdicts), f"Not claimed: {'; '.join(not_claimed(unlearned))}. {UNSIGNED}")
    room = (LIMIT - _SIGNATURE - sum(len(part) + 2 for part in (*above, *below))) // max(1, len(verdicts))
    return "\n\n".join((*above, *(_reasons(verdict, room) for verdict in verdicts), *below))


def not_claimed(unlearned: Unlearned) -> tuple[str, ...]:
    """What nobody should read into a version and its certificate, a clause each."""
    return _NOT_CLAIMED_EXACTLY if unlearned.exactness else _NOT_CLAIMED


def describe_trained(logs: Sequence[ShardLog], dataset: str) -> str:
    """The description of a family that was trained without a request: one log a shard, all of one family."""
    full = [log for log in logs if not log.empty]
    records = [sum(len(each.tags) for each in log.slices) for log in full] or [0]
    first, empty = logs[0], len(logs) - len(full)
    rows = {
        "family": first.family[:8],
        "shards x slices": f"{len(logs)} x {len(first.slices)}{f', {empty} empty' if empty else ''}",
        "records": f"{sum(records)} of `{dataset}`, {min(records)} to {max(records)} a shard",
        "base": f"tensor digest {first.base[:16]}",
        "steps": f"{sum(each.steps for log in full for each in log.slices)}, {sum(each.tokens for log in full for each in log.slices):,} tokens",
        "settings": _settings(first.settings),
        "environment": ", ".join(f"{name} {value}" for name, value in sorted(first.environment.items())),
    }
    head = (
        f"Trained in shards on `{dataset}`, without any erasure request: each person's records are in one shard alone, by a keyed hash, so that "
        "erasing them repeats only that shard's training (Bourtoule et al. 2021, arXiv:1912.03817)."
    )
    foot = (
        "How each shard was trained is in its log, among the artifacts. Nothing was evaluated and there is no verdict: nobody asked to be forgotten. "
        f"{UNSIGNED}"
    )
    return f"{head}\n\n{_table(('what', 'value'), rows)}"[: LIMIT - _SIGNATURE - len(foot)] + f"\n\n{foot}"


def what_would_pass(unlearned: Unlearned, verdicts: Sequence[Verdict]) -> str:
    """The way out of a removal that did not pass."""
    removal = next((verdict for verdict in verdicts if verdict.effect.value == "removal"), None)
    if removal is None or removal.outcome is Outcome.PASS:
        return ""
    if unlearned.exactness:
        names = ", ".join(condition.name for condition in removal.conditions if condition.holds is not True)
        return f"What would pass: {names or 'the evidence of the claim'}, shown to hold; each reason above says how."
    if unlearned.claim is Claim.EXACT:
        return "What would pass: retraining in shards, which keeps logs that can be replayed to equal tensor digests (`unlearn.strategy: exact`)."
    return (
        "What would pass: retraining without the records, in shards and replayed to equal tensor digests (`unlearn.strategy: exact`). "
        "On a model this small approximate forgetting is not expected to."
    )


def _sharding(evidence: Exactness, evaluation: Evaluation) -> str:
    """What was retrained, what of it was repeated, what the shards share and what the canaries of the touched ones say."""
    replays, again = replays_of(evidence), retrained(evidence)
    equal = sum(each.equal for each in replays.values())
    tests = evaluation.after.canaries
    parent = "the parent's family" if evidence.before else "not the parent's family: all shards are new"
    rows = {
        "family": f"{evidence.family[:8]}, {parent}",
        "shards x slices": f"{evidence.shards} x {evidence.slices}",
        "touched": f"{len(evidence.touched)} held a forgotten record; {len(again)} of {len(evidence.digests)} with weights were retrained",
        "replays": f"{equal} equal, {len(replays) - equal} unequal, {len(evidence.digests) - len(replays)} not made",
        "shared state": _shared(evidence),
        "canaries": f"{min(test.auc.n for test in tests)} in the touched shards" if tests else "none unspent in the touched shards",
        "to be purged": f"{len(evidence.purge)} files that may have seen forgotten records, wherever they were copied to",
    }
    return _table(("exact", "what the evidence says"), rows)


def _shared(evidence: Exactness) -> str:
    words = {True: "clean", False: "saw forgotten records", None: "unknown"}
    known = {each.name: "trusted, not examined" if each.detail.startswith(TRUSTED) else words[each.holds] for each in evidence.shared}
    groups: dict[str, list[str]] = {}
    for name in SHARED:
        groups.setdefault(known.get(name, "unknown"), []).append(name)
    return "; ".join(f"{word}: {', '.join(names)}" for word, names in groups.items())


def _settings(settings: Mapping[str, object]) -> str:
    """One line: what is nested is named by its path, what is not set is left out."""
    flat: dict[str, object] = {}
    for name, value in settings.items():
        flat |= {f"{name}.{inner}": each for inner, each in value.items()} if isinstance(value, Mapping) else {name: value}
    return ", ".join(f"{name} {value!r}" for name, value in flat.items() if value is not None).replace("|", "\\|")


def _table(head: tuple[str, str], rows: Mapping[str, str]) -> str:
    return "\n".join((f"| {head[0]} | {head[1]} |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())))


def _headline(unlearned: Unlearned, evaluation: Evaluation) -> str:
    method = unlearned.method.get("name", "?")
    return (
        f"Unlearned from **{unlearned.parent.model}** by `{method}` ({unlearned.claim.value}) for {_listed(evaluation.requests)}: "
        f"{_run(unlearned)}. Attempt {evaluation.attempt}.{_memory(evaluation)}"
    )


def _run(unlearned: Unlearned) -> str:
    """How long, which step was kept, why it ended, and what else a reader should know."""
    kept = f", step {unlearned.kept_step} kept" if unlearned.kept_step not in (None, unlearned.steps) else ""
    notes, more = unlearned.notes[:NOTED], len(unlearned.notes) - NOTED
    untold = [f"{more} more notes in unlearned.json among the artifacts"] if more > 0 else []
    return "; ".join((f"{unlearned.steps} steps in {unlearned.seconds:.0f} s{kept}, {unlearned.stopped}", *notes, *untold))


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
    """State by state what the canaries betray, and how much of the parent's memory of them is left."""
    rounded = {name: report for name, report in evaluation.precisions.items() if report.canaries}
    states = {"before": evaluation.before, "after": evaluation.after, **rounded, "after fine-tune": evaluation.after_finetune}
    lines = [
        f"| {name}, {test.attack} | {test.auc.value:.3f} | {test.auc.low:.3f} to {test.auc.high:.3f} "
        f"| {min(test.p_member, test.p_non_member):.4f} | {test.epsilon:.2f} | {_left(report)} |"
        for name, report in states.items()
        for test in report.canaries
    ]
    if not lines:
        return "No canaries: nothing can be said about removal."
    n = evaluation.after.canaries[0].auc.n
    table = "\n".join((f"| {n} canaries | AUC | 95 % | p | epsilon at least | remains |", "|---|---|---|---|---|---|", *lines))
    return "\n\n".join((table, *_probes(evaluation)))


def _left(report: ModelReport) -> str:
    """How much of the parent's memorised signal remains, with the upper end of its 95 % interval."""
    return "" if report.gap is None else f"{report.gap.share.value:.1%}, at most {report.gap.share.high:.1%}"


def _probes(evaluation: Evaluation) -> list[str]:
    """One line: what deeper probes ran, the one that saw most, and which could not be run."""
    ran, absent = evaluation.after.probes, [name for name in evaluation.after.absent if "/" not in name]
    p = {name: min((min(t.p_member, t.p_non_member) for t in probe.tests), default=None) for name, probe in ran.items()}
    tested = {name: value for name, value in p.items() if value is not None}
    if not ran and not absent:
        return []
    least = min(tested, key=lambda name: tested[name], default=None)
    seen = "" if least is None else f"; the smallest p is {tested[least]:.4f} ({least})"
    missing = f"; not measured: {', '.join(absent)} (evaluation.json says why)" if absent else ""
    return [f"Deeper probes: {', '.join(ran) or 'none'}{seen}{missing}."]


def _figures(evaluation: Evaluation) -> str:
    """Set by set, before and after; the fine-tuned state where it was measured."""
    states = {"before": evaluation.before, "after": evaluation.after}
    states |= {"after fine-tune": evaluation.after_finetune} if evaluation.after_finetune.scores else {}
    lines = [
        f"| {label} | {title} | {' | '.join(_value(report, name, metric) for report in states.values())} "
        f"| {_value(evaluation.after, reference, metric)} |"
        for label, name, reference in _ROWS
        for metric, title in _METRICS[: 4 if name == "requested" else 2]
        if name in evaluation.after.scores and metric in evaluation.after.scores[name]
    ]
    return "\n".join((f"| set | figure | {' | '.join(states)} | never seen |", "|---" * (len(states) + 3) + "|", *lines))


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
