"""How much of what the parent had memorised is left: the calibrated gap between never-seen and forgotten canaries, as a share of the parent's.

The gap is the mean loss of excluded canaries minus that of included ones: nothing is left where it is zero. How hard a record is explains much of
its loss and blurs the gap, so a fit on people who were never trained on takes that out first: the record's loss is predicted from its loss with the
name of a stranger in place of its owner's, and from what kind of question it is (Watson et al. 2022, arXiv:2111.08440, calibrate by difficulty; the
regression is ours). Since a coin decided who was included, errors of the fit hit both sides alike.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats as distributions

from . import stats
from .records import Direction, Gap, Score

Values = NDArray[np.float64]

KIND_RECORDS = 10
"""A kind of question with fewer held-out records has no mean of its own."""
RIDGE = 1e-6


@dataclass(frozen=True, kw_only=True)
class Losses:
    """A set of records as one model sees it."""

    own: Values
    """(records,) mean answer-token loss, nats."""
    swapped: Values
    """(records,) the same with the name of a stranger; NaN where the data cannot say."""
    kinds: Sequence[str | None]
    """(records,) what kind of question it is."""


@dataclass(frozen=True, kw_only=True)
class Sides:
    """One model's losses on the canaries and on people never trained on."""

    included: Losses
    excluded: Losses
    holdout: Losses


def remaining(parent: Sides, model: Sides) -> Gap | None:
    """The share of the parent's gap that the model still shows; None where the parent shows none that could be divided by.

    Its standard error is that of the ratio of two differences measured on the same canaries (linearised), so that limits at any level follow.
    """
    before, after = _calibrated(parent), _calibrated(model)
    error_before = _error(before.included, before.excluded)
    if before.gap <= distributions.norm.ppf(0.975) * error_before:
        return None
    share = after.gap / before.gap
    error = max(_error(after.included - share * before.included, after.excluded - share * before.excluded) / before.gap, _LEAST)
    levels = map(stats.attempt_level, range(1, stats.ATTEMPTS + 1))
    n = len(before.included) + len(before.excluded)
    return Gap(
        parent=_score(before.gap, error_before, n),
        share=_score(share, error, n),
        share_upper={stats.level_key(level): abs(share) + stats.normal_quantile(level) * error for level in levels},
        explained=after.explained,
        holdout=len(model.holdout.own),
        included=_pairs(before.included, after.included),
        excluded=_pairs(before.excluded, after.excluded),
    )


def _pairs(before: Values, after: Values) -> tuple[tuple[float, float], ...]:
    return tuple(sorted(zip(before.tolist(), after.tolist(), strict=True)))


_LEAST = 1e-6
"""No share is known more exactly than this."""


@dataclass(frozen=True, kw_only=True)
class _Residuals:
    included: Values
    excluded: Values
    explained: float

    @property
    def gap(self) -> float:
        return float(self.excluded.mean() - self.included.mean())


def _calibrated(sides: Sides) -> _Residuals:
    """Losses less what the fit on held-out people expects of them."""
    kinds = tuple(sorted(kind for kind, count in Counter(filter(None, sides.holdout.kinds)).items() if count >= KIND_RECORDS))
    use_swapped = len(sides.holdout.own) > 0 and _tells_nothing(sides)
    if len(sides.holdout.own) <= 2 * (2 + len(kinds)):
        return _Residuals(included=stats.rounded(sides.included.own), excluded=stats.rounded(sides.excluded.own), explained=0.0)
    design = _design(sides.holdout, kinds, use_swapped)
    weights = np.linalg.solve(design.T @ design + RIDGE * np.eye(design.shape[1]), design.T @ sides.holdout.own)
    rest = sides.holdout.own - design @ weights
    spread = float(sides.holdout.own.var())
    return _Residuals(
        included=stats.rounded(sides.included.own - _design(sides.included, kinds, use_swapped) @ weights),
        excluded=stats.rounded(sides.excluded.own - _design(sides.excluded, kinds, use_swapped) @ weights),
        explained=1.0 - float(rest.var()) / spread if spread > 0 else 0.0,
    )


def _tells_nothing(sides: Sides) -> bool:
    """Whether the swapped losses are all there and do not themselves tell included from excluded: what they knew would be taken out of the gap."""
    if not all(np.isfinite(each.swapped).all() for each in (sides.included, sides.excluded, sides.holdout)):
        return False
    apart = float(sides.excluded.swapped.mean() - sides.included.swapped.mean())
    return abs(apart) <= stats.normal_quantile(0.995) * _error(sides.included.swapped, sides.excluded.swapped)


def _design(losses: Losses, kinds: Sequence[str], use_swapped: bool) -> Values:
    """(records, columns): one, the swapped loss, and one column a kind."""
    columns = [np.ones(len(losses.own))]
    columns += [losses.swapped] if use_swapped else []
    columns += [np.array([own == kind for own in losses.kinds], dtype=np.float64) for kind in kinds]
    return np.stack(columns, axis=1)


def _error(included: Values, excluded: Values) -> float:
    """Standard error of the difference of two means."""
    return math.sqrt(sum(float(side.var(ddof=1)) / len(side) for side in (included, excluded)))


def _score(value: float, error: float, n: int) -> Score:
    reach = stats.normal_quantile(0.975) * error
    return Score(value=value, low=value - reach, high=value + reach, n=n, direction=Direction.NEAR_CENTRE, interval="delta-method")
