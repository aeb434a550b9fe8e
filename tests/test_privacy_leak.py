"""MUSE's privacy leak against published figures, a count over all pairs and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as oracle

from mlflow_unlearn.errors import UnmeasurableError
from mlflow_unlearn.privacy_leak import Sides, privacy_leak, reading
from mlflow_unlearn.records import Direction, Score

APART, TOGETHER = np.arange(100.0), np.arange(100.0) + 0.5


def sides(forget: np.ndarray, holdout: np.ndarray) -> Sides:
    return Sides(forget=forget, holdout=holdout)


def with_area(share: float) -> Sides:
    """10,000 pairs of which the given share has the forgotten text below the unseen one."""
    whole, rest = divmod(round(share * 10_000), 100)
    forget = np.concatenate([np.full(whole, -1.0), np.full(100 - whole, 1000.0)])
    if rest:
        forget[-1] = 99.5 - rest
    return sides(forget, np.arange(100.0))


def counted(given: Sides) -> float:
    below = given.forget[:, None] < given.holdout[None, :]
    return float((below + 0.5 * (given.forget[:, None] == given.holdout[None, :])).mean())


@pytest.mark.parametrize(("unlearned", "printed"), [(0.0, -100.0), (1.0, 109.6)])
def test_the_ends_are_those_of_muse_news_whose_retrained_auc_is_0_4772(unlearned: float, printed: float) -> None:
    found = privacy_leak(with_area(unlearned), with_area(0.4772))
    assert (found.unlearned, found.retrained) == (pytest.approx(unlearned), pytest.approx(0.4772))
    assert found.leak.value == pytest.approx(printed, abs=0.05)


def test_texts_that_are_still_known_are_under_unlearned_and_shunned_ones_over_unlearned() -> None:
    retrained = sides(APART, TOGETHER)
    known, shunned = privacy_leak(sides(APART + 200, TOGETHER), retrained), privacy_leak(sides(APART - 200, TOGETHER), retrained)
    assert (known.reading, shunned.reading) == ("under-unlearned", "over-unlearned")
    assert known.leak.value == -100.0 < 0.0 < shunned.leak.value


def test_a_retrained_model_against_itself_leaks_0() -> None:
    found = privacy_leak(sides(APART, TOGETHER), sides(APART, TOGETHER))
    assert (found.leak.value, found.reading) == (0.0, "as retrained")


def test_the_auc_counts_pairs_and_ties_half() -> None:
    rng = np.random.default_rng(3)
    one, other = (sides(rng.integers(0, 6, 30).astype(float), rng.integers(0, 6, 20).astype(float)) for _ in range(2))
    found = privacy_leak(one, other)
    assert (found.unlearned, found.retrained) == (pytest.approx(counted(one)), pytest.approx(counted(other)))
    assert found.leak.value == pytest.approx(100 * (counted(one) / counted(other) - 1))


@pytest.mark.parametrize("common", [0.0, 0.9])
def test_most_intervals_hold_the_true_leak(common: float) -> None:
    rng, held = np.random.default_rng(2), 0
    true = 100 * (oracle.norm.cdf(-0.5 / np.sqrt(2)) / 0.5 - 1)
    for _ in range(300):
        shared = rng.normal(size=(2, 80))
        own = common * shared + np.sqrt(1 - common**2) * rng.normal(size=(2, 2, 80))
        leak = privacy_leak(sides(own[0, 0] + 0.5, own[0, 1]), sides(*own[1])).leak
        held += leak.low <= true <= leak.high
    assert oracle.binomtest(held, 300, 0.95).pvalue > 0.01


def test_models_asked_the_same_texts_are_told_apart_better_than_by_two_separate_errors() -> None:
    rng = np.random.default_rng(4)
    forget, holdout = rng.normal(size=(2, 200))
    close = privacy_leak(sides(forget + 0.01 * rng.normal(size=200), holdout), sides(forget, holdout)).leak
    apart = privacy_leak(sides(rng.permutation(forget), rng.permutation(holdout)), sides(forget, holdout)).leak
    assert close.high - close.low < (apart.high - apart.low) / 2


def test_a_perfectly_told_pair_keeps_an_interval() -> None:
    leak = privacy_leak(sides(APART + 200, TOGETHER), sides(APART, TOGETHER)).leak
    assert leak.low == -100.0 < leak.high < -97.0


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(-4.0, -1.0, "as retrained"), (-9.0, -1.0, "under-unlearned"), (1.0, 9.0, "over-unlearned"), (-9.0, 9.0, "undecided")],
)
def test_a_reading_says_no_more_than_its_interval(low: float, high: float, words: str) -> None:
    assert reading(Score(value=(low + high) / 2, low=low, high=high, n=10, direction=Direction.NEAR_CENTRE)) == words


def test_a_retrained_auc_of_0_and_single_texts_cannot_be_measured() -> None:
    with pytest.raises(UnmeasurableError, match="AUC of 0 cannot be divided by"):
        privacy_leak(sides(APART, TOGETHER), sides(APART + 200, TOGETHER))
    with pytest.raises(UnmeasurableError, match="at least two of each"):
        privacy_leak(sides(APART[:1], TOGETHER), sides(APART[:1], TOGETHER))


def test_other_texts_and_broken_suspicions_are_refused() -> None:
    with pytest.raises(ValueError, match="asked the same texts"):
        privacy_leak(sides(APART, TOGETHER), sides(APART[:50], TOGETHER))
    with pytest.raises(ValueError, match="not numbers"):
        privacy_leak(sides(np.full(100, np.nan), TOGETHER), sides(APART, TOGETHER))
