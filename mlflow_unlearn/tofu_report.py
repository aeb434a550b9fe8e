"""The verb behind `benchmark tofu`: what several states of a model say of TOFU's four sets, to its two tables with intervals.

The states are `original` (trained on everything), `unlearned` and `retrained` (never saw the forget set); the sets `forget`, `retain`,
`real_authors` and `world_facts`. Only the unlearned state has to be there: whatever compares it with a missing one is absent, and named.

Paper: Maini et al. 2024, "TOFU: A Task of Fictitious Unlearning for LLMs" (arXiv:2401.06121).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from . import stats
from .asking import Measured, Values, measured
from .forget_quality import ForgetQuality, forget_quality
from .metrics.exact_memorization import ExactMemorization
from .metrics.extraction_strength import ExtractionStrength
from .metrics.probability import Probability
from .metrics.probability_with_options import ProbabilityWithOptions
from .metrics.rouge_l_recall import RougeLRecall
from .metrics.truth_ratio import TruthRatio, on_forget, on_retain
from .model_utility import PARTS, ModelUtility, model_utility
from .protocols import Metric, Subject
from .records import Direction, Score

ORIGINAL, UNLEARNED, RETRAINED = STATES = ("original", "unlearned", "retrained")
FORGET = ("probability", "rouge_l_recall", "truth_ratio", "exact_memorization", "extraction_strength")
"""Measures of the forget set; the truth ratio as min(R, 1 / R)."""
TRUTH_RATIO = "forget/truth_ratio"


@dataclass(frozen=True, kw_only=True)
class TofuState:
    """One state of the model."""

    forget: Mapping[str, Score]
    quality: ForgetQuality | None
    """Against the retrained model; None for the retrained model itself and where there is none."""
    utility: ModelUtility
    """Its drops are those against the original model, else against the retrained one."""
    absent: Mapping[str, str] = field(default_factory=dict)
    """What could not be measured -> why."""


@dataclass(frozen=True, kw_only=True)
class TofuReport:
    """All states side by side."""

    states: Mapping[str, TofuState]
    compared_with: str | None
    """The state that drops are measured against."""


def measure(subjects: Mapping[str, Subject], ratio: TruthRatio) -> Measured:
    """Everything that TOFU asks of one state of the model.

    Args:
        subjects: `forget`, `retain`, `real_authors` and `world_facts` as the model sees them; missing ones are named in the answer.
        ratio: which form of the truth ratio. Published tables have the geometric one.

    Raises:
        UnlearnError: a value is not a number.
    """
    known: dict[str, Metric] = {
        "probability": Probability(),
        "probability_with_options": ProbabilityWithOptions(),
        "rouge_l_recall": RougeLRecall(),
        "truth_ratio": ratio,
        "exact_memorization": ExactMemorization(),
        "extraction_strength": ExtractionStrength(),
    }
    return measured(subjects, {where: known[where.split("/")[1]] for where in (*(f"forget/{each}" for each in FORGET), *PARTS)})


def report(states: Mapping[str, Measured], resamples: int, seed: int) -> TofuReport:
    """The tables.

    Args:
        states: state -> what `measure` found there.
        resamples: of every bootstrap.
        seed: of the resamples.

    Raises:
        ValueError: two states were asked different records.
    """
    compared = next((name for name in (ORIGINAL, RETRAINED) if name in states), None)
    return TofuReport(states={name: _state(name, states, compared, (resamples, seed)) for name in STATES if name in states}, compared_with=compared)


def _state(name: str, states: Mapping[str, Measured], compared: str | None, draws: tuple[int, int]) -> TofuState:
    found = states[name]
    before = None if compared in (None, name) else _utility_values(states[compared])
    utility = model_utility(_utility_values(found), *draws, before=before)
    quality, why = _quality(name, states, draws)
    absent = dict(found.absent) | ({} if why is None else {"forget quality": why})
    if utility.missing:
        absent["model utility"] = f"it is the mean of nine parts, and {len(utility.missing)} are missing: {', '.join(utility.missing)}"
    if compared is None:
        absent["drops"] = "no other model to compare with; name the original or a retrained one"
    return TofuState(forget=_forget(found, draws), quality=quality, utility=utility, absent=absent)


def _forget(found: Measured, draws: tuple[int, int]) -> dict[str, Score]:
    values = {measure: found.values[f"forget/{measure}"] for measure in FORGET if f"forget/{measure}" in found.values}
    if "truth_ratio" in values:
        values["truth_ratio"] = on_forget(values["truth_ratio"])
    direction = {"truth_ratio": Direction.HIGHER}
    return {measure: stats.mean_score(_given(each), direction.get(measure, Direction.LOWER), *draws) for measure, each in values.items()}


def _quality(name: str, states: Mapping[str, Measured], draws: tuple[int, int]) -> tuple[ForgetQuality | None, str | None]:
    """And why there is none, where there ought to be one."""
    if name == RETRAINED:
        return None, None
    if RETRAINED not in states:
        return None, "no model was given that was trained without the forget set"
    own, other = (states[each].values.get(TRUTH_RATIO) for each in (name, RETRAINED))
    if own is None or other is None:
        return None, "no truth ratios of both models"
    both = ~np.isnan(own) & ~np.isnan(other) if len(own) == len(other) else slice(None)
    return forget_quality(own[both], other[both], *draws), None


def _utility_values(found: Measured) -> dict[str, Values]:
    turned = {where: on_retain(values) for where, values in found.values.items() if where.endswith("/truth_ratio") and where != TRUTH_RATIO}
    return {where: values for where, values in {**found.values, **turned}.items() if where in PARTS}


def _given(values: Values) -> Values:
    return values[~np.isnan(values)]
