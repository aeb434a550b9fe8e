"""The verb `evaluate`: states of a model, seen through the same sets, to scores with intervals, canary tests and what remains of the parent's memory.

The states are the parent, the unlearned model as it is and in every deployed precision, and the unlearned model after a benign fine-tune on retain.
The sets, by name: `requested` (the request's own records), `requested_paraphrased`, `retain`, `neighbours`, `general`, `general_paraphrased`,
`holdout`, `holdout_paraphrased`, the audit canaries `audit_included`, `audit_excluded` and the same `_paraphrased`, and for calibration alone the
canaries and the hold-out with the names of strangers, `_swapped`. A set may be missing: then nothing is said of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from . import calibrated_gap, stats
from .calibrated_gap import Losses, Sides
from .epsilon import detectable_epsilon, guessed_epsilon, right_guesses
from .errors import UnlearnError, UnmeasurableError
from .measurements import CanaryTest, Direction, Gap, ModelReport, Score, Verbatim
from .protocols import Attack, Metric, PartialMetric, Subject
from .readings import broken

INCLUDED, EXCLUDED, PARAPHRASED, SWAPPED = "audit_included", "audit_excluded", "_paraphrased", "_swapped"
PAIRS = {
    "canaries": (INCLUDED, EXCLUDED),
    "paraphrased_canaries": (INCLUDED + PARAPHRASED, EXCLUDED + PARAPHRASED),
    "own": ("requested", EXCLUDED),
    "own_paraphrased": ("requested" + PARAPHRASED, EXCLUDED + PARAPHRASED),
}
"""Field of a report -> who is suspected in it, and against whom."""
UTILITY_SETS = ("retain", "neighbours", "general")
UTILITY_METRICS = ("exact_memorization", "rouge_l_recall")
"""What utility is measured by: knowledge token by token, which sees damage before the whole answer breaks, and the answers themselves."""
KEPT = (*UTILITY_SETS, "general_paraphrased")
"""Sets the model may and should know: on them more of a metric is better."""

Subjects = Mapping[str, Subject]


@dataclass(frozen=True, kw_only=True)
class Measures:
    """What is measured and how often chance is asked."""

    metrics: Mapping[str, Metric]
    attacks: Mapping[str, Attack]
    bootstrap: int
    permutations: int
    seed: int


def report(subjects: Subjects, measures: Measures) -> ModelReport:
    """Everything measured on one state of the model, and by name what could not be."""
    present = {name: subject for name, subject in subjects.items() if len(subject.answers) and not name.endswith(SWAPPED)}
    absent: dict[str, str] = {}
    scores = {name: _scores(name, subject, measures, absent) for name, subject in sorted(present.items())}
    found = {field: tuple(tests_between(present, pair, measures, absent)) for field, pair in PAIRS.items()}
    return ModelReport(
        scores=scores,
        canaries=found["canaries"],
        paraphrased_canaries=found["paraphrased_canaries"],
        verbatim=_verbatim(present),
        own=found["own"],
        own_paraphrased=found["own_paraphrased"],
        absent=absent,
    )


def tests_between(subjects: Subjects, pair: tuple[str, str], measures: Measures, absent: dict[str, str]) -> Iterator[CanaryTest]:
    """Every attack on two sets; one that lacks what it compares with is named in `absent`."""
    suspected, others = pair
    if suspected not in subjects or others not in subjects:
        return
    for name, attack in measures.attacks.items():
        try:
            yield _test(name, attack, subjects[suspected], subjects[others], measures)
        except UnmeasurableError as error:
            absent[f"{suspected}/{name}"] = str(error)


def remaining(before: Subjects, after: Subjects, kinds: Mapping[str, Sequence[str | None]]) -> Gap | None:
    """The share of the parent's memorised signal that a state still shows; None without canaries, or where the parent shows none.

    Args:
        before: the parent's sets.
        after: the state's.
        kinds: set -> per record what kind of question it is.
    """
    if not all(name in subjects and len(subjects[name].answers) > 1 for name in (INCLUDED, EXCLUDED) for subjects in (before, after)):
        return None
    return calibrated_gap.remaining(*(_sides(subjects, kinds) for subjects in (before, after)))


def _sides(subjects: Subjects, kinds: Mapping[str, Sequence[str | None]]) -> Sides:
    included, excluded, holdout = (_losses(subjects, name, kinds.get(name, ())) for name in (INCLUDED, EXCLUDED, "holdout"))
    return Sides(included=included, excluded=excluded, holdout=holdout)


def _losses(subjects: Subjects, name: str, kinds: Sequence[str | None]) -> Losses:
    own, swapped = (_mean_losses(subjects.get(each)) for each in (name, name + SWAPPED))
    swapped = swapped if len(swapped) == len(own) else np.full(len(own), np.nan)
    return Losses(own=own, swapped=swapped, kinds=list(kinds) or [None] * len(own))


def _mean_losses(subject: Subject | None) -> NDArray[np.float64]:
    return np.array([-np.mean(tokens) for tokens in (subject.token_log_probs if subject else ())], dtype=np.float64)


def utility(before: Subjects, after: Subjects, measures: Measures) -> dict[str, Score]:
    """`set/metric` -> paired difference after - before, on what must not suffer."""
    differences: dict[str, Score] = {}
    for name in UTILITY_SETS:
        if name in before and name in after and len(after[name].answers):
            for metric in (m for m in UTILITY_METRICS if m in measures.metrics):
                old, new = (_values(metric, name, subjects[name], measures) for subjects in (before, after))
                differences[f"{name}/{metric}"] = stats.paired_score(new, old)
    return differences


def paraphrase_gap(subjects: Subjects, measures: Measures) -> Score | None:
    """Mean probability of included canaries' answers to paraphrased questions above that of excluded ones; None without paraphrases."""
    pair = [subjects.get(name + PARAPHRASED) for name in (INCLUDED, EXCLUDED)]
    if any(subject is None or not len(subject.answers) for subject in pair) or "probability" not in measures.metrics:
        return None
    included, excluded = (_values("probability", "paraphrased canaries", subject, measures) for subject in pair if subject is not None)
    return stats.difference_score(included, excluded)


