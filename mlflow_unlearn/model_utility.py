"""TOFU's model utility: the harmonic mean of nine parts, with each part, its interval and its drop. Pure numpy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats as distributions

from . import stats
from .records import Direction, Score

Values = NDArray[np.float64]

PARTS = (
    *(f"retain/{part}" for part in ("probability", "rouge_l_recall", "truth_ratio")),
    *(f"{name}/{part}" for name in ("real_authors", "world_facts") for part in ("probability_with_options", "rouge_l_recall", "truth_ratio")),
)
"""Set and measure of each part, all of them in [0, 1] and better when higher; the truth ratio enters as max(0, 1 - R)."""


@dataclass(frozen=True, kw_only=True)
class ModelUtility:
    """What a model still knows of what it should."""

    score: Score | None
    """Harmonic mean of the nine parts; None where one of them is missing, since a mean of fewer parts is another measure."""
    parts: Mapping[str, Score]
    """Those of `PARTS` that were measured."""
    missing: tuple[str, ...] = ()
    drops: Mapping[str, Score] = field(default_factory=dict)
    """Part -> mean paired difference to the model that it is compared with; below 0 is worse."""


def model_utility(values: Mapping[str, Values], resamples: int, seed: int, before: Mapping[str, Values] | None = None) -> ModelUtility:
    """Parts, their harmonic mean and, against another model, the drop of each part.

    One part of 0 makes the whole 0, whatever the others are: read the parts. The interval of the mean comes from resampling the records of each set,
    all parts of a set together; a part whose values are all alike stands at its own limit on either side. It does not cover the choice of questions.

    Paper: Maini et al. 2024, "TOFU" (arXiv:2401.06121), section 3; OpenUnlearning takes the same nine parts.

    Args:
        values: `set/measure` -> (records,) values in [0, 1]; not a number where a record does not have what the measure needs. Names outside of
            `PARTS` are left out.
        resamples: of the bootstrap.
        seed: of the resamples.
        before: the same of the model to compare with, for the same records in the same order.

    Raises:
        ValueError: parts of one set have different numbers of records, or two models were asked different ones.
    """
    known = {part: values[part] for part in PARTS if part in values and not np.isnan(values[part]).all()}
    parts = {part: stats.mean_score(_given(value), Direction.HIGHER, resamples, seed) for part, value in known.items()}
    missing = tuple(part for part in PARTS if part not in parts)
    score = None if missing else _harmonic(known, parts, resamples, seed)
    return ModelUtility(score=score, parts=parts, missing=missing, drops=_drops(known, before or {}))


def harmonic_mean(parts: Iterable[float]) -> float:
    """Number of parts over the sum of 1 / part; 0 where a part is 0.

    Raises:
        ValueError: no parts, or one below 0.
    """
    found = np.array(list(parts), dtype=np.float64)
    if not len(found) or (found < 0).any():
        raise ValueError("harmonic_mean: expected at least one part, none below 0")
    return float(distributions.hmean(found))


def _drops(values: Mapping[str, Values], before: Mapping[str, Values]) -> dict[str, Score]:
    drops = {}
    for part in (part for part in values if part in before):
        after, old = values[part], before[part]
        if len(after) != len(old):
            raise ValueError(f"model_utility: {part}: expected the same records of both models, found {len(after)} and {len(old)}")
        both = ~np.isnan(after) & ~np.isnan(old)
        if both.any():
            drops[part] = replace(stats.paired_score(after[both], old[both]), values=())
    return drops


def _harmonic(values: Mapping[str, Values], parts: Mapping[str, Score], resamples: int, seed: int) -> Score:
    plain = _resampled_means(values, resamples, seed)
    lows, highs = plain.copy(), plain.copy()
    for i, part in enumerate(PARTS):
        if np.ptp(_given(values[part])) == 0.0:
            lows[:, i], highs[:, i] = parts[part].low, parts[part].high
    value = harmonic_mean(parts[part].value for part in PARTS)
    levels = _levels(distributions.hmean(plain, axis=1), value, _influences(values, value))
    low, high = (float(np.quantile(distributions.hmean(side, axis=1), level)) for side, level in zip((lows, highs), levels, strict=True))
    n = sum({part.split("/")[0]: len(values[part]) for part in PARTS}.values())
    return Score(value=value, low=min(low, value), high=max(high, value), n=n, direction=Direction.HIGHER, interval="bootstrap-bca")


def _levels(drawn: Values, value: float, influences: Values) -> tuple[float, float]:
    """Which quantiles of the draws bound 95 %: BCa (Efron 1987), since a harmonic mean of resampled means is too small more often than too large."""
    largest = float(np.abs(influences).max())
    if largest == 0.0:
        return 0.025, 0.975
    scaled = influences / largest
    acceleration = float((scaled**3).sum() / (6.0 * (scaled**2).sum() ** 1.5))
    share = ((drawn < value).sum() + 0.5 * (drawn == value).sum()) / len(drawn)
    bias = distributions.norm.ppf(np.clip(share, 0.5 / len(drawn), 1.0 - 0.5 / len(drawn)))
    shifted = bias + distributions.norm.ppf([0.025, 0.975])
    low, high = distributions.norm.cdf(bias + shifted / (1.0 - acceleration * shifted))
    return float(low), float(high)


def _influences(values: Mapping[str, Values], value: float) -> Values:
    """How far each record of each set moves the harmonic mean, to first order; 0 where it is 0."""
    moved: dict[str, Values] = {}
    for part in PARTS if value else ():
        given = _given(values[part])
        slope = (value / given.mean()) ** 2 / (len(PARTS) * len(given))
        own = np.nan_to_num(slope * (values[part] - given.mean()))
        name = part.split("/")[0]
        moved[name] = moved.get(name, np.zeros(len(own))) + own
    return np.concatenate(list(moved.values())) if moved else np.zeros(1)


def _resampled_means(values: Mapping[str, Values], resamples: int, seed: int) -> Values:
    """(resamples, parts): the records of each set are drawn once for all of its parts; a draw without any value of a part repeats its mean."""
    generator, means = np.random.default_rng(seed), np.empty((resamples, len(PARTS)))
    for name in dict.fromkeys(part.split("/")[0] for part in PARTS):
        own = [i for i, part in enumerate(PARTS) if part.startswith(f"{name}/")]
        if len({len(values[PARTS[i]]) for i in own}) > 1:
            raise ValueError(f"model_utility: expected the parts of {name} to be about the same records, found different numbers of them")
        n = len(values[PARTS[own[0]]])
        counts = generator.multinomial(n, np.full(n, 1 / n), resamples).astype(np.float64)
        for i in own:
            given = ~np.isnan(values[PARTS[i]])
            weights = counts[:, given]
            total = weights.sum(axis=1)
            weighted = weights @ _given(values[PARTS[i]])
            means[:, i] = np.where(total > 0, weighted / np.maximum(total, 1.0), _given(values[PARTS[i]]).mean())
    return means


def _given(values: Values) -> Values:
    return values[~np.isnan(values)]
