"""Lower bounds on epsilon from one training run: by guesses about canaries, and by the error rates of a threshold.

An epsilon of 0 says that nothing was found, never that epsilon is 0; what could have been found at all is `detectable_epsilon`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats as distributions

from .errors import UnmeasurableError

Values = NDArray[np.float64]

_STEPS = 60
_MOST = 50.0
GUESS_SHARE = 0.2
"""Guesses a canary, fixed in advance: the tenth most suspicious are called included, the tenth least suspicious excluded."""


def one_run_epsilon(m: int, r: int, v: int, delta: float, alpha: float) -> float:
    """Largest epsilon that `v` right guesses out of `r`, among `m` coin-flipped canaries, refute at level `alpha`; 0 when they refute none.

    With q = 1 / (1 + e^-epsilon), p = P[Bin(r, q) >= v] + 2 m delta max_i P[v > Bin(r, q) >= v - i] / i; p grows with epsilon.
    The guesses must have been fixed without looking at who was right.

    Paper: Steinke, Nasr and Jagielski 2023 (arXiv:2305.08846), Theorem 5.2.
    """
    low, high = 0.0, _MOST
    if _p_value(0.0, m, r, v, delta) >= alpha:
        return 0.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if _p_value(middle, m, r, v, delta) < alpha else (low, middle)
    return low


def right_guesses(included: Values, excluded: Values, seed: int = 0) -> int:
    """How many of `guesses` are right when the most suspicious canaries are called included and the least suspicious excluded.

    Equal suspicions are ordered by a seeded draw: any order that knew who was included would be a perfect attack made of nothing.
    """
    m = len(included) + len(excluded)
    half = guesses(m) // 2
    member = np.concatenate([np.ones(len(included), bool), np.zeros(len(excluded), bool)])
    order = np.lexsort((np.random.default_rng(seed).permutation(m), np.concatenate([included, excluded])))
    return int(member[order[m - half :]].sum() + (~member[order[:half]]).sum())


def guessed_epsilon(m: int, right: int, alpha: float = 0.05) -> float:
    """Lower bound on epsilon from the right ones of `guesses(m)` guesses about `m` canaries, in either direction at alpha / 2, delta 0."""
    r = guesses(m)
    return max(one_run_epsilon(m, r, v, 0.0, alpha / 2) for v in (right, r - right))


def detectable_epsilon(m: int, alpha: float = 0.05) -> float:
    """The largest epsilon that `m` canaries could show: every guess right."""
    r = guesses(m)
    if r == 0:
        return 0.0
    q = (alpha / 2) ** (1.0 / r)
    return max(0.0, math.log(q / (1.0 - q)))


@dataclass(frozen=True, kw_only=True)
class Errors:
    """How often a rule that tells members from strangers was wrong, on records that had no part in choosing it."""

    missed: int
    members: int
    """Members called strangers, of so many."""
    accused: int
    strangers: int
    """Strangers called members, of so many."""


def threshold_epsilon(errors: Errors, delta: float = 0.0, alpha: float = 0.05) -> float:
    """Lower bound on epsilon at confidence 1 - alpha from both error rates of one fixed rule; 0 where they refute none.

    max of log((1 - delta - FNR) / FPR) and log((1 - delta - FPR) / FNR) at the upper Clopper-Pearson limits, each at alpha / 2. For many members it
    stays below the bound by guesses, which fixes in advance how many are guessed about.

    Source: the hypothesis-testing form of (epsilon, delta) of Kairouz, Oh and Viswanath 2015 (arXiv:1311.0776), section 2.
    """
    missed, accused = (
        float(_upper(np.array(wrong), n, alpha / 2)) for wrong, n in ((errors.missed, errors.members), (errors.accused, errors.strangers))
    )
    return float(_bound(np.array(missed), np.array(accused), delta))


def split_epsilon(members: Values, strangers: Values, delta: float = 0.0, alpha: float = 0.05, seed: int = 0) -> float:
    """Lower bound on epsilon: side and threshold are chosen on one half of the records, the errors counted on the other.

    Choosing and counting on the same records would find an epsilon in noise. Either sign of the suspicion may be chosen.

    Args:
        members: (m,) suspicions, higher = more likely a member.
        strangers: (n,) likewise.
        delta: of the guarantee.
        alpha: 1 - confidence.
        seed: of the halving.

    Raises:
        UnmeasurableError: fewer than two records on a side.
    """
    if min(len(members), len(strangers)) < 2:
        raise UnmeasurableError(f"epsilon: found {len(members)} members and {len(strangers)} strangers, expected at least two of each to halve")
    generator = np.random.default_rng(seed)
    chosen, rest = zip(*(_halves(side, generator) for side in (members, strangers)), strict=True)
    sign, threshold = _rule(chosen[0], chosen[1], delta, alpha)
    missed, accused = int((sign * rest[0] < threshold).sum()), int((sign * rest[1] >= threshold).sum())
    return threshold_epsilon(Errors(missed=missed, members=len(rest[0]), accused=accused, strangers=len(rest[1])), delta, alpha)


def _halves(values: Values, generator: np.random.Generator) -> tuple[Values, Values]:
    shuffled = generator.permutation(values)
    return shuffled[: len(values) // 2], shuffled[len(values) // 2 :]


def _rule(members: Values, strangers: Values, delta: float, alpha: float) -> tuple[float, float]:
    """Sign and threshold (signed suspicion at least that: a member) with the largest bound on these records."""
    best = (-1.0, 1.0, 0.0)
    for sign in (1.0, -1.0):
        thresholds = _between(np.unique(sign * np.concatenate([members, strangers])))
        missed = np.searchsorted(np.sort(sign * members), thresholds)
        accused = len(strangers) - np.searchsorted(np.sort(sign * strangers), thresholds)
        bounds = _bound(_upper(missed, len(members), alpha / 2), _upper(accused, len(strangers), alpha / 2), delta)
        index = int(bounds.argmax())
        best = max(best, (float(bounds[index]), sign, float(thresholds[index])))
    return best[1:]


def _between(ascending: Values) -> Values:
    """Thresholds half way below each value, so that the other half's records do not fall just short; below minus infinity there is nothing."""
    below = np.concatenate([ascending[:1], ascending[:-1]])
    middle: Values = np.where(np.isfinite(below), (np.where(np.isfinite(below), below, ascending) + ascending) / 2, ascending)
    return middle


