"""Statistics in plain Python, from ranks, counts and values: areas, rank sums, guesses, exact tests and intervals. Sources stand beside formulas."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from .documents import UndecidedError

ATTEMPTS = 10
"""For so many attempts at one pool of canaries there are limits."""
MOST = 100_000
"""The most canaries or matches that are counted."""
Groups = Sequence[tuple[int, int]]
"""Included and excluded canaries, equally suspicious ones together, from least to most suspicious."""
_NORMAL = NormalDist()
normal_quantile = _NORMAL.inv_cdf


def groups_of(order: str) -> Groups:
    """`ee(ie)i` as ((0, 1), (0, 1), (1, 1), (1, 0))."""
    if not re.fullmatch(r"(?:[ie]|\([ie]+\))+", order) or len(order) > 3 * MOST:
        raise UndecidedError("canaries: the order of their suspicions is not there, so that nothing can be counted again")
    return [(found.count("i"), found.count("e")) for found in re.findall(r"[ie]|\([ie]+\)", order)]


def sizes(groups: Groups) -> tuple[int, int]:
    """How many included and excluded canaries there are."""
    return sum(included for included, _ in groups), sum(excluded for _, excluded in groups)


def attempt_level(attempt: int) -> float:
    """Confidence of the limits of an attempt, counted from 1: trying again does not help."""
    return 1 - math.ldexp(0.05, 1 - attempt)


@dataclass(frozen=True)
class Area:
    """Chance that an included canary looks more suspicious than an excluded one, and its standard error."""

    value: float
    error: float

    def limit(self, level: float) -> float:
        """Upper limit of |AUC - 0.5| at this confidence on either side (two one-sided tests)."""
        return abs(self.value - 0.5) + normal_quantile(level) * self.error


def area(groups: Groups) -> Area:
    """AUC with ties counted half; the error of DeLong, DeLong and Clarke-Pearson 1988, at least that of half a record."""
    m, n = sizes(groups)
    if not m or not n:
        raise UndecidedError("canaries: one side is empty")
    below = inner = outer = inner2 = outer2 = 0.0
    passed = 0
    for included, excluded in groups:
        of_included, of_excluded = (below + excluded / 2) / n, (m - passed - included / 2) / m
        inner, inner2 = inner + included * of_included, inner2 + included * of_included**2
        outer, outer2 = outer + excluded * of_excluded, outer2 + excluded * of_excluded**2
        below, passed = below + excluded, passed + included
    spread = [(second - first**2 / size) / (size - 1) / size if size > 1 else 0.0 for first, second, size in ((inner, inner2, m), (outer, outer2, n))]
    return Area(inner / m, max(math.sqrt(max(0.0, sum(spread))), 0.5 / min(m, n)))


_FEW = 1000


def rank_sum_p(groups: Groups) -> tuple[float, float]:
    """P that coins deal ranks at least, and at most, as high to the included: exact for fewer than ten among few, else the normal limit with ties."""
    m, n = sizes(groups)
    seen, observed, tied, doubled = 0, 0, 0, []
    for included, excluded in groups:
        size = included + excluded
        rank = 2 * seen + size + 1  # twice the middle rank
        doubled += [rank] * size
        observed, tied, seen = observed + included * rank, tied + size**3 - size, seen + size
    if min(m, n) >= 10 or m + n > _FEW:
        variance = m * n / 12 * (m + n + 1 - tied / ((m + n) * (m + n - 1)))
        apart, half = observed / 2 - m * (m + n + 1) / 2, 0.5 if tied == 0 else 0.25
        deviation = math.sqrt(variance) or 1.0
        return _NORMAL.cdf(-(apart - half) / deviation), _NORMAL.cdf((apart + half) / deviation)
    few, sought = (m, observed) if m <= n else (n, sum(doubled) - observed)
    width = math.comb(m + n, few).bit_length() + 1  # counts of every sum side by side in one whole number
    ways = [1] + [0] * few
    for rank in doubled:
        for taken in range(few, 0, -1):
            ways[taken] += ways[taken - 1] << rank * width
    total, at = math.comb(m + n, few), ways[few]
    at_most = _digit_sum(at & ((1 << (sought + 1) * width) - 1), width) / total
    at_least = _digit_sum(at >> sought * width, width) / total
    return (at_least, at_most) if m <= n else (at_most, at_least)


def drawn_p_may_be(stated: float, p: float, drawn: int) -> bool:
    """Whether (1 + exceedances) / (1 + drawn) can be that, where each permutation exceeds with probability p, by any chance above one in a million.

    A quarter of p is left to the normal limit of the rank sum.
    """
    exceeding = round(stated * (1 + drawn)) - 1
    if exceeding > drawn * p:
        return binomial_tail(drawn, exceeding, min(1.25 * p, 1.0)) > _HARDLY
    return binomial_tail(drawn, drawn - exceeding, min(1 - 0.75 * p, 1.0)) > _HARDLY


_HARDLY = 1e-6


def binomial_tail(n: int, k: int, share: float) -> float:
    """P[Bin(n, share) >= k], summed until nothing is added."""
    if k <= 0 or share >= 1.0:
        return float(k <= n)
    if share <= 0.0:
        return 0.0
    total, low, high = 0.0, math.log(share), math.log1p(-share)
    for each in range(k, n + 1):
        term = math.exp(log_comb(n, each) + each * low + (n - each) * high)
        total += term
        if term < 1e-18 and each > n * share:
            break
    return total


def _digit_sum(number: int, width: int) -> int:
    """The sum of the digits in base 2^width: each digit is worth 1 modulo 2^width - 1."""
    return number % ((1 << width) - 1)


def one_run_epsilon(m: int, r: int, right: int, delta: float = 0.0, alpha: float = 0.05) -> float:
    """Largest epsilon that so many right guesses of r, about m canaries, refute (Steinke, Nasr and Jagielski 2023, arXiv:2305.08846, Theorem 5.2)."""

    def p(epsilon: float) -> float:
        q = 1 / (1 + math.exp(-epsilon))
        each = [math.exp(log_comb(r, k) + k * math.log(q) - (r - k) * (epsilon + math.log1p(math.exp(-epsilon)))) for k in range(r + 1)]
        below, worst = 0.0, 0.0
        for i in range(1, right + 1 if delta else 1):
            below += each[right - i]
            worst = max(worst, below / i)
        return math.fsum(each[right:]) + 2 * m * delta * worst

    low, high = 0.0, 50.0
    if r == 0 or p(0.0) >= alpha:
        return 0.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if p(middle) < alpha else (low, middle)
    return low


def both_ways_epsilon(m: int, r: int, right: int) -> float:
    """The larger of two bounds: for so many right guesses, and for as many wrong ones, each at half of .05."""
    return max(one_run_epsilon(m, r, v, alpha=0.025) for v in (right, r - right))


def log_comb(n: int, k: int) -> float:
    """Logarithm of n choose k."""
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def right_guesses(groups: Groups) -> tuple[int, int, int]:
    """(guesses, fewest, most) right ones: the tenth most suspicious are called included, the tenth least suspicious excluded. Ties leave a range."""
    half = int(sum(map(sum, groups)) * 0.2) // 2
    fewest = most = 0
    for ordered, side in ((reversed(groups), 0), (groups, 1)):
        left = half
        for group in ordered:
            size = sum(group)
            fewest, most = fewest + max(0, min(left, size) - group[1 - side]), most + min(left, group[side])
            left -= min(left, size)
    return 2 * half, fewest, most


def fisher_p(hits: int, included: int, others: int, excluded: int) -> float:
    """Fisher's exact one-sided p that included records match more often."""
    total, matched = included + excluded, hits + others
    ways = range(max(hits, matched - excluded), min(included, matched) + 1)
    return min(1.0, math.fsum(math.exp(log_comb(included, k) + log_comb(excluded, matched - k) - log_comb(total, matched)) for k in ways))


