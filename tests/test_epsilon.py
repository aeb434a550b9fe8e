"""Epsilon from error rates: printed tables, a brute-force rule, and what noise may not show."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as distributions

from mlflow_unlearn.epsilon import Errors, _rule, one_run_epsilon, split_epsilon, threshold_epsilon
from mlflow_unlearn.errors import UnmeasurableError

SUSPICIONS = st.lists(st.integers(-4, 4).map(float), min_size=2, max_size=12).map(np.array)
COUNTS = st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


def errors(missed: int, members: int, accused: int, strangers: int) -> Errors:
    return Errors(missed=missed, members=members, accused=accused, strangers=strangers)


def from_scipy(given: Errors, delta: float) -> float:
    missed, accused = (
        distributions.binomtest(wrong, n, alternative="less").proportion_ci(0.975, "exact").high
        for wrong, n in ((given.missed, given.members), (given.accused, given.strangers))
    )
    pairs = ((missed, accused), (accused, missed))
    return max(0.0, *(math.log((1 - delta - one) / other) if one < 1 - delta else 0.0 for one, other in pairs))


@pytest.mark.parametrize(("n", "printed"), [(10, 0.81), (20, 1.60), (40, 2.34), (100, 3.28), (400, 4.68), (1000, 5.60)])
def test_a_perfect_threshold_shows_what_so_many_records_a_side_can_show(n: int, printed: float) -> None:
    assert threshold_epsilon(errors(0, n, 0, n)) == pytest.approx(printed, abs=0.005)


@pytest.mark.parametrize(("r", "printed"), [(10, 1.05), (20, 1.82), (50, 2.78), (100, 3.49), (200, 4.19), (500, 5.11), (1000, 5.81)])
def test_right_guesses_alone_show_what_so_many_of_them_can_show(r: int, printed: float) -> None:
    assert one_run_epsilon(r, r, r, 0.0, 0.05) == pytest.approx(printed, abs=0.005)


@given(COUNTS, COUNTS, st.sampled_from([0.0, 1e-5, 0.1]))
def test_the_bound_is_that_of_exact_limits_of_both_error_rates(one: tuple[int, int], other: tuple[int, int], delta: float) -> None:
    given_errors = errors(*one, *other)
    assert threshold_epsilon(given_errors, delta) == pytest.approx(from_scipy(given_errors, delta), abs=1e-9)


@given(COUNTS, COUNTS)
def test_the_bound_does_not_care_which_of_the_errors_is_which(one: tuple[int, int], other: tuple[int, int]) -> None:
    assert threshold_epsilon(errors(*one, *other)) == threshold_epsilon(errors(*other, *one))


@given(SUSPICIONS, SUSPICIONS)
def test_the_chosen_rule_is_the_best_of_all_on_its_own_half(members: np.ndarray, strangers: np.ndarray) -> None:
    def shown(sign: float, threshold: float) -> float:
        wrong = int((sign * members < threshold).sum()), len(members), int((sign * strangers >= threshold).sum()), len(strangers)
        return threshold_epsilon(errors(*wrong))

    every = [shown(sign, threshold) for sign in (1.0, -1.0) for threshold in sign * np.concatenate([members, strangers])]
    assert shown(*_rule(members, strangers, 0.0, 0.05)) == pytest.approx(max(every))


def test_known_and_shunned_members_are_both_found() -> None:
    apart = np.arange(100.0) + 1000, np.arange(100.0)
    assert split_epsilon(*apart) == split_epsilon(*apart[::-1]) == pytest.approx(threshold_epsilon(errors(0, 50, 0, 50)))


def test_noise_does_not_show_an_epsilon_although_the_best_of_many_thresholds_is_chosen() -> None:
    """Choosing and counting on the same 1,000 records a side finds one in 15 of 100 draws."""
    generator = np.random.default_rng(1)
    shown = [split_epsilon(generator.normal(size=1000), generator.normal(size=1000), seed=i) > 0 for i in range(200)]
    assert np.mean(shown) <= 0.05


def test_a_bound_stays_below_the_epsilon_of_randomised_response() -> None:
    """A coin that tells the truth with probability e / (1 + e) has epsilon 1."""
    generator, truth = np.random.default_rng(2), math.e / (1 + math.e)
    answers = [(generator.random(400) < share).astype(float) for _ in range(200) for share in (truth, 1 - truth)]
    bounds = [split_epsilon(one, other, seed=i) for i, (one, other) in enumerate(zip(answers[::2], answers[1::2], strict=True))]
    assert np.mean(np.array(bounds) <= 1.0) >= 0.95
    assert np.median(bounds) > 0.4


@pytest.mark.parametrize("sides", [(0, 5), (5, 1)])
def test_what_cannot_be_halved_is_unmeasurable(sides: tuple[int, int]) -> None:
    with pytest.raises(UnmeasurableError, match="expected at least two of each to halve"):
        split_epsilon(np.zeros(sides[0]), np.zeros(sides[1]))
