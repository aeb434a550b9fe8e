"""Forget quality against scipy, published p and samples of known distance."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as oracle

from mlflow_unlearn.forget_quality import exact_p, forget_quality

PUBLISHED = [
    (40, 17, 1.27e-3),  # fine-tuned Llama-2-7b-chat, forget01
    (40, 16, 3.02e-3),  # GradDiff
    (40, 19, 1.88e-4),  # GradAscent
    (200, 200, 1.94e-119),  # GradAscent, forget05: nothing in common
    (400, 149, 4.35e-25),  # fine-tuned, forget10
    (400, 138, 1.66e-21),  # fine-tuned Llama-3.2-1B-Instruct
    (400, 103, 4.62e-12),  # IdkDPO
    (400, 400, 1.06e-239),
]
"""Records, whole steps between the two samples, and the forget quality that OpenUnlearning's table of TOFU prints."""


@pytest.mark.parametrize(("n", "steps", "printed"), PUBLISHED)
def test_published_forget_qualities_are_p_of_whole_steps(n: int, steps: int, printed: float) -> None:
    assert exact_p(steps, n) == pytest.approx(printed, rel=6e-3)


@given(st.integers(1, 60), st.data())
def test_the_p_is_scipys_exact_one(n: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 10_000)))
    one, other = rng.normal(size=n), rng.normal(0.5, size=n)
    found = forget_quality(one, other, 10, 0)
    expected = oracle.ks_2samp(one, other, method="exact")
    assert (found.p, found.statistic.value) == (pytest.approx(expected.pvalue, rel=1e-9), pytest.approx(expected.statistic))


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40))
def test_between_equal_ratios_no_distance_is_measured(pairs: list[tuple[int, int]]) -> None:
    one, other = np.array(pairs, dtype=float).T
    widest = max(abs((one <= place).mean() - (other <= place).mean()) for place in range(5))
    assert forget_quality(one, other, 10, 0).statistic.value == pytest.approx(widest)


def test_two_of_two_records_apart_happens_by_chance_in_2_of_6_orders() -> None:
    assert exact_p(2, 2) == pytest.approx(2 / 6)


def test_a_retrained_model_against_itself_has_distance_0_and_p_1() -> None:
    ratios = np.random.default_rng(0).random(50)
    found = forget_quality(ratios, ratios, 100, 0)
    assert (found.p, found.statistic.value, found.statistic.low) == (1.0, 0.0, 0.0)
    assert found.statistic.high == pytest.approx(1 - 0.025 ** (1 / 50))


def test_only_the_order_of_ratios_counts() -> None:
    rng = np.random.default_rng(1)
    one, other = rng.random(80), rng.random(80) ** 2
    assert forget_quality(one, other, 200, 3) == forget_quality(np.log(one), np.log(other), 200, 3)


def test_the_same_distance_has_another_p_for_every_number_of_records() -> None:
    assert exact_p(12, 40) > 0.05 > 1e-15 > exact_p(120, 400)


@pytest.mark.parametrize("shift", [0.0, 0.5, 1.5])
def test_at_least_95_of_100_intervals_hold_the_true_distance(shift: float) -> None:
    rng, true = np.random.default_rng(5), 2 * oracle.norm.cdf(shift / 2) - 1
    held = 0
    for _ in range(200):
        common = rng.normal(size=100)
        one, other = common + rng.normal(size=100), common + rng.normal(size=100) + shift * math.sqrt(2)
        found = forget_quality(one, other, 200, 0).statistic
        held += found.low <= true <= found.high
    assert oracle.binomtest(held, 200, 0.95, alternative="less").pvalue > 0.01


def test_very_many_records_apart_do_not_overflow() -> None:
    assert exact_p(900, 900) == 0.0
    assert 0.0 < exact_p(20, 5000) <= 1.0


@pytest.mark.parametrize(("one", "other"), [([], []), ([1.0], [1.0, 2.0]), ([np.nan], [1.0])])
def test_what_cannot_be_compared_is_refused(one: list[float], other: list[float]) -> None:
    with pytest.raises(ValueError, match="forget_quality: expected"):
        forget_quality(np.array(one), np.array(other), 10, 0)
