"""Intervals, tests and areas under curves. Pure numpy and scipy; every resampling has its seed.

One sign convention: higher suspicion means more likely a member of the training set.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import stats as distributions

from .errors import UnmeasurableError
from .records import Direction, Score

Values = NDArray[np.float64]
K = TypeVar("K", bound=Hashable)

ATTEMPTS = 10
"""Limits are computed for so many attempts; a later one has no limit and cannot pass."""


def attempt_level(attempt: int) -> float:
    """Confidence of the PASS limits of an attempt, counted from 1: 1 - .05 / 2^(attempt - 1), so that trying again does not help."""
    return 1.0 - math.ldexp(0.05, 1 - attempt)


def normal_quantile(level: float) -> float:
    """The standard normal's quantile, to widen a normal-shaped limit from one confidence to another."""
    return float(distributions.norm.ppf(level))


def level_key(level: float) -> str:
    """The key of a confidence level in `CanaryTest.auc_upper`."""
    return f"{level:.8g}"


@dataclass(frozen=True, kw_only=True)
class Area:
    """An area under the ROC curve with its standard error."""

    value: float
    error: float
    """DeLong's standard error, at least that of half a record."""

    def upper_limit(self, level: float) -> float:
        """One-sided upper limit of |AUC - 0.5| at confidence `level` on either side (two one-sided tests)."""
        return abs(self.value - 0.5) + float(distributions.norm.ppf(level)) * self.error

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Two-sided limits on the scale of log-odds, which near 1 cover where value +-1.96 errors do not (92 % at an AUC of .983 and 200 a side)."""
        middle = min(max(self.value, self.error / 2), 1.0 - self.error / 2)
        reach = normal_quantile((1 + level) / 2) * self.error / (middle * (1.0 - middle))
        low, high = distributions.logistic.cdf(distributions.logistic.ppf(middle) + np.array([-reach, reach]))
        return min(float(low), self.value), max(float(high), self.value)


def area(members: Values, non_members: Values) -> Area:
    """AUC of suspicion with ties counted half, and its error (DeLong, DeLong and Clarke-Pearson 1988).

    Args:
        members: (m,) suspicions, higher = more likely a member; minus infinity is allowed.
        non_members: (n,) likewise.

    Raises:
        UnmeasurableError: one side is empty: an attack that is shown one class alone tells nothing apart.
        ValueError: a suspicion is not a number.
    """
    require_both(members, non_members)
    if np.isnan(members).any() or np.isnan(non_members).any():
        raise ValueError("area: expected suspicions that can be ordered, found some that are not numbers")
    ranks = distributions.rankdata(np.concatenate([members, non_members]))
    m, n = len(members), len(non_members)
    above = (ranks[:m] - distributions.rankdata(members)) / n  # share of non-members below each member
    below = 1.0 - (ranks[m:] - distributions.rankdata(non_members)) / m
    variance = (above.var(ddof=1) / m if m > 1 else 0.0) + (below.var(ddof=1) / n if n > 1 else 0.0)
    return Area(value=float(above.mean()), error=max(math.sqrt(variance), 0.5 / min(m, n)))


def require_both(members: Values, non_members: Values) -> None:
    """Refuse what has one class only.

    Raises:
        UnmeasurableError: one side is empty.
    """
    if not len(members) or not len(non_members):
        found = f"found {len(members)} members and {len(non_members)} non-members"
        raise UnmeasurableError(f"attack: {found}, expected some of each; one class alone cannot be told from anything: add records of the other")


def permutation_p(members: Values, non_members: Values, permutations: int, seed: int) -> tuple[float, float]:
    """P that members look more, and that they look less, like members than chance allows: (1 + exceedances) / (1 + permutations).

    Valid at every size because a coin decided who is a member (Phipson and Smyth 2010 for the added one). It cannot fall below `smallest_p`.

    Raises:
        UnmeasurableError: one side is empty.
    """
    require_both(members, non_members)
    ranks = distributions.rankdata(np.concatenate([members, non_members]))
    generator, m = np.random.default_rng(seed), len(members)
    observed = ranks[:m].sum()
    drawn = np.array([generator.permutation(ranks)[:m].sum() for _ in range(permutations)])
    slack = 1e-9 * len(ranks)  # sums of half ranks
    more, less = int((drawn >= observed - slack).sum()), int((drawn <= observed + slack).sum())
    floor = smallest_p(m, len(ranks) - m)  # few draws can miss every other way to deal so few records
    return max(floor, (1 + more) / (1 + permutations)), max(floor, (1 + less) / (1 + permutations))


def suspicion_order(members: Values, non_members: Values) -> str:
    """Suspicions without their sizes, for `CanaryTest.order`: all that an area, its error and a p of ranks depend on."""
    levels = np.unique(np.concatenate([members, non_members]))
    counts = (np.bincount(np.searchsorted(levels, side), minlength=len(levels)) for side in (members, non_members))
    groups = ("i" * included + "e" * excluded for included, excluded in zip(*counts, strict=True))
    return "".join(group if len(group) == 1 else f"({group})" for group in groups)


def smallest_p(own: int, controls: int, permutations: int | None = None) -> float:
    """The smallest p that ranks of `own` records against `controls` can give: all of them outside; with drawn permutations no less than 1 / (1 + n).

    One record against k controls never falls below 1 / (k + 1): 99 controls are needed for .01.
    """
    exact = 1 / math.comb(own + controls, own)
    return exact if permutations is None else max(exact, 1.0 / (1 + permutations))


def rounded(values: Values) -> Values:
    """To 9 significant digits: what is computed from these can be computed again by whoever reads them in a document."""
    return np.array([float(f"{value:.9g}") for value in values]) + 0.0  # no minus zero, which canonical JSON does not keep


def mean_score(values: Values, direction: Direction, resamples: int, seed: int) -> Score:
    """Mean with a 95 % interval: Clopper-Pearson where every value is 0 or 1 or all are alike, else BCa (Efron 1987).

    Alike values outside [0, 1] have no known range; the unseen ones are then taken to lie at most max(1, |value|) away.

    Raises:
        ValueError: there is no value, or one is not a finite number.
    """
    if not len(values) or not np.isfinite(values).all():
        raise ValueError("mean_score: expected at least one value, all finite")
    mean, n = float(values.mean()), len(values)
    if np.isin(values, (0.0, 1.0)).all():
        low, high = clopper_pearson(int(values.sum()), n)
        return Score(value=mean, low=low, high=high, n=n, direction=direction, interval="clopper-pearson")
    if np.ptp(values) == 0.0:
        value = float(values[0])
        reach = max(1.0, abs(value))
        low, high = _alike(value, n, (0.0, 1.0) if 0.0 <= value <= 1.0 else (value - reach, value + reach))
        mean = value  # the sum of alike values may round away from them
        return Score(value=mean, low=low, high=high, n=n, direction=direction, interval="clopper-pearson")
    low, high = bca(values, resamples, seed)
    return Score(value=mean, low=low, high=high, n=n, direction=direction, interval="bootstrap-bca")


def paired_score(after: Values, before: Values) -> Score:
    """Mean of after - before, record by record, with 95 % limits (`mean_limits`); higher is better. For values in [0, 1].

    Alike differences (often all 0) say how rare another one must be, not that there is none: with n of them, at most 1 - 0.025^(1/n) of all
    records can differ, by no more than the range [-1, 1] allows.

    Raises:
        ValueError: the two do not pair, or there is nothing to pair.
    """
    if not len(after) or len(after) != len(before):
        raise ValueError(f"paired_score: expected as many records after as before, found {len(after)} and {len(before)}")
    difference = np.sort(rounded(after - before))
    low, high = mean_limits(difference, (-1.0, 1.0))
    return Score(
        value=float(difference.mean()),
        low=low,
        high=high,
        n=len(difference),
        direction=Direction.HIGHER,
        interval="bca-second-order",
        values=(tuple(difference.tolist()),),
    )


def difference_score(left: Values, right: Values) -> Score:
    """Difference of two independent means of values in [0, 1], left - right, lower is better, with a 95 % interval.

    Newcombe's square-and-add limits (1998, method 10) over the two means' own, which stay open where a side is small or all alike.

    Raises:
        ValueError: a side is empty.
    """
    if not len(left) or not len(right):
        raise ValueError(f"difference_score: expected values on both sides, found {len(left)} and {len(right)}")
    sides = [np.sort(rounded(side)) for side in (left, right)]
    (one, low, high), (other, its_low, its_high) = ((float(side.mean()), *_share_limits(side)) for side in sides)
    return Score(
        value=one - other,
        low=one - other - math.hypot(one - low, its_high - other),
        high=one - other + math.hypot(high - one, other - its_low),
        n=len(left) + len(right),
        direction=Direction.LOWER,
        interval="square-and-add",
        values=tuple(tuple(side.tolist()) for side in sides),
    )


def _share_limits(values: Values) -> tuple[float, float]:
    if np.isin(values, (0.0, 1.0)).all():
        return clopper_pearson(int(values.sum()), len(values))
    return mean_limits(values, (0.0, 1.0))


def mean_limits(values: Values, within: tuple[float, float]) -> tuple[float, float]:
    """95 % limits of the mean of values in a known range which whoever reads the values can compute again, without draws and in any language.

    BCa (Efron 1987) with the bootstrap distribution of the mean taken to second order (Hall 1992, section 2.3). Simulated with 20, 50 and 300
    values, heavy tails and rare differences among them, it covers as often as 1,000 draws do, to one in a hundred. Where all are alike: `_alike`.
    """
    if np.ptp(values) == 0.0:
        return _alike(float(values[0]), len(values), within)
    n, mean = len(values), float(values.mean())
    bend, deviation, limits = _skew(values) / (6.0 * math.sqrt(n)), float(values.std()) / math.sqrt(n), []
    for tail in (normal_quantile(0.025), normal_quantile(0.975)):
        moved = bend + (bend + tail) / (1.0 - bend * (bend + tail))
        limits.append(mean + deviation * (moved + bend * (moved**2 - 1.0)))
    return max(within[0], min(limits[0], mean)), min(within[1], max(limits[1], mean))


def bca(values: Values, resamples: int, seed: int, level: float = 0.95) -> tuple[float, float]:
    """Bias-corrected and accelerated interval of the mean (Efron 1987); it always holds the mean.

    Simulated, a 95 % one covers 93-95 % from 50 values on; of 20 values 93 %, but 85 % where most are near 0 and a few are not (Beta(0.1, 2)): few
    values cannot know of the rare ones.
    """
    n, mean = len(values), float(values.mean())
    drawn = np.random.default_rng(seed).choice(values, (resamples, n)).mean(axis=1)
    share = np.clip(((drawn < mean).sum() + 0.5 * (drawn == mean).sum()) / resamples, 1 / (2 * resamples), 1 - 1 / (2 * resamples))
    bias = distributions.norm.ppf(share)
    acceleration = _skew(values) / (6.0 * math.sqrt(n))
    tails = distributions.norm.ppf([(1 - level) / 2, (1 + level) / 2])
    quantiles = distributions.norm.cdf(bias + (bias + tails) / (1 - acceleration * (bias + tails)))
    low, high = np.quantile(drawn, quantiles)
    return min(float(low), mean), max(float(high), mean)


def clopper_pearson(hits: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Exact two-sided interval of a proportion (Clopper and Pearson 1934)."""
    tail = (1 - level) / 2
    low = float(distributions.beta.ppf(tail, hits, n - hits + 1)) if hits else 0.0
    high = float(distributions.beta.ppf(1 - tail, hits + 1, n - hits)) if hits < n else 1.0
    return low, high


