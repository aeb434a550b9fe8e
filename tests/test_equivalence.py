"""Equivalence tests: their size at the margin, counted or simulated, and the three things they can say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as distributions

from mlflow_unlearn.equivalence import area_within, mean_within, not_worse, paired_within, proportions_within
from mlflow_unlearn.records import Outcome

VALUES = st.lists(st.floats(-2, 2), min_size=3, max_size=20).map(np.array)


@given(VALUES, st.floats(0.05, 2))
def test_a_mean_passes_where_both_of_scipys_one_sided_t_tests_reject(values: np.ndarray, margin: float) -> None:
    if np.ptp(values) < 1e-3:
        return
    p = max(
        distributions.ttest_1samp(values, -margin, alternative="greater").pvalue,
        distributions.ttest_1samp(values, margin, alternative="less").pvalue,
    )
    assert (mean_within(values, margin).outcome is Outcome.PASS) == (p < 0.05)


@pytest.mark.parametrize(("mean", "outcome"), [(0.0, Outcome.PASS), (1.0, Outcome.FAIL), (0.5, Outcome.INCONCLUSIVE)])
def test_a_mean_is_within_beyond_or_undecided(mean: float, outcome: Outcome) -> None:
    found = mean_within(np.tile([mean - 0.3, mean + 0.3], 20), 0.5)
    assert found.outcome is outcome
    assert {Outcome.PASS: "shown to be within", Outcome.FAIL: "shown to be beyond", Outcome.INCONCLUSIVE: "cannot decide"}[outcome] in found.words()


def test_a_mean_at_the_margin_passes_no_more_often_than_promised() -> None:
    values = np.random.default_rng(0).normal(0.5, 1.0, (2000, 60))
    assert np.mean([mean_within(row, 0.5).outcome is Outcome.PASS for row in values]) <= 0.05 + 2.5 * math.sqrt(0.05 * 0.95 / 2000)


def test_no_change_in_few_records_is_not_yet_no_change() -> None:
    few, many = (paired_within(np.ones(n), np.ones(n), 0.02).outcome for n in (10, 100))
    assert (few, many) == (Outcome.INCONCLUSIVE, Outcome.PASS)


def test_gaining_much_is_not_worse_but_not_equal_either() -> None:
    before = np.linspace(0, 0.5, 40)
    after = before + 0.3 + 0.01 * np.sin(np.arange(40))
    assert (not_worse(after, before, 0.05).outcome, paired_within(after, before, 0.05).outcome) == (Outcome.PASS, Outcome.FAIL)
    assert not_worse(before, after, 0.05).outcome is Outcome.FAIL


@pytest.mark.parametrize(("n", "margin"), [((10, 10), 0.3), ((30, 30), 0.2), ((20, 40), 0.2)])
def test_proportions_at_the_margin_pass_no_more_often_than_promised(n: tuple[int, int], margin: float) -> None:
    """Counted over all tables and a grid of proportions, not simulated."""
    tables = [[proportions_within((i, j), n, margin).outcome is Outcome.PASS for j in range(n[1] + 1)] for i in range(n[0] + 1)]
    for p in np.linspace(0, 1 - margin, 41):
        one, other = (distributions.binom.pmf(np.arange(size + 1), size, share) for size, share in zip(n, (p + margin, p), strict=True))
        assert one @ np.array(tables) @ other <= 0.05


def test_no_hit_on_either_side_leaves_what_so_many_records_may_have_missed() -> None:
    found = proportions_within((0, 0), (60, 60), 0.05)
    assert (found.low, found.high) == (pytest.approx(-(1 - 0.05 ** (1 / 60))), pytest.approx(1 - 0.05 ** (1 / 60)))
    assert found.outcome is Outcome.PASS


@given(st.integers(1, 30), st.integers(1, 30), st.data())
def test_limits_of_proportions_turn_round_with_the_sides(one: int, other: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, one)), data.draw(st.integers(0, other))
    found, turned = proportions_within(hits, (one, other), 0.1), proportions_within(hits[::-1], (other, one), 0.1)
    assert (found.low, found.high, found.outcome) == (pytest.approx(-turned.high), pytest.approx(-turned.low), turned.outcome)
    assert -1.0 <= found.low <= found.value <= found.high <= 1.0


def test_an_area_at_the_margin_passes_no_more_often_than_promised() -> None:
    generator, shift = np.random.default_rng(4), math.sqrt(2) * distributions.norm.ppf(0.6)
    passed = [area_within(generator.normal(shift, 1, 200), generator.normal(size=200), 0.1).outcome is Outcome.PASS for _ in range(600)]
    assert np.mean(passed) <= 0.05 + 2.5 * math.sqrt(0.05 * 0.95 / 600)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: mean_within(np.ones(1), 0.1), "at least two values"),
        (lambda: mean_within(np.array([1.0, math.nan]), 0.1), "all finite"),
        (lambda: mean_within(np.ones(3), 0.0), "a margin above 0"),
        (lambda: paired_within(np.ones(3), np.ones(2), 0.1), "found 3 and 2"),
        (lambda: proportions_within((3, 0), (2, 2), 0.1), "hits between 0"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_words(call, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()
