"""Equivalence and non-inferiority with three outcomes: shown to be within a margin, shown to be beyond it, or not decided by these records.

Two one-sided tests (Schuirmann 1987): within is what both limits at confidence `level` say, so that it is claimed wrongly at most 1 - level of the
times. A difference that is merely not significant passes nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats as distributions

from . import stats
from .records import Outcome

Values = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A difference held against a margin."""

    outcome: Outcome
    """PASS: shown to be within the margin; FAIL: shown to be beyond it; INCONCLUSIVE: neither."""
    value: float
    low: float
    high: float
    """One-sided limits at confidence `level` on either side."""
    margin: float
    level: float
    n: int

    def words(self) -> str:
        """The outcome as a sentence that claims no more than was shown."""
        reach = f"{self.value:+.4f}, between {self.low:+.4f} and {self.high:+.4f} at {self.level:.4g} on either side (n {self.n})"
        said = {
            Outcome.PASS: f"shown to be within the margin of {self.margin:g}",
            Outcome.FAIL: f"shown to be beyond the margin of {self.margin:g}",
            Outcome.INCONCLUSIVE: f"these records cannot decide about a margin of {self.margin:g}; more of them could",
        }
        return f"{reach}: {said[self.outcome]}"


def mean_within(values: Values, margin: float, level: float = 0.95) -> Comparison:
    """Whether a mean, e.g. of differences, lies within +-margin of 0, by Student's t; exact for normal values, approximate for other ones.

    Args:
        values: (n,) finite values, at least two.
        margin: above 0, in the values' unit.
        level: confidence of each one-sided limit.

    Raises:
        ValueError: fewer than two values, one that is not finite, or a margin that is not above 0.
    """
    if len(values) < 2 or not np.isfinite(values).all():
        raise ValueError("equivalence: expected at least two values, all finite")
    reach = float(distributions.t.ppf(level, len(values) - 1)) * _error(values)
    return _compared(float(values.mean()), (reach, reach), margin, level, len(values))


def paired_within(after: Values, before: Values, margin: float, level: float = 0.95) -> Comparison:
    """Whether a mean change, record by record, lies within +-margin; see `mean_within`.

    Raises:
        ValueError: the two do not pair, and as `mean_within`.
    """
    return mean_within(_differences(after, before), margin, level)


def not_worse(after: Values, before: Values, margin: float, level: float = 0.95) -> Comparison:
    """Non-inferiority of paired values of which higher is better: whether the mean change is shown to lie above -margin, however far above.

    Raises:
        ValueError: as `paired_within`.
    """
    found = paired_within(after, before, margin, level)
    outcome = Outcome.PASS if found.low > -margin else Outcome.FAIL if found.high < -margin else Outcome.INCONCLUSIVE
    return Comparison(outcome=outcome, value=found.value, low=found.low, high=found.high, margin=margin, level=level, n=found.n)


def proportions_within(hits: tuple[int, int], n: tuple[int, int], margin: float, level: float = 0.95) -> Comparison:
    """Whether two independent proportions differ by at most +-margin, by square-and-add limits (Newcombe 1998, method 10) over exact ones.

    A wrong PASS at the margin has at most 4.5 % at 10 to 400 a side, where 5 % is asked for, and 5.3 % with 20 against 300. Score tests at the margin
    decide a little more often, and reach 6.9 %.

    Args:
        hits: of either side.
        n: of either side, at least one each.
        margin: between 0 and 1.
        level: confidence of each one-sided limit.

    Raises:
        ValueError: no records on a side, more hits than records, or a margin that is not above 0.
    """
    if min(n) < 1 or any(not 0 <= hit <= size for hit, size in zip(hits, n, strict=True)):
        raise ValueError(f"equivalence: expected hits between 0 and the records of each side, found {hits} of {n}")
    sides = (stats.clopper_pearson(hit, size, 2 * level - 1) for hit, size in zip(hits, n, strict=True))
    (low, high), (other_low, other_high) = sides
    one, other = hits[0] / n[0], hits[1] / n[1]
    reach = math.hypot(one - low, other_high - other), math.hypot(high - one, other - other_low)
    return _compared(one - other, reach, margin, level, sum(n))


def area_within(members: Values, strangers: Values, margin: float, level: float = 0.95) -> Comparison:
    """Whether an AUC lies within 0.5 +-margin, by DeLong's error; values are those of AUC - 0.5.

    Raises:
        UnmeasurableError: one side is empty.
        ValueError: a suspicion is not a number, or a margin that is not above 0.
    """
    found = stats.area(members, strangers)
    reach = stats.normal_quantile(level) * found.error
    return _compared(found.value - 0.5, (reach, reach), margin, level, len(members) + len(strangers))


def _compared(value: float, reach: tuple[float, float], margin: float, level: float, n: int) -> Comparison:
    if not margin > 0:
        raise ValueError(f"equivalence: expected a margin above 0, found {margin}")
    low, high = value - reach[0], value + reach[1]
    beyond = low > margin or high < -margin
    outcome = Outcome.FAIL if beyond else Outcome.PASS if -margin < low and high < margin else Outcome.INCONCLUSIVE
    return Comparison(outcome=outcome, value=value, low=low, high=high, margin=margin, level=level, n=n)


def _differences(after: Values, before: Values) -> Values:
    if len(after) != len(before):
        raise ValueError(f"equivalence: expected as many records after as before, found {len(after)} and {len(before)}")
    return after - before


def _error(values: Values) -> float:
    """Standard error of a mean. Alike values leave open what half a record in n would change it by, in units of the largest value or 1."""
    spread = float(values.std(ddof=1)) / math.sqrt(len(values))
    return max(spread, 0.5 * max(1.0, float(np.abs(values).max())) / len(values)) if np.ptp(values) == 0.0 else spread