def holm(p: Mapping[Any, float]) -> dict[Any, float]:
    """Adjusted p-values (Holm 1979)."""
    adjusted, running = {}, 0.0
    for rank, name in enumerate(sorted(p, key=lambda each: p[each])):
        running = max(running, min(1.0, (len(p) - rank) * p[name]))
        adjusted[name] = running
    return adjusted


def mean_limits(values: Sequence[float], within: tuple[float, float]) -> tuple[float, float, float]:
    """Mean and 95 % limits: BCa of a mean (Efron 1987), its bootstrap distribution taken to second order (Hall 1992, section 2.3), not resampled.

    Where all are alike: Clopper and Pearson's share of unlike ones, as far away as `within` allows.
    """
    n, mean = len(values), math.fsum(values) / len(values)
    if max(values) == min(values):
        unlike = 1 - 0.025 ** (1 / n)
        return mean, mean - unlike * (mean - within[0]), mean + unlike * (within[1] - mean)
    largest = max(abs(value - mean) for value in values)  # cubes of very small values would underflow
    second, third = (math.fsum(((value - mean) / largest) ** power for value in values) / n for power in (2, 3))
    bend, deviation, limits = third / second**1.5 / (6 * math.sqrt(n)), largest * math.sqrt(second / n), []
    for tail in (normal_quantile(0.025), normal_quantile(0.975)):
        moved = bend + (bend + tail) / (1 - bend * (bend + tail))
        limits.append(mean + deviation * (moved + bend * (moved**2 - 1)))
    return mean, max(within[0], min(limits[0], mean)), min(within[1], max(limits[1], mean))


def clopper_pearson(hits: int, n: int) -> tuple[float, float]:
    """Exact two-sided 95 % limits of a proportion (Clopper and Pearson 1934), by halving."""

    def tail(share: float, ks: range) -> float:
        return math.fsum(math.exp(log_comb(n, k) + k * math.log(share) + (n - k) * math.log1p(-share)) for k in ks)

    limits = []
    for ks, rises, edge in ((range(hits, n + 1), True, 0.0 if hits == 0 else None), (range(hits + 1), False, 1.0 if hits == n else None)):
        low, high = 0.0, 1.0
        for _ in range(50):
            middle = (low + high) / 2
            low, high = (middle, high) if (tail(middle, ks) < 0.025) == rises else (low, middle)
        limits.append(low if edge is None else edge)
    return limits[0], limits[1]