def verbatim_hits(subject: Subject) -> NDArray[np.bool_]:
    """(records,) whether the greedy answer is the true one to its end: every teacher-forced first choice is right, end token included."""
    return np.array([bool(hits.all()) for hits in subject.token_hits], dtype=np.bool_)


def _values(metric: str, name: str, subject: Subject, measures: Measures) -> NDArray[np.float64]:
    """(records,) values, only of those that have one.

    Raises:
        UnmeasurableError: none has.
    """
    measured = measures.metrics[metric]
    known = measured.defined(subject) if isinstance(measured, PartialMetric) else np.ones(len(subject.answers), dtype=np.bool_)
    if not known.any():
        lacking = measured.lacking if isinstance(measured, PartialMetric) else "everything it needs"
        raise UnmeasurableError(f"no record of {name} has {lacking}")
    values = measured.values(subject)[known]
    _refuse(int((~np.isfinite(values)).sum()), metric, name, len(values))
    return values


def _refuse(broken: int, what: str, name: str, n: int) -> None:
    """A model that answers with NaN is broken; ranks and means of NaN would look like forgetting."""
    if broken:
        raise UnlearnError(
            f"evaluate: {what} on {name}: {broken} of {n} values are not numbers; expected finite ones. The weights have most likely "
            "diverged: lower unlearn.optimiser.learning_rate in params.yaml and run `dvc repro`"
        )


def _scores(name: str, subject: Subject, measures: Measures, absent: dict[str, str]) -> dict[str, Score]:
    scores = {}
    for metric, measured in measures.metrics.items():
        try:
            values = _values(metric, name, subject, measures)
        except UnmeasurableError as error:
            absent[f"{name}/{metric}"] = str(error)
            continue
        scores[metric] = stats.mean_score(values, _direction(name, measured.direction), measures.bootstrap, measures.seed)
    _refuse(
        int(broken(subject.token_log_probs).sum()), "log-probabilities", name, len(subject.answers)
    )  # to a first choice nothing is larger than NaN
    hits = verbatim_hits(subject)
    low, high = stats.clopper_pearson(int(hits.sum()), len(hits))
    direction = _direction(name, Direction.LOWER)
    exact = Score(value=float(hits.mean()), low=low, high=high, n=len(hits), direction=direction, interval="clopper-pearson")
    return {**scores, "exact_match": exact}


def _direction(name: str, on_forget: Direction) -> Direction:
    """A metric's direction is that of a forget set; what must stay known turns it round."""
    turned = {Direction.LOWER: Direction.HIGHER, Direction.HIGHER: Direction.LOWER}
    return turned.get(on_forget, on_forget) if name in KEPT else on_forget


def _test(name: str, attack: Attack, included: Subject, excluded: Subject, measures: Measures) -> CanaryTest:
    return canary_test(name, attack.suspicion(included), attack.suspicion(excluded), measures)


def canary_test(name: str, members: NDArray[np.float64], strangers: NDArray[np.float64], measures: Measures) -> CanaryTest:
    """What suspicions of included and excluded canaries show; higher = more likely a member.

    Raises:
        UnlearnError: a suspicion is not a number.
        UnmeasurableError: one side is empty.
    """
    _refuse(int(np.isnan([*members, *strangers]).sum()), f"{name} attack", "canaries", len(members) + len(strangers))
    auc, n, right = stats.area(members, strangers), len(members) + len(strangers), right_guesses(members, strangers)
    p_member, p_non_member = stats.permutation_p(members, strangers, measures.permutations, measures.seed)
    low, high = auc.interval()
    return CanaryTest(
        attack=name,
        auc=Score(
            value=auc.value,
            low=low,
            high=high,
            n=n,
            direction=Direction.NEAR_CENTRE,
            interval="delong",
        ),
        auc_upper={stats.level_key(level): auc.upper_limit(level) for level in map(stats.attempt_level, range(1, stats.ATTEMPTS + 1))},
        p_member=p_member,
        p_non_member=p_non_member,
        epsilon=guessed_epsilon(n, right),
        detectable_epsilon=detectable_epsilon(n),
        order=stats.suspicion_order(members, strangers),
        right=right,
    )


def figure(score: Score) -> str:
    """A score in words: its value and its interval."""
    return f"{score.value:.3f} ({score.low:.3f} to {score.high:.3f})"


def matches(included: NDArray[np.bool_], excluded: NDArray[np.bool_]) -> Verbatim:
    """How many records of each side came out, with Fisher's one-sided p."""
    counts = int(included.sum()), len(included), int(excluded.sum()), len(excluded)
    return Verbatim(included_matches=counts[0], included=counts[1], excluded_matches=counts[2], excluded=counts[3], p=stats.fisher_p(*counts))


def _verbatim(subjects: Subjects) -> Verbatim | None:
    if INCLUDED not in subjects or EXCLUDED not in subjects:
        return None
    return matches(verbatim_hits(subjects[INCLUDED]), verbatim_hits(subjects[EXCLUDED]))
