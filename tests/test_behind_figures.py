"""Every figure that a verdict rests on follows from the counts, letters and values beside it, by formulas written out here."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from statistics import fmean, variance
from typing import Any

import numpy as np
import pytest
import rfc8785
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats as distributions
from simulated import MEASURES, evaluation_of, honest

from mlflow_unlearn import stats
from mlflow_unlearn.calibrated_gap import Losses, Sides, remaining
from mlflow_unlearn.documents import decode, encode
from mlflow_unlearn.epsilon import one_run_epsilon
from mlflow_unlearn.evaluate import canary_test
from mlflow_unlearn.measurements import CanaryTest, Gap, Score
from mlflow_unlearn.policy import Policy, policy_digest
from mlflow_unlearn.records import Evaluation

SIDE = st.lists(st.one_of(st.integers(-3, 3).map(float), st.floats(-1, 1), st.just(-math.inf)), min_size=1, max_size=30).map(np.array)
SHARES = st.lists(st.floats(0, 1), min_size=1, max_size=30).map(np.array)
LEVELS = {f"{1 - 0.05 / 2**k:.8g}": 1 - 0.05 / 2**k for k in range(10)}
Z95 = float(distributions.norm.ppf(0.975))
QUANTILE = {key: float(distributions.norm.ppf(level)) for key, level in LEVELS.items()}


def shown(included: np.ndarray, excluded: np.ndarray) -> CanaryTest:
    return canary_test("loss", included, excluded, replace(MEASURES, permutations=19))


def groups(order: str) -> list[str]:
    """Canaries that are equally suspicious, from least to most."""
    return [each.strip("()") for each in re.findall(r"\([ie]+\)|[ie]", order)]


def ranks(order: str) -> tuple[list[int], list[int]]:
    """Of included and excluded canaries."""
    placed = [(letter, rank) for rank, group in enumerate(groups(order)) for letter in group]
    return [rank for letter, rank in placed if letter == "i"], [rank for letter, rank in placed if letter == "e"]


def wins(order: str) -> np.ndarray:
    """(included, excluded) 1 where the included canary is more suspicious, one half where both are alike."""
    included, excluded = ranks(order)
    return np.array([[1.0 if a > b else 0.5 if a == b else 0.0 for b in excluded] for a in included])


def right(order: str, last: str) -> int:
    """Right guesses when those of every tie who are `last` count as the most suspicious of it."""
    row = [letter for group in groups(order) for letter in sorted(group, key=last.__eq__)]
    half = int(len(row) * 0.2) // 2
    return row[:half].count("e") + row[len(row) - half :].count("i")


def mean_error(values: list[float]) -> float:
    """Squared standard error of a mean."""
    return variance(values) / len(values) if len(values) > 1 else 0.0


@given(SIDE, SIDE)
def test_an_order_names_each_canary_once_and_nothing_but_its_side(included: np.ndarray, excluded: np.ndarray) -> None:
    order = shown(included, excluded).order
    assert re.fullmatch(r"(i|e|\(i+e+\)|\(ii+\)|\(ee+\))+", order)
    assert (order.count("i"), order.count("e")) == (len(included), len(excluded))


@given(SIDE, SIDE)
def test_an_area_its_error_and_its_limits_follow_from_the_order(included: np.ndarray, excluded: np.ndarray) -> None:
    test = shown(included, excluded)
    table = wins(test.order)
    error = max(math.sqrt(mean_error(table.mean(1).tolist()) + mean_error(table.mean(0).tolist())), 0.5 / min(table.shape))
    assert test.auc.value == pytest.approx(table.mean(), abs=1e-12)
    assert test.auc_upper == pytest.approx({key: abs(table.mean() - 0.5) + quantile * error for key, quantile in QUANTILE.items()}, abs=1e-9)


@given(SIDE, SIDE)
def test_epsilon_follows_from_right_guesses_that_the_order_allows(included: np.ndarray, excluded: np.ndarray) -> None:
    test = shown(included, excluded)
    m = len(included) + len(excluded)
    r = int(m * 0.2) // 2 * 2
    assert right(test.order, "e") <= test.right <= right(test.order, "i")
    assert test.epsilon == pytest.approx(max(one_run_epsilon(m, r, v, 0.0, 0.025) for v in (test.right, r - test.right)), abs=1e-9)


@pytest.mark.parametrize("order", ["eeiei(ie)i", "(iiee)eei", "iiieee"])
def test_both_p_are_the_share_of_all_ways_to_deal_the_ranks_up_to_chance(order: str) -> None:
    included, excluded = ranks(order)
    middle = distributions.rankdata(included + excluded)
    sums = np.array([sum(chosen) for chosen in combinations(middle, len(included))])
    test = canary_test("loss", np.array(included, float), np.array(excluded, float), replace(MEASURES, permutations=2000))
    observed = middle[: len(included)].sum()
    for found, exact in ((test.p_member, (sums >= observed).mean()), (test.p_non_member, (sums <= observed).mean())):
        assert found == pytest.approx(exact, abs=5 * math.sqrt(exact * (1 - exact) / 2000) + 1 / 2000)


@given(SIDE, SIDE, st.randoms(use_true_random=False))
def test_who_came_when_is_not_written_down(included: np.ndarray, excluded: np.ndarray, random: Any) -> None:
    mixed = [np.array(random.sample(side.tolist(), len(side))) for side in (included, excluded)]
    assert shown(*mixed).order == shown(included, excluded).order
    shares = [np.clip(np.nan_to_num(side, neginf=0.0), 0.0, 1.0) for side in (included, excluded, *mixed)]
    assert stats.difference_score(shares[2], shares[3]) == stats.difference_score(shares[0], shares[1])


def mean_limits(values: list[float], within: tuple[float, float]) -> tuple[float, float]:
    """Hall's expansion of a mean's bootstrap distribution, at Efron's corrected levels."""
    n, mean = len(values), fmean(values)
    if min(values) == max(values):
        unlike = 1 - 0.025 ** (1 / n)
        return mean - unlike * (mean - within[0]), mean + unlike * (within[1] - mean)
    second, third = (fmean((value - mean) ** power for value in values) for power in (2, 3))
    a = third / second**1.5 / (6 * math.sqrt(n))
    corrected = [a + (a + z) / (1 - a * (a + z)) for z in (-Z95, Z95)]
    low, high = (mean + math.sqrt(second / n) * (z + a * (z**2 - 1)) for z in corrected)
    return max(within[0], min(low, mean)), min(within[1], max(high, mean))


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=30))
def test_a_paired_mean_and_its_limits_follow_from_its_values(pairs: list[tuple[float, float]]) -> None:
    after, before = np.array(pairs).T
    score = stats.paired_score(after, before)
    (values,) = score.values
    assume(max(values) == min(values) or max(values) - min(values) > 1e-50)
    assert list(values) == sorted(values)
    assert score.value == pytest.approx(fmean(after - before), abs=1e-6)
    assert limits(score) == pytest.approx((fmean(values), *mean_limits(list(values), (-1.0, 1.0))), abs=1e-6)
    assert score.n == len(values)


