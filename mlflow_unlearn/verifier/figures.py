"""Stated figures against what they were made of: whoever changes one without the other is refused by name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from . import counting
from .counting import MOST, Area
from .documents import RefusedError, UndecidedError

Sides = tuple[int, int]
"""How many included and excluded canaries."""


def same(stated: Any, counted: float, what: str, slack: float = 1e-6) -> None:
    """Refuse a stated figure that is not what was counted."""
    if isinstance(stated, bool) or not isinstance(stated, (int, float)) or not abs(stated - counted) <= slack:
        raise RefusedError(f"{what}: stated is {stated}, what it was made of gives {counted:.6g}")


def tested(test: Mapping[str, Any], drawn: int, what: str) -> tuple[Area, Sides]:
    """An attack's area and the canaries it was shown, once every figure of it follows from their order.

    Args:
        test: a `CanaryTest`.
        drawn: permutations behind its p; 0: not recorded, so that p cannot be looked into.
        what: on whom.
    """
    what, groups = f"{test['attack']} on {what}", counting.groups_of(test["order"])
    found, sides = counting.area(groups), counting.sizes(groups)
    m = sum(sides)
    r, fewest, most = counting.right_guesses(groups)
    same(test["auc"]["value"], found.value, f"{what}: AUC")
    same(test["auc"]["n"], m, f"{what}: canaries")
    for level in map(counting.attempt_level, range(1, counting.ATTEMPTS + 1)):
        same(test["auc_upper"].get(f"{level:.8g}"), found.limit(level), f"{what}: limit at {level:.8g}")
    if not fewest <= test["right"] <= most:
        raise RefusedError(f"{what}: {test['right']} right guesses are stated, the order allows {fewest} to {most}")
    same(test["epsilon"], counting.both_ways_epsilon(m, r, test["right"]), f"{what}: epsilon", 1e-4)
    for stated, p in zip((test["p_member"], test["p_non_member"]), counting.rank_sum_p(groups), strict=True):
        if drawn and not counting.drawn_p_may_be(stated, p, drawn):
            raise RefusedError(f"{what}: p: stated is {stated}, {drawn} permutations of these ranks hardly give that; without chance it is {p:.3g}")
    return found, sides


def matches(found: Mapping[str, Any], what: str) -> float:
    """Fisher's p of exact matches, from their counts."""
    counts = [found[name] for name in ("included_matches", "included", "excluded_matches", "excluded")]
    if not all(isinstance(each, int) and 0 <= each <= MOST for each in counts) or counts[0] > counts[1] or counts[2] > counts[3]:
        raise UndecidedError(f"{what}: no counts of matches")
    p = counting.fisher_p(*counts)
    same(found["p"], p, f"{what}: Fisher's p")
    return p


def paired(score: Mapping[str, Any], what: str) -> None:
    """A mean of paired differences in [-1, 1], with its limits."""
    if len(score["values"]) != 1 or len(score["values"][0]) != score["n"]:
        raise UndecidedError(f"{what}: the values it was made of are not there")
    _follows(score, counting.mean_limits(score["values"][0], (-1.0, 1.0)), what)


def difference(score: Mapping[str, Any], what: str) -> None:
    """A difference of two means of values in [0, 1], with Newcombe's limits (1998, method 10)."""
    if len(score["values"]) != 2 or sum(map(len, score["values"])) != score["n"]:
        raise UndecidedError(f"{what}: the values it was made of are not there")
    (one, low, high), (other, its_low, its_high) = (_limits(side) for side in score["values"])
    limits = one - other - math.hypot(one - low, its_high - other), one - other + math.hypot(high - one, other - its_low)
    _follows(score, (one - other, *limits), what)


def remaining(gap: Mapping[str, Any], what: str) -> tuple[float, float, Sides]:
    """(share of the parent's gap that remains, its standard error, the canaries): a ratio of two differences of means, its error linearised."""
    sides: Sequence[Sequence[Sequence[float]]] = [gap["included"], gap["excluded"]]
    n = sum(map(len, sides))
    if min(map(len, sides)) < 2 or n > MOST:
        raise UndecidedError(f"{what}: the values it was made of are not there")
    before, after = (_mean([pair[at] for pair in sides[1]]) - _mean([pair[at] for pair in sides[0]]) for at in (0, 1))
    if before <= counting.normal_quantile(0.975) * math.sqrt(sum(_variance([pair[0] for pair in side]) / len(side) for side in sides)):
        raise RefusedError(f"{what}: the parent shows no memory that a share could be taken of")
    share = after / before
    error = max(math.sqrt(sum(_variance([pair[1] - share * pair[0] for pair in side]) / len(side) for side in sides)) / before, 1e-6)
    same(gap["parent"]["value"], before, f"{what}: gap in the parent", 1e-5)
    same(gap["share"]["value"], share, f"{what}: share", 1e-5)
    same(gap["share"]["n"], n, f"{what}: canaries")
    for level in map(counting.attempt_level, range(1, counting.ATTEMPTS + 1)):
        limit = abs(share) + counting.normal_quantile(level) * error
        same(gap["share_upper"].get(f"{level:.8g}"), limit, f"{what}: limit at {level:.8g}", 1e-5)
    return share, error, (len(sides[0]), len(sides[1]))


def _follows(score: Mapping[str, Any], counted: tuple[float, float, float], what: str) -> None:
    for name, said, found in zip(("mean", "low", "high"), ("value", "low", "high"), counted, strict=True):
        same(score[said], found, f"{what}: {name}")


def _limits(values: Sequence[float]) -> tuple[float, float, float]:
    if set(values) <= {0.0, 1.0}:
        return _mean(values), *counting.clopper_pearson(int(sum(values)), len(values))
    return counting.mean_limits(values, (0.0, 1.0))


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _variance(values: Sequence[float]) -> float:
    middle = _mean(values)
    return math.fsum((value - middle) ** 2 for value in values) / (len(values) - 1)
