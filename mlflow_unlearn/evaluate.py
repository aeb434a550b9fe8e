"""The verb `evaluate`: three states of a model, seen through the same sets, to scores with intervals and canary tests.

The states are the parent, the unlearned model, and the unlearned model after a benign fine-tune on retain. The sets, by name:
`requested` (the request's own records), `requested_paraphrased`, `retain`, `neighbours`, `general`, `general_paraphrased`, `holdout`,
`holdout_paraphrased` and the audit canaries `audit_included`, `audit_excluded`, `audit_included_paraphrased`, `audit_excluded_paraphrased`.
A set may be missing: then nothing is said of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from . import stats
from .epsilon import canary_epsilon, detectable_epsilon
from .errors import UnlearnError
from .protocols import Attack, Metric, Subject
from .records import CanaryTest, Direction, ModelReport, Score, Verbatim

INCLUDED, EXCLUDED, PARAPHRASED = "audit_included", "audit_excluded", "_paraphrased"
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
    """Everything measured on one state of the model."""
    present = {name: subject for name, subject in subjects.items() if len(subject.answers)}
    return ModelReport(
        scores={name: _scores(name, subject, measures) for name, subject in sorted(present.items())},
        canaries=tuple(_tests(present, INCLUDED, EXCLUDED, measures)),
        paraphrased_canaries=tuple(_tests(present, INCLUDED + PARAPHRASED, EXCLUDED + PARAPHRASED, measures)),
        verbatim=_verbatim(present),
        own=tuple(_tests(present, "requested", EXCLUDED, measures)),
        own_paraphrased=tuple(_tests(present, "requested" + PARAPHRASED, EXCLUDED + PARAPHRASED, measures)),
    )


def utility(before: Subjects, after: Subjects, measures: Measures) -> dict[str, Score]:
    """`set/metric` -> paired difference after - before, on what must not suffer."""
    differences: dict[str, Score] = {}
    for name in UTILITY_SETS:
        if name in before and name in after and len(after[name].answers):
            for metric in (m for m in UTILITY_METRICS if m in measures.metrics):
                old, new = (_values(metric, name, subjects[name], measures) for subjects in (before, after))
                differences[f"{name}/{metric}"] = stats.paired_score(new, old, measures.bootstrap, measures.seed)
    return differences


def paraphrase_gap(subjects: Subjects, measures: Measures) -> Score | None:
    """Mean probability of included canaries' answers to paraphrased questions above that of excluded ones; None without paraphrases."""
    pair = [subjects.get(name + PARAPHRASED) for name in (INCLUDED, EXCLUDED)]
    if any(subject is None or not len(subject.answers) for subject in pair) or "probability" not in measures.metrics:
        return None
    included, excluded = (_values("probability", "paraphrased canaries", subject, measures) for subject in pair if subject is not None)
    return stats.difference_score(included, excluded, measures.bootstrap, measures.seed)


def verbatim_hits(subject: Subject) -> NDArray[np.bool_]:
    """(records,) whether the greedy answer is the true one to its end: every teacher-forced first choice is right, end token included."""
    return np.array([bool(hits.all()) for hits in subject.token_hits], dtype=np.bool_)


def _values(metric: str, name: str, subject: Subject, measures: Measures) -> NDArray[np.float64]:
    values = measures.metrics[metric].values(subject)
    _refuse(int((~np.isfinite(values)).sum()), metric, name, len(values))
    return values


def _refuse(broken: int, what: str, name: str, n: int) -> None:
    """A model that answers with NaN is broken; ranks and means of NaN would look like forgetting."""
    if broken:
        raise UnlearnError(
            f"evaluate: {what} on {name}: {broken} of {n} values are not numbers; expected finite ones. The weights have most likely "
            "diverged: lower unlearn.optimiser.learning_rate in params.yaml and run `dvc repro`"
        )


def _scores(name: str, subject: Subject, measures: Measures) -> dict[str, Score]:
    scores = {}
    for metric, measured in measures.metrics.items():
        values = _values(metric, name, subject, measures)
        scores[metric] = stats.mean_score(values, _direction(name, measured.direction), measures.bootstrap, measures.seed)
    hits = verbatim_hits(subject)
    low, high = stats.clopper_pearson(int(hits.sum()), len(hits))
    direction = _direction(name, Direction.LOWER)
    exact = Score(value=float(hits.mean()), low=low, high=high, n=len(hits), direction=direction, interval="clopper-pearson")
    return {**scores, "exact_match": exact}


def _direction(name: str, on_forget: Direction) -> Direction:
    """A metric's direction is that of a forget set; what must stay known turns it round."""
    turned = {Direction.LOWER: Direction.HIGHER, Direction.HIGHER: Direction.LOWER}
    return turned.get(on_forget, on_forget) if name in KEPT else on_forget


def _tests(subjects: Subjects, included: str, excluded: str, measures: Measures) -> list[CanaryTest]:
    if included not in subjects or excluded not in subjects:
        return []
    return [_test(name, attack, subjects[included], subjects[excluded], measures) for name, attack in measures.attacks.items()]


def _test(name: str, attack: Attack, included: Subject, excluded: Subject, measures: Measures) -> CanaryTest:
    members, strangers = attack.suspicion(included), attack.suspicion(excluded)
    _refuse(int(np.isnan([*members, *strangers]).sum()), f"{name} attack", "canaries", len(members) + len(strangers))
    auc = stats.area(members, strangers)
    p_member, p_non_member = stats.permutation_p(members, strangers, measures.permutations, measures.seed)
    half = 1.96 * auc.error
    return CanaryTest(
        attack=name,
        auc=Score(
            value=auc.value,
            low=max(0.0, auc.value - half),
            high=min(1.0, auc.value + half),
            n=len(members) + len(strangers),
            direction=Direction.NEAR_CENTRE,
            interval="delong",
        ),
        auc_upper={stats.level_key(level): auc.upper_limit(level) for level in map(stats.attempt_level, range(1, stats.ATTEMPTS + 1))},
        p_member=p_member,
        p_non_member=p_non_member,
        epsilon=canary_epsilon(members, strangers),
        detectable_epsilon=detectable_epsilon(len(members) + len(strangers)),
    )


def _verbatim(subjects: Subjects) -> Verbatim | None:
    if INCLUDED not in subjects or EXCLUDED not in subjects:
        return None
    included, excluded = verbatim_hits(subjects[INCLUDED]), verbatim_hits(subjects[EXCLUDED])
    counts = int(included.sum()), len(included), int(excluded.sum()), len(excluded)
    return Verbatim(included_matches=counts[0], included=counts[1], excluded_matches=counts[2], excluded=counts[3], p=stats.fisher_p(*counts))
