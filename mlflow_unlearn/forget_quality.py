"""TOFU's forget quality: can the truth ratios of an unlearned model be told from those of a model that never saw the records? Pure numpy."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .records import Direction, Score

Values = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class ForgetQuality:
    """The two-sample Kolmogorov-Smirnov test between the truth ratios of two models on the same records."""

    p: float
    """TOFU's forget quality. A test's p and no score: the same distance gives another p for every number of records."""
    statistic: Score
    """The largest distance between the two distribution functions, in [0, 1]; 0 where they are alike."""


def forget_quality(unlearned: Values, retrained: Values, resamples: int, seed: int) -> ForgetQuality:
    """How far truth ratios are from a retrained model's, and how seldom chance takes them as far.

    The p is the published figure. It must not be compared between forget sets, nor read as `the more, the better`: a retrained model is above 0.05
    only 95 times in 100, and few records are never far from anything (a distance of 0.3 has p 0.054 at 40 records and 3e-16 at 400). It also takes
    the two sides for independent, although both models were asked the same questions. The statistic with its interval depends on none of that.

    Paper: Maini et al. 2024, "TOFU" (arXiv:2401.06121), section 3. Exact p: Gnedenko and Korolyuk 1951.

    Args:
        unlearned: (records,) truth ratios of one model; any monotone function of them gives the same answer.
        retrained: (records,) of the other, the same records in the same order.
        resamples: of the bootstrap, which draws records and keeps both models' ratios of a record together.
        seed: of the resamples.

    Raises:
        ValueError: no records, not as many on both sides, or ratios that cannot be ordered.
    """
    if not len(unlearned) or len(unlearned) != len(retrained):
        raise ValueError(f"forget_quality: expected the same records on both sides, found {len(unlearned)} and {len(retrained)}")
    if np.isnan(unlearned).any() or np.isnan(retrained).any():
        raise ValueError("forget_quality: expected truth ratios that can be ordered, found some that are not numbers")
    steps = _Steps.of(unlearned, retrained)
    distance, reach = int(steps.heights.max(initial=0)), steps.reach(resamples, seed)
    n = len(unlearned)
    value = distance / n
    low, high = max(0.0, value - reach), min(1.0, value + reach)
    score = Score(value=value, low=low, high=high, n=n, direction=Direction.LOWER, interval="bootstrap-band")
    return ForgetQuality(p=exact_p(distance, n), statistic=score)


def exact_p(distance: int, n: int) -> float:
    """Chance that two samples of n from one continuous distribution are at least `distance` / n apart.

    Counts the paths of 2n steps that leave a strip, in whole numbers, so that the smallest p are right too; with ties it is an upper limit.

    Args:
        distance: n times the Kolmogorov-Smirnov statistic, which is a whole number for samples of equal size.
        n: records on each side.
    """
    if distance <= 0:
        return 1.0
    paths = (math.comb(2 * n, n - turn * distance) for turn in range(1, n // distance + 1))
    leaving = sum(count if turn % 2 == 0 else -count for turn, count in enumerate(paths))
    return min(1.0, 2 * leaving / math.comb(2 * n, n))


@dataclass(frozen=True, kw_only=True)
class _Steps:
    """Both samples in ascending order, as steps of 1 / n up and down."""

    owner: NDArray[np.int64]
    """(2n,) which record each belongs to."""
    sign: NDArray[np.int64]
    """(2n,) +1 for the first sample, -1 for the second."""
    last: NDArray[np.bool_]
    """(2n,) whether the next value is another: between equal ones no distance is measured."""

    @classmethod
    def of(cls, one: Values, other: Values) -> _Steps:
        pooled = np.concatenate([one, other])
        order = np.argsort(pooled, kind="stable")
        ascending = pooled[order]
        last = np.append(ascending[1:] != ascending[:-1], True)
        return cls(owner=order % len(one), sign=np.where(order < len(one), 1, -1), last=last)

    @property
    def heights(self) -> NDArray[np.int64]:
        """(values,) distance at each value, in steps of 1 / n."""
        heights: NDArray[np.int64] = np.abs(np.cumsum(self.sign)[self.last])
        return heights

    def reach(self, resamples: int, seed: int) -> float:
        """How far the true distance may lie from the measured one: the bootstrap's 95 % band around the difference of the two functions.

        A bootstrap of the statistic itself never covers 0, since resampling only moves equal samples apart. Where resampling changes nothing, as
        many records may be otherwise as could be missed 39 times in 40.
        """
        n = len(self.sign) // 2
        drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), resamples) - 1
        wander = np.abs(np.cumsum(drawn[:, self.owner] * self.sign, axis=1)[:, self.last]).max(axis=1) / n
        return max(float(np.quantile(wander, 0.95)), 1.0 - math.pow(0.025, 1 / n))
