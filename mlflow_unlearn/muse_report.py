"""The verb behind `benchmark muse`: what several states of a model say of MUSE's sets, to its table with intervals.

The states are those of `benchmark tofu`. The sets: `verbatim` (beginnings of forgotten texts), `forget_questions`, `retain_questions`, and whole
texts for the privacy leak, `forget_texts` and `unseen_texts`.

Paper: Shi et al. 2024, "MUSE: Machine Unlearning Six-Way Evaluation for Language Models" (arXiv:2407.06460), C1 to C4. Scalability (C5) and
sustainability (C6) are these figures over several runs; one model does not have them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from . import stats
from .asking import Measured, Suspicion, measured
from .attacks.min_k import MinK
from .errors import UnmeasurableError
from .metrics.knowledge_memorization import KnowledgeMemorization
from .metrics.verbatim_memorization import VerbatimMemorization
from .privacy_leak import PrivacyLeak, Sides, privacy_leak
from .protocols import Metric, Subject
from .records import Direction, Score

ORIGINAL, UNLEARNED, RETRAINED = STATES = ("original", "unlearned", "retrained")
SCORES = {
    "verbatim/verbatim_memorization": Direction.LOWER,
    "forget_questions/knowledge_memorization": Direction.LOWER,
    "retain_questions/knowledge_memorization": Direction.HIGHER,
}
FORGOTTEN, UNSEEN = "forget_texts/min_k", "unseen_texts/min_k"


@dataclass(frozen=True, kw_only=True)
class MuseState:
    """One state of the model."""

    scores: Mapping[str, Score]
    """`set/measure` -> mean in [0, 1]; published tables have 100 times as much."""
    leak: PrivacyLeak | None
    """Against the retrained model; None for that model itself and where there is none."""
    absent: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class MuseReport:
    """All states side by side."""

    states: Mapping[str, MuseState]


def measure(subjects: Mapping[str, Subject]) -> Measured:
    """Everything that MUSE asks of one state of the model; Min-K% looks at the 40 % least likely tokens, as the paper does.

    Raises:
        UnlearnError: a value is not a number.
    """
    known: dict[str, Metric] = {
        "verbatim_memorization": VerbatimMemorization(),
        "knowledge_memorization": KnowledgeMemorization(),
        "min_k": Suspicion(attack=MinK(share=0.4)),
    }
    return measured(subjects, {where: known[where.split("/")[1]] for where in (*SCORES, FORGOTTEN, UNSEEN)})


def report(states: Mapping[str, Measured], resamples: int, seed: int) -> MuseReport:
    """The table.

    Raises:
        ValueError: two states were asked different texts.
    """
    return MuseReport(states={name: _state(name, states, resamples, seed) for name in STATES if name in states})


def _state(name: str, states: Mapping[str, Measured], resamples: int, seed: int) -> MuseState:
    found = states[name]
    scores = {where: stats.mean_score(found.values[where], to, resamples, seed) for where, to in SCORES.items() if where in found.values}
    try:
        leak, absent = None if name == RETRAINED else _leak(name, states), {}
    except UnmeasurableError as error:
        leak, absent = None, {"privacy leak": str(error)}
    return MuseState(scores=scores, leak=leak, absent={**found.absent, **absent})


def _leak(name: str, states: Mapping[str, Measured]) -> PrivacyLeak:
    if RETRAINED not in states:
        raise UnmeasurableError("no model was given that was trained without the forgotten texts; an AUC of 0.5 would be no reference")
    pair = [states[each].values for each in (name, RETRAINED)]
    if not all(where in values for values in pair for where in (FORGOTTEN, UNSEEN)):
        raise UnmeasurableError("Min-K% is not known of both models' forgotten and unseen texts")
    unlearned, retrained = (Sides(forget=values[FORGOTTEN], holdout=values[UNSEEN]) for values in pair)
    return privacy_leak(unlearned, retrained)
