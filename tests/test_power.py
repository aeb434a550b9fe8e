"""Power of a canary pool: simulated AUCs and gaps, integrals by another library, and figures that were measured."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as distributions

from mlflow_unlearn import power as powers
from mlflow_unlearn import stats
from mlflow_unlearn.policy import Policy
from mlflow_unlearn.power import Judged, auc_error, equivalence_power, gap_error, power, smallest_pool, together

FOUR = Judged(attacks=1, states=4)


def simulated_limits(m: int, states: int, correlation: float, draws: int) -> np.ndarray:
    """(draws, states) upper limits of |AUC - 0.5| of models that never saw a canary, as the evaluation takes them."""
    generator, limits = np.random.default_rng(m), []
    for _ in range(draws):
        common = generator.normal(size=m)
        scores = [math.sqrt(correlation) * common + math.sqrt(1 - correlation) * generator.normal(size=m) for _ in range(states)]
        limits.append([stats.area(score[: m // 2], score[m // 2 :]).upper_limit(0.95) for score in scores])
    return np.array(limits)


@pytest.mark.parametrize(("m", "margin"), [(400, 0.10), (800, 0.07)])
def test_the_chances_are_those_of_simulated_areas(m: int, margin: float) -> None:
    found, limits = power(m, Policy(), FOUR), simulated_limits(m, 4, powers.CORRELATION, 400)
    assert (limits[:, 0] <= margin).mean() == pytest.approx(found.auc_once, abs=0.04)
    assert (limits <= margin).all(axis=1).mean() == pytest.approx(found.auc_all, abs=0.05)


@pytest.mark.parametrize(
    ("m", "margin", "measured"), [(400, 0.07, 0.46), (400, 0.08, 0.675), (400, 0.10, 0.905), (800, 0.07, 0.91), (800, 0.08, 0.97), (1000, 0.07, 0.96)]
)
def test_four_states_pass_about_as_often_as_measured_on_a_small_model(m: int, margin: float, measured: float) -> None:
    policy = Policy(auc_margin={"400": margin})
    assert power(m, policy, FOUR).auc_all == pytest.approx(measured, abs=0.035)


@pytest.mark.parametrize(("m", "margin"), [(400, 0.15), (800, 0.10), (1000, 0.08)])
def test_nine_of_ten_honest_retrains_meet_the_gap_limits_that_were_measured(m: int, margin: float) -> None:
    assert power(m, Policy(calibrated_gap={"400": margin}), Judged(states=1)).gap_all >= 0.85


@pytest.mark.parametrize(("n", "printed"), [(200, 0.07), (400, 0.58), (1000, 0.97)])
def test_equivalence_within_five_hundredths_has_the_printed_power(n: int, printed: float) -> None:
    assert equivalence_power(0.05, auc_error(2 * n)) == pytest.approx(printed, abs=0.005)


@pytest.mark.parametrize(("n", "printed"), [(10, 0.132), (40, 0.065), (100, 0.041), (200, 0.029), (400, 0.020), (1000, 0.013)])
def test_chance_moves_an_area_by_the_printed_error(n: int, printed: float) -> None:
    assert auc_error(2 * n) == pytest.approx(printed, abs=6e-4)


def test_the_error_of_a_gap_is_that_of_two_means() -> None:
    sides = np.random.default_rng(0).normal(0, 0.4, (2, 4000, 100))
    assert (sides[0].mean(axis=1) - sides[1].mean(axis=1)).std() == pytest.approx(gap_error(200, 0.4), rel=0.04)


@pytest.mark.parametrize(("room", "tests", "correlation"), [(1.8, 4, 0.96), (0.5, 3, 0.5), (2.5, 5, 0.0), (1.0, 1, 0.9)])
def test_what_lies_within_limits_together_agrees_with_an_integral_over_the_joint_normal(room: float, tests: int, correlation: float) -> None:
    covariance = np.full((tests, tests), correlation) + (1 - correlation) * np.eye(tests)
    box = distributions.multivariate_normal(cov=covariance, seed=0).cdf(np.full(tests, room), lower_limit=np.full(tests, -room))
    assert together(room, tests, correlation) == pytest.approx(float(box), abs=2e-3)


@given(st.integers(10, 3000), st.integers(1, 3), st.integers(2, 4))
def test_more_to_meet_is_never_met_more_often(m: int, attacks: int, states: int) -> None:
    one, more, again = (
        power(m, Policy(), Judged(attacks=attacks, states=states + extra, attempt=attempt)) for extra, attempt in ((0, 1), (1, 1), (0, 2))
    )
    for harder in (more, again):
        assert harder.auc_all <= one.auc_all + 1e-12
        assert harder.gap_all <= one.gap_all + 1e-12
    assert again.passes <= one.passes + 1e-12
    assert one.passes <= min(one.auc_all, one.gap_all) + 1e-12


def test_in_a_large_pool_only_a_false_alarm_stands_between_an_honest_retrain_and_passing() -> None:
    found = power(20_000, Policy(), Judged(states=1))
    assert (found.auc_all, found.gap_all) == (pytest.approx(1.0), pytest.approx(1.0))
    assert found.passes == pytest.approx(1 - Policy().alpha)


def test_too_few_canaries_pass_nothing_but_still_bound_leaks() -> None:
    found = power(100, Policy(), FOUR)
    assert (found.auc_margin, found.passes, found.auc_all) == (None, 0.0, 0.0)
    assert found.leak_limit == pytest.approx(1 - 0.05 ** (1 / 50))
    assert found.smallest_p == pytest.approx(1 / 51)


def test_a_later_attempt_than_limits_exist_for_passes_nothing() -> None:
    late = replace(FOUR, attempt=stats.ATTEMPTS + 1)
    assert power(1000, Policy(), late).passes == 0.0
    assert smallest_pool(Policy(), late) is None


@pytest.mark.parametrize("attempt", [1, 3])
def test_the_smallest_pool_passes_and_the_next_smaller_one_does_not(attempt: int) -> None:
    judged = replace(FOUR, attempt=attempt)
    found = smallest_pool(Policy(), judged)
    assert found is not None
    assert power(found, Policy(), judged).passes >= 0.9 > power(found - 10, Policy(), judged).passes


def test_a_leak_that_is_called_visible_is_found_four_times_in_five() -> None:
    found, generator = power(400, Policy(), Judged(states=1)), np.random.default_rng(1)
    shift = math.sqrt(2) * distributions.norm.ppf(found.visible_auc)
    p = [distributions.mannwhitneyu(generator.normal(shift, 1, 200), generator.normal(size=200)).pvalue for _ in range(400)]
    assert (np.array(p) < 0.05).mean() == pytest.approx(0.8, abs=0.06)
