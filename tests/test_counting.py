"""The verifier's plain-Python statistics against scipy, against this package's own, and against printed values."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats as distributions

from mlflow_unlearn import epsilon, stats
from mlflow_unlearn.verifier import UndecidedError, counting

SIDE = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=40).map(np.array)
FEW = st.lists(st.integers(-2, 2).map(float), min_size=1, max_size=5).map(np.array)
COUNTS = st.integers(1, 80).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


def groups(included: np.ndarray, excluded: np.ndarray) -> counting.Groups:
    return counting.groups_of(stats.suspicion_order(included, excluded))


@given(st.floats(1e-9, 1 - 1e-9))
def test_quantiles_of_the_normal_are_scipys(level: float) -> None:
    assert counting.normal_quantile(level) == pytest.approx(distributions.norm.ppf(level), abs=1e-8)


@given(SIDE, SIDE)
def test_an_area_and_its_limits_are_those_that_were_measured(included: np.ndarray, excluded: np.ndarray) -> None:
    ours, theirs = counting.area(groups(included, excluded)), stats.area(included, excluded)
    assert (ours.value, ours.error) == pytest.approx((theirs.value, theirs.error), abs=1e-9)
    assert ours.limit(0.9875) == pytest.approx(theirs.upper_limit(0.9875), abs=1e-9)


@given(FEW, SIDE)
def test_a_p_of_few_ranks_counts_every_way_to_deal_them(few: np.ndarray, many: np.ndarray) -> None:
    many = many[:8]
    ranks = distributions.rankdata(np.concatenate([few, many]))
    sums, observed = np.array([sum(each) for each in combinations(ranks, len(few))]), ranks[: len(few)].sum()
    exact = (sums >= observed - 1e-9).mean(), (sums <= observed + 1e-9).mean()
    assert counting.rank_sum_p(groups(few, many)) == pytest.approx(exact)
    assert counting.rank_sum_p(groups(many, few)) == pytest.approx(exact[::-1])


@pytest.mark.parametrize("shift", [-0.5, -0.2, 0.0, 0.1, 0.3])
@pytest.mark.parametrize("tied", [False, True])
def test_a_p_of_many_ranks_is_mann_and_whitneys(shift: float, tied: bool) -> None:
    draw = np.random.default_rng(7)
    included, excluded = draw.normal(shift, 1, 60), draw.normal(0, 1, 50)
    if tied:
        included, excluded = included.round(), excluded.round()
    found = counting.rank_sum_p(groups(included, excluded))
    for p, side in zip(found, ("greater", "less"), strict=True):
        assert p == pytest.approx(distributions.mannwhitneyu(included, excluded, alternative=side, method="asymptotic").pvalue, rel=0.02)


@given(SIDE, SIDE)
def test_guesses_are_as_many_as_were_made_and_their_right_ones_lie_in_the_range(included: np.ndarray, excluded: np.ndarray) -> None:
    made, fewest, most = counting.right_guesses(groups(included, excluded))
    assert made == epsilon.guesses(len(included) + len(excluded))
    assert fewest <= epsilon.right_guesses(included, excluded) <= most


@given(st.integers(1, 200).flatmap(lambda r: st.tuples(st.just(r), st.integers(0, r))), st.sampled_from([0.0, 1e-5]))
@settings(max_examples=30)
def test_epsilon_is_the_one_that_was_measured(counts: tuple[int, int], delta: float) -> None:
    r, right = counts
    assert counting.one_run_epsilon(1000, r, right, delta, 0.025) == pytest.approx(epsilon.one_run_epsilon(1000, r, right, delta, 0.025), abs=1e-6)


@pytest.mark.parametrize(("m", "r", "right", "delta", "printed"), [(1000, 100, 75, 1e-4, 0.673), (100_000, 1510, 1439, 1e-5, 2.676)])
def test_epsilon_is_the_one_of_the_paper(m: int, r: int, right: int, delta: float, printed: float) -> None:
    """Steinke, Nasr and Jagielski 2023; the second is printed as 2.675."""
    assert counting.one_run_epsilon(m, r, right, delta, 0.05) == pytest.approx(printed, abs=5e-4)


@given(COUNTS, COUNTS)
def test_fishers_p_is_scipys(one: tuple[int, int], other: tuple[int, int]) -> None:
    assert counting.fisher_p(*one, *other) == pytest.approx(stats.fisher_p(*one, *other), rel=1e-7, abs=1e-12)


def test_fishers_p_of_thousands_neither_overflows_nor_drifts() -> None:
    assert counting.fisher_p(45, 211, 0, 189) == pytest.approx(stats.fisher_p(45, 211, 0, 189), rel=1e-7)
    assert counting.fisher_p(5100, 10_000, 4900, 10_000) == pytest.approx(stats.fisher_p(5100, 10_000, 4900, 10_000), rel=1e-6)


@given(COUNTS)
def test_limits_of_a_proportion_are_clopper_and_pearsons(counts: tuple[int, int]) -> None:
    assert counting.clopper_pearson(*counts) == pytest.approx(stats.clopper_pearson(*counts), abs=1e-8)


@given(st.dictionaries(st.text(max_size=3), st.floats(0, 1), max_size=8))
def test_holms_correction_is_the_one_of_the_verdict(p: dict[str, float]) -> None:
    assert counting.holm(p) == pytest.approx(stats.holm(p))


@given(st.lists(st.one_of(st.just(0.0), st.floats(-1, 1)), min_size=1, max_size=40))
def test_limits_of_a_mean_are_those_that_were_measured(values: list[float]) -> None:
    score = stats.paired_score(np.array(values) / 2 + 0.5, np.full(len(values), 0.5))
    assume(len(set(score.values[0])) == 1 or np.ptp(score.values[0]) > 1e-50)
    found = np.clip(counting.mean_limits(score.values[0], (-1.0, 1.0)), -1.0, 1.0)
    assert found.tolist() == pytest.approx([score.value, score.low, score.high], abs=1e-6)


@pytest.mark.parametrize("order", ["", "x", "i e", "((ie))", "(i", "i)", "()", "ie\n", "IE"])
def test_an_order_in_other_letters_counts_nothing(order: str) -> None:
    with pytest.raises(UndecidedError, match="order of their suspicions is not there"):
        counting.groups_of(order)


@pytest.mark.parametrize("order", ["iii", "(eee)", "e"])
def test_one_side_alone_has_no_area(order: str) -> None:
    with pytest.raises(UndecidedError, match="one side is empty"):
        counting.area(counting.groups_of(order))


def test_the_largest_bound_is_that_of_every_guess_right() -> None:
    assert counting.both_ways_epsilon(800, 160, 160) == pytest.approx(epsilon.detectable_epsilon(800), abs=1e-6)
    assert counting.both_ways_epsilon(800, 160, 0) == counting.both_ways_epsilon(800, 160, 160)
    assert math.isclose(counting.both_ways_epsilon(9, 0, 0), 0.0)
