"""What an attack reaches at each false positive rate, with limits that also know how uncertain the threshold is. Pure numpy and scipy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats as distributions

from . import stats
from .records import Direction, Score

Values = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Roc:
    """A ROC curve with a pointwise 95 % band, ready to be drawn; all arrays are (points,) and ascend with `fpr`."""

    fpr: Values
    tpr: Values
    low: Values
    high: Values
    """Limits of the true positive rate at this false positive rate. Each holds by itself, not all of them at once."""


def roc(members: Values, strangers: Values, points: int = 201) -> Roc:
    """The ROC curve of suspicions on an even grid of false positive rates from 0 to 1.

    The rate of a point is that of the population, which the strangers only estimate: the band joins an interval for the threshold, from order
    statistics, to a Clopper-Pearson limit of the members beyond it, sharing the error. It assumes no shape and is wider than need be.

    Args:
        members: (m,) suspicions, higher = more likely a member; minus infinity is allowed.
        strangers: (n,) likewise.
        points: of the grid, at least 2.

    Raises:
        UnmeasurableError: one side is empty.
        ValueError: a suspicion is not a number.
    """
    _require_ordered(members, strangers)
    fpr = np.linspace(0.0, 1.0, points)
    low, high = _band(members, strangers, fpr, 0.95)
    return Roc(fpr=fpr, tpr=_rates(members, strangers, fpr), low=low, high=high)


def detection_rate(members: Values, strangers: Values, fpr: float, level: float = 0.95) -> Score:
    """The share of members found when at most `fpr` of strangers are called members, with its interval.

    Where there are too few strangers to know such a threshold (fewer than 437 for 1 % at 95 %) the lower limit is 0, whatever was found.

    Raises:
        UnmeasurableError: one side is empty.
        ValueError: a suspicion is not a number, or the rate does not lie between 0 and 1.
    """
    _require_ordered(members, strangers)
    if not 0.0 < fpr < 1.0:
        raise ValueError(f"detection_rate: expected a false positive rate between 0 and 1, found {fpr}")
    at = np.array([fpr])
    value, (low, high) = float(_rates(members, strangers, at)[0]), (float(limit[0]) for limit in _band(members, strangers, at, level))
    n = len(members) + len(strangers)
    return Score(value=value, low=low, high=high, n=n, direction=Direction.LOWER, interval="order-statistics")


def _require_ordered(members: Values, strangers: Values) -> None:
    stats.require_both(members, strangers)
    if np.isnan(members).any() or np.isnan(strangers).any():
        raise ValueError("roc: expected suspicions that can be ordered, found some that are not numbers")


def _rates(members: Values, strangers: Values, fpr: Values) -> Values:
    """(points,) share of members above the lowest threshold that lets no more than `fpr` of the strangers through."""
    let_through = np.floor(fpr * len(strangers) + 1e-9).astype(np.int64)
    return _above(members, strangers, let_through) / len(members)


def _above(members: Values, strangers: Values, let_through: NDArray[np.int64], ties: bool = False) -> NDArray[np.int64]:
    """How many members are more suspicious (or `ties`: at least as suspicious) than the stranger with so many above; all where there is none."""
    descending = np.append(np.sort(strangers)[::-1], -np.inf)
    thresholds = descending[np.minimum(let_through, len(strangers))]
    counts = len(members) - np.searchsorted(np.sort(members), thresholds, side="left" if ties else "right")
    return np.where(let_through >= len(strangers), len(members), counts)


def _band(members: Values, strangers: Values, fpr: Values, level: float) -> tuple[Values, Values]:
    """(points,) lower and upper limits of the true positive rate; a quarter of the error goes to each end of the threshold and of the members."""
    m, tail = len(members), (1 - level) / 4
    fewest, most = (distributions.binom.ppf(q, len(strangers), fpr).astype(np.int64) for q in (tail, 1 - tail))
    sure = np.where(fewest > 0, _above(members, strangers, np.maximum(fewest - 1, 0)), 0)
    possible = _above(members, strangers, most, ties=True)
    low = np.where(sure > 0, distributions.beta.ppf(tail, np.maximum(sure, 1), m - sure + 1), 0.0)
    high = np.where(possible < m, distributions.beta.ppf(1 - tail, possible + 1, np.maximum(m - possible, 1)), 1.0)
    return low, high