@given(SHARES, SHARES)
def test_a_difference_of_means_and_its_limits_follow_from_both_lists(left: np.ndarray, right: np.ndarray) -> None:
    score = stats.difference_score(left, right)
    assume(all(max(side) == min(side) or max(side) - min(side) > 1e-50 for side in score.values))
    (one, low, high), (other, its_low, its_high) = ((fmean(side), *share_limits(list(side))) for side in score.values)
    found = one - other, one - other - math.hypot(one - low, its_high - other), one - other + math.hypot(high - one, other - its_low)
    assert limits(score) == pytest.approx(found, abs=1e-6)
    assert score.value == pytest.approx(left.mean() - right.mean(), abs=1e-6)
    assert score.n == len(left) + len(right)


def share_limits(values: list[float]) -> tuple[float, float]:
    if set(values) <= {0.0, 1.0}:
        found = distributions.binomtest(int(sum(values)), len(values)).proportion_ci(0.95, "exact")
        return found.low, found.high
    return mean_limits(values, (0.0, 1.0))


def limits(score: Score) -> tuple[float, float, float]:
    return score.value, score.low, score.high


def sides(seed: int, known: float, scale: float) -> Sides:
    rng = np.random.default_rng(seed)
    own = {name: scale * rng.gamma(4.0, 1.0, 30) - (known if name == "included" else 0.0) for name in ("included", "excluded", "holdout")}
    return Sides(**{name: Losses(own=each, swapped=each + rng.normal(0, 0.1, 30), kinds=["a", "b", "c"] * 10) for name, each in own.items()})