def fisher_p(included_hits: int, included: int, excluded_hits: int, excluded: int) -> float:
    """Fisher's exact one-sided p that included records match more often than excluded ones."""
    table = [[included_hits, included - included_hits], [excluded_hits, excluded - excluded_hits]]
    return float(distributions.fisher_exact(table, alternative="greater").pvalue)


def holm(p_values: Mapping[K, float]) -> dict[K, float]:
    """Adjusted p-values that keep the family-wise error (Holm 1979)."""
    adjusted: dict[K, float] = {}
    running = 0.0
    for rank, name in enumerate(sorted(p_values, key=p_values.__getitem__)):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = running
    return adjusted


def _skew(values: Values) -> float:
    """Skewness; jackknife influences of a mean are its centred values, so that BCa's acceleration is this over 6 sqrt(n).

    Scaled first: cubes of a ruined model's probabilities (1e-130) would underflow.
    """
    centred = values - values.mean()
    largest = float(np.abs(centred).max())
    if largest == 0.0:
        return 0.0
    centred = centred / largest
    return float((centred**3).mean() / (centred**2).mean() ** 1.5)


def _alike(value: float, n: int, within: tuple[float, float]) -> tuple[float, float]:
    """Limits of the mean when n values are equal: Clopper-Pearson's share of unlike ones, which lie as far away as `within` allows."""
    unlike = 1.0 - 0.025 ** (1.0 / n)
    return value - unlike * (value - within[0]), value + unlike * (within[1] - value)