def _upper(wrong: NDArray[np.int64], n: int, tail: float) -> Values:
    """One-sided Clopper-Pearson limits of error rates."""
    limits: Values = np.where(wrong < n, distributions.beta.ppf(1 - tail, wrong + 1, np.maximum(n - wrong, 1)), 1.0)
    return limits


def _bound(missed: Values, accused: Values, delta: float) -> Values:
    """Epsilon below which error rates this small cannot both be; 0 at least."""
    seen = np.maximum(1 - delta - np.stack([missed, accused]), 0.0) / np.stack([accused, missed])
    bounds: Values = np.log(np.maximum(seen, 1.0)).max(axis=0)
    return bounds


def guesses(m: int) -> int:
    """How many canaries are guessed about, half of them from either end; the rest are abstained from."""
    return 2 * (int(m * GUESS_SHARE) // 2)


def _p_value(epsilon: float, m: int, r: int, v: int, delta: float) -> float:
    q = 1.0 / (1.0 + math.exp(-epsilon))
    p = float(distributions.binom.sf(v - 1, r, q))
    if delta == 0.0 or v == 0:
        return p
    i = np.arange(1, v + 1)
    between = distributions.binom.cdf(v - 1, r, q) - distributions.binom.cdf(v - i - 1, r, q)
    return p + 2.0 * m * delta * float((between / i).max())
