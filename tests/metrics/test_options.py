"""Truth ratio and probability with options against the formula written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulated import SimulatedSubject

from mlflow_unlearn import stats
from mlflow_unlearn.metrics.probability_with_options import ProbabilityWithOptions
from mlflow_unlearn.metrics.truth_ratio import LARGEST, TruthRatio, on_forget, on_retain
from mlflow_unlearn.protocols import PartialMetric
from mlflow_unlearn.records import Direction

TOKENS = st.lists(st.floats(-20, 0), min_size=1, max_size=5).map(np.array)
RECORDS = st.lists(st.tuples(TOKENS, TOKENS, st.lists(TOKENS, min_size=1, max_size=5)), min_size=1, max_size=4)
NONE = np.empty(0)
P = np.log


def seen(*records: tuple[np.ndarray, np.ndarray, list[np.ndarray]]) -> SimulatedSubject:
    """Records as (answer, answer in other words, wrong answers)."""
    own, other, wrong = zip(*records, strict=True)
    return SimulatedSubject(token_log_probs=own, paraphrased_log_probs=other, wrong_log_probs=wrong)


def normalised(tokens: np.ndarray) -> float:
    return math.exp(sum(tokens) / len(tokens))


MIXED = seen(
    (P([0.9]), P([0.5, 0.5]), [P([0.2]), P([0.4, 0.1, 0.2])]),
    (P([0.9]), P([0.5]), []),
    (P([0.5]), NONE, [P([0.25, 0.25])]),
)
"""Two wrong answers of probability 0.2; none; and no other wording of the true answer."""


def test_a_truth_ratio_by_hand_and_records_without_wrong_answers_keep_their_place() -> None:
    np.testing.assert_allclose(TruthRatio().values(MIXED), [0.4, np.nan, 0.5])
    assert TruthRatio().defined(MIXED).tolist() == [True, False, True]
    np.testing.assert_allclose(ProbabilityWithOptions().values(MIXED), [0.9 / 1.3, np.nan, 0.5 / 0.75])
    assert ProbabilityWithOptions().defined(MIXED).tolist() == [True, False, True]


@pytest.mark.parametrize("metric", [TruthRatio(), ProbabilityWithOptions()])
def test_both_say_that_they_need_wrong_answers(metric: object) -> None:
    assert isinstance(metric, PartialMetric)
    assert metric.lacking == "wrong answers"


@given(RECORDS)
def test_the_papers_mean_is_over_probabilities_and_its_code_s_over_losses(records: list[tuple[np.ndarray, np.ndarray, list[np.ndarray]]]) -> None:
    arithmetic, geometric = (TruthRatio(mean=mean).values(seen(*records)) for mean in ("arithmetic", "geometric"))
    naive = [sum(map(normalised, wrong)) / len(wrong) / normalised(other) for _, other, wrong in records]
    code = [math.exp(sum(sum(w) / len(w) for w in wrong) / len(wrong)) / normalised(other) for _, other, wrong in records]
    np.testing.assert_allclose(arithmetic, naive, rtol=1e-9)
    np.testing.assert_allclose(geometric, code, rtol=1e-9)
    assert (geometric <= arithmetic * (1 + 1e-9)).all()


@given(RECORDS)
def test_options_share_one_probability(records: list[tuple[np.ndarray, np.ndarray, list[np.ndarray]]]) -> None:
    naive = [normalised(own) / (normalised(own) + sum(map(normalised, wrong))) for own, _, wrong in records]
    np.testing.assert_allclose(ProbabilityWithOptions().values(seen(*records)), naive, rtol=1e-9)


def test_summaries_of_ratios_by_hand() -> None:
    ratios = np.array([0.0, 0.25, 1.0, 4.0, np.nan])
    np.testing.assert_allclose(on_forget(ratios), [0.0, 0.25, 1.0, 0.25, np.nan])
    np.testing.assert_allclose(on_retain(ratios), [1.0, 0.75, 0.0, 0.0, np.nan])


def test_a_ratio_stays_a_number_however_unlikely_the_truth_has_become() -> None:
    torn = seen((P([0.1]), np.array([-1e5]), [P([0.1])]), (P([0.1]), np.array([-np.inf]), [P([0.1])]), (P([0.1]), P([0.1]), [np.array([-np.inf])]))
    np.testing.assert_allclose(TruthRatio().values(torn), [LARGEST, LARGEST, 0.0])
    assert np.isfinite(stats.mean_score(TruthRatio().values(torn), Direction.HIGHER, 20, 0).high)
