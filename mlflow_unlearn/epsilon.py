"""Lower bounds on epsilon from one training run (Steinke, Nasr and Jagielski 2023, arXiv:2305.08846)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import stats as distributions

_STEPS = 60
_MOST = 50.0
GUESS_SHARE = 0.2
"""Guesses a canary, fixed in advance: the tenth most suspicious are called included, the tenth least suspicious excluded."""


def one_run_epsilon(m: int, r: int, v: int, delta: float, alpha: float) -> float:
    """Largest epsilon that `v` right guesses out of `r`, among `m` coin-flipped canaries, refute at level `alpha`; 0 when they refute none.

    With q = 1 / (1 + e^-epsilon), p = P[Bin(r, q) >= v] + 2 m delta max_i P[v > Bin(r, q) >= v - i] / i; p grows with epsilon.
    """
    low, high = 0.0, _MOST
    if _p_value(0.0, m, r, v, delta) >= alpha:
        return 0.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if _p_value(middle, m, r, v, delta) < alpha else (low, middle)
    return low


def canary_epsilon(included: NDArray[np.float64], excluded: NDArray[np.float64], alpha: float = 0.05, seed: int = 0) -> float:
    """Lower bound on epsilon from suspicion of included and excluded canaries, in either direction at alpha / 2, delta 0.

    Equal suspicions are ordered by a seeded draw: any order that knew who was included would be a perfect attack made of nothing.
    """
    m = len(included) + len(excluded)
    half = guesses(m) // 2
    if half == 0:
        return 0.0
    member = np.concatenate([np.ones(len(included), bool), np.zeros(len(excluded), bool)])
    order = np.lexsort((np.random.default_rng(seed).permutation(m), np.concatenate([included, excluded])))
    right = int(member[order[-half:]].sum() + (~member[order[:half]]).sum())
    return max(one_run_epsilon(m, 2 * half, v, 0.0, alpha / 2) for v in (right, 2 * half - right))


def detectable_epsilon(m: int, alpha: float = 0.05) -> float:
    """The largest epsilon that `m` canaries could show: every guess right."""
    r = 2 * (guesses(m) // 2)
    if r == 0:
        return 0.0
    q = (alpha / 2) ** (1.0 / r)
    return max(0.0, math.log(q / (1.0 - q)))


def guesses(m: int) -> int:
    """How many canaries are guessed about; the rest are abstained from."""
    return int(m * GUESS_SHARE)


def _p_value(epsilon: float, m: int, r: int, v: int, delta: float) -> float:
    q = 1.0 / (1.0 + math.exp(-epsilon))
    p = float(distributions.binom.sf(v - 1, r, q))
    if delta == 0.0 or v == 0:
        return p
    i = np.arange(1, v + 1)
    between = distributions.binom.cdf(v - 1, r, q) - distributions.binom.cdf(v - i - 1, r, q)
    return p + 2.0 * m * delta * float((between / i).max())
