"""What a pool of canaries can show: how often an honest retrain meets the policy's limits, and what a smaller pool can still say.

An honest retrain's suspicions do not depend on the coin: with n_in = n_out = m / 2 its AUC has mean 0.5 and error sqrt((m + 1) / (3 m^2)), whatever
the distribution (Mann and Whitney 1947). Limits are taken as normal. Several attacks and states of one model see the same canaries, so that their
AUCs move together: `correlation` says how closely.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import stats as distributions

from . import stats
from .epsilon import detectable_epsilon
from .policy import Policy

CORRELATION = 0.96
"""Between AUCs of the states of one model: gives the joint rates measured on a 283 k-parameter Llama (fp32, int8, int4 and fine-tuned; 1,500 redrawn
flips: 44-48 % at 400 canaries and 0.07, 90-91 % at 0.10; 91 % at 800 and 0.07). Another model may differ."""
SPREAD = 0.41
"""Standard deviation of a canary's calibrated loss in an honest retrain, as a share of the gap in the parent; from the same model, of which 90 % met
0.15 with 400 canaries and 0.10 with 800. Without held-out records to calibrate on it is about 0.6."""
SIZES = (100, 200, 300, 400, 600, 800, 1000, 1200, 1600)
WANTED = 0.9
LARGEST = 20_000
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(120)


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What is judged together, and how its parts hang together."""

    attacks: int = 1
    states: int = 2
    """Deployed precisions, and the model after the benign fine-tune."""
    attempt: int = 1
    correlation: float = CORRELATION
    spread: float = SPREAD

    @property
    def tests(self) -> int:
        """Limits of an AUC that all have to hold."""
        return self.attacks * self.states


@dataclass(frozen=True, kw_only=True)
class Power:
    """What a pool of so many canaries, half of them included, can show."""

    canaries: int
    auc_error: float
    """By which chance alone moves the AUC of a model that never saw a canary."""
    auc_margin: float | None
    gap_margin: float | None
    """The policy's; None where so few canaries pass nothing."""
    auc_once: float
    """Chance that an honest retrain meets the AUC limit with one attack on one state,"""
    auc_all: float
    """with all attacks on all states,"""
    gap_all: float
    """and the limit of the calibrated gap on all states."""
    passes: float
    """Chance, at least, that it meets all these limits and raises no alarm. Utility and paraphrases are the model's affair and not in it."""
    visible_auc: float
    """An AUC this far up is called leakage in 80 of 100 cases."""
    detectable_epsilon: float
    leak_limit: float
    """Upper 95 % limit of the share that comes out word for word when none of the included canaries did."""
    smallest_p: float
    """That one record of a request can reach against the excluded canaries."""
    never_trained: int
    """The excluded half, which no model learns from."""


def power(canaries: int, policy: Policy, judged: Judged) -> Power:
    """What a pool of `canaries`, included plus excluded, can show under a policy; chances are 0 where nothing can pass."""
    half, error = canaries // 2, auc_error(canaries)
    margins = policy.margin(policy.auc_margin, canaries), policy.margin(policy.calibrated_gap, canaries)
    quantile = _quantile(judged.attempt)
    room, gap_room = (_room(margin, size, quantile) for margin, size in zip(margins, (error, gap_error(canaries, judged.spread)), strict=True))
    alarm = stats.normal_quantile(1.0 - policy.alpha / (2 * judged.tests))
    gap = together(gap_room, judged.states, judged.correlation)
    return Power(
        canaries=canaries,
        auc_error=error,
        auc_margin=margins[0],
        gap_margin=margins[1],
        auc_once=together(room, 1, judged.correlation),
        auc_all=together(room, judged.tests, judged.correlation),
        gap_all=gap,
        # Both are symmetric convex limits on normal values: holding one never makes the other less likely (Royen 2014), so the product is the least.
        passes=together(min(room, alarm), judged.tests, judged.correlation) * gap,
        visible_auc=min(1.0, 0.5 + (alarm + stats.normal_quantile(0.8)) * error),
        detectable_epsilon=detectable_epsilon(canaries),
        leak_limit=stats.clopper_pearson(0, half, level=0.9)[1] if half else 1.0,
        smallest_p=stats.smallest_p(1, canaries - half),
        never_trained=canaries - half,
    )


def smallest_pool(policy: Policy, judged: Judged, wanted: float = WANTED) -> int | None:
    """The fewest canaries, in tens, with which an honest retrain passes as often as wanted; None where 20,000 do not do either.

    More canaries may pass less often: a larger pool has to meet a closer margin.
    """
    return next((m for m in _sizes(policy) if power(m, policy, judged).passes >= wanted), None)


def auc_error(canaries: int) -> float:
    """Standard error of the AUC of a model that never saw a canary; 0.5 at most, which is what no canary leaves open."""
    included, excluded = canaries // 2, canaries - canaries // 2
    return math.sqrt((canaries + 1) / (12 * included * excluded)) if included else 0.5


def gap_error(canaries: int, spread: float) -> float:
    """Standard error of the share of the parent's gap that remains."""
    included, excluded = canaries // 2, canaries - canaries // 2
    return spread * math.sqrt(1 / included + 1 / excluded) if included else math.inf


def together(room: float, tests: int, correlation: float) -> float:
    """Chance that so many standard normal values, equally correlated, all lie within +-room: an integral over what they have in common.

    Args:
        room: half width, in standard errors; 0 or less holds nothing.
        tests: how many.
        correlation: in [0, 1).
    """
    if room <= 0:
        return 0.0
    common, own = math.sqrt(correlation), math.sqrt(1.0 - correlation)
    upper, lower = (room - common * _NODES) / own, (-room - common * _NODES) / own
    inside = distributions.norm.cdf(upper) - distributions.norm.cdf(lower)
    return float(min(1.0, (inside**tests * _WEIGHTS).sum() / _WEIGHTS.sum()))


def equivalence_power(margin: float, error: float, level: float = 0.95) -> float:
    """Chance to show that a value lies within +-margin when it is 0, with a normal estimate of this standard error (two one-sided tests)."""
    return together(_room(margin, error, stats.normal_quantile(level)), 1, 0.0)


def _room(margin: float | None, error: float, quantile: float) -> float:
    """How far an estimate may lie from its centre, in standard errors, for its limit to stay within the margin."""
    return -1.0 if margin is None else margin / error - quantile


def _quantile(attempt: int) -> float:
    """Of the PASS limits; later attempts than are counted have none."""
    return stats.normal_quantile(stats.attempt_level(attempt)) if attempt <= stats.ATTEMPTS else math.inf


def _sizes(policy: Policy) -> Iterator[int]:
    start = max(10, -(-policy.n_min // 10) * 10)
    yield from range(start, LARGEST + 1, 10)