def gap_error(included: list[float], excluded: list[float]) -> float:
    return math.sqrt(mean_error(included) + mean_error(excluded))


@given(st.integers(0, 1000), st.floats(-1, 3), st.sampled_from([1e-3, 1.0, 100.0]))
def test_a_share_and_its_limits_follow_from_both_losses_of_each_canary(seed: int, left: float, scale: float) -> None:
    gap = remaining(sides(seed, 4.0 * scale, scale), sides(seed + 1, left * scale, scale))
    assume(gap is not None)
    assert isinstance(gap, Gap)
    before, after = (fmean(e[state] for e in gap.excluded) - fmean(i[state] for i in gap.included) for state in (0, 1))
    share = after / before
    error = max(gap_error(*([state - share * parent for parent, state in side] for side in (gap.included, gap.excluded))) / before, 1e-6)
    assert gap.share_upper == pytest.approx({key: abs(share) + quantile * error for key, quantile in QUANTILE.items()}, rel=1e-9)
    assert limits(gap.share) == pytest.approx((share, share - Z95 * error, share + Z95 * error), rel=1e-5, abs=1e-9)
    error = gap_error(*([parent for parent, _ in side] for side in (gap.included, gap.excluded)))
    assert limits(gap.parent) == pytest.approx((before, before - Z95 * error, before + Z95 * error), rel=1e-5)


def test_rounding_moves_no_share_by_a_millionth() -> None:
    parent, model = sides(1, 4.0, 1.0), sides(2, 0.5, 1.0)
    bare = [replace(each, holdout=Losses(own=np.empty(0), swapped=np.empty(0), kinds=[])) for each in (parent, model)]
    gap = remaining(*bare)
    whole = [each.excluded.own.mean() - each.included.own.mean() for each in bare]
    assert gap is not None
    assert gap.share.value == pytest.approx(whole[1] / whole[0], abs=1e-6)


def numbers_within(document: Any) -> Iterator[Any]:
    if isinstance(document, list):
        for each in document:
            yield from numbers_within(each)
    else:
        yield document


def everywhere(document: Any, keys: set[str]) -> Iterator[Any]:
    """What stands under these keys, however deep."""
    inner = document.values() if isinstance(document, dict) else document if isinstance(document, list) else ()
    yield from (value for key, value in (document.items() if isinstance(document, dict) else ()) if key in keys and not isinstance(value, dict))
    for each in inner:
        yield from everywhere(each, keys)


def test_an_evaluation_keeps_what_decides_and_nothing_of_whom_it_is() -> None:
    document = encode(honest())
    orders = list(everywhere(document, {"order"}))
    assert len(orders) == 3 * 4 * 2
    assert all(re.fullmatch(r"[ie()]+", order) for order in orders)
    values = list(numbers_within(list(everywhere(document, {"values", "included", "excluded"}))))
    assert all(isinstance(value, float | int) and not isinstance(value, bool) for value in values)
    assert not any(score["values"] for report in (document["before"], document["after"]) for of in report["scores"].values() for score in of.values())
    assert document["after"]["gap"]["included"]
    assert all(score["values"][0] for score in document["utility"].values())


@pytest.mark.parametrize("make", [honest, lambda: evaluation_of(1.0, 1.0)])
def test_an_evaluation_comes_back_from_its_signed_bytes(make: Any) -> None:
    evaluation = make()
    assert decode(Evaluation, json.loads(rfc8785.dumps(encode(evaluation))), "evaluation") == evaluation


def test_a_policy_digest_is_of_its_canonical_bytes_and_how_the_gate_enforces_it_is_no_part_of_it() -> None:
    rules = {name: value for name, value in encode(Policy()).items() if name != "gate"}
    assert policy_digest(Policy()) == hashlib.sha256(rfc8785.dumps(rules)).hexdigest()
    assert policy_digest(Policy(alpha=0.01)) != policy_digest(Policy())
