"""Attacks that compare with something: zlib, Min-K%++, gradient norms, a reference, a prefix, shadow models; each against its formula."""

from __future__ import annotations

import math
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as distributions
from simulated import SimulatedSubject, shadows_of, two_token_moments

from mlflow_unlearn import stats
from mlflow_unlearn.attacks.gradient_norm import GradientNorm
from mlflow_unlearn.attacks.lira import Lira
from mlflow_unlearn.attacks.min_k import MinK
from mlflow_unlearn.attacks.min_k_plus_plus import MinKPlusPlus
from mlflow_unlearn.attacks.recall import Recall
from mlflow_unlearn.attacks.reference import Reference
from mlflow_unlearn.attacks.zlib import Zlib
from mlflow_unlearn.errors import ConfigError, UnmeasurableError
from mlflow_unlearn.readings import confidences

LOG_PROBS = st.lists(st.floats(-30, -1e-3), min_size=1, max_size=8).map(np.array)


def one(log_probs: Any, **fields: Any) -> SimulatedSubject:
    return SimulatedSubject(token_log_probs=[np.array(log_probs, dtype=np.float64)], **fields)


@given(LOG_PROBS, st.text(max_size=30))
def test_zlib_is_the_loss_over_compressed_bytes_with_the_sign_of_the_loss_attack(tokens: np.ndarray, answer: str) -> None:
    found = Zlib().suspicion(one(tokens, answers=[answer]))
    assert found == pytest.approx([sum(tokens) / len(tokens) / len(zlib.compress(answer.encode("utf-8")))])


@given(st.lists(st.floats(-8, 8).filter(lambda logit: abs(logit) > 0.1), min_size=1, max_size=8).map(np.array), st.sampled_from([0.2, 0.4, 1.0]))
def test_min_k_plus_plus_standardises_each_token_by_its_place(logits: np.ndarray, share: float) -> None:
    """Of two tokens with probabilities p and 1 - p, the true one lies sqrt((1 - p) / p) deviations above the mean, below it where it is the rarer."""
    p = 1 / (1 + np.exp(-logits))
    expected = np.sort(np.sqrt((1 - p) / p) * np.sign(logits))[: max(1, int(share * len(p)))].mean()
    found = MinKPlusPlus(share=share).suspicion(one(np.log(p), token_moments=[two_token_moments(logits)]))
    np.testing.assert_allclose(found, [expected], rtol=1e-6)


def test_min_k_plus_plus_equals_min_k_where_every_place_is_alike() -> None:
    tokens = np.log([0.5, 0.1, 0.7])
    seen = one(tokens, token_moments=[np.tile([0.0, 1.0], (3, 1))])
    assert MinKPlusPlus().suspicion(seen) == pytest.approx(MinK().suspicion(seen))


def test_a_place_with_one_possible_token_tells_nothing() -> None:
    assert MinKPlusPlus().suspicion(one([0.0], token_moments=[np.zeros((1, 2))])).tolist() == [0.0]


def test_a_smaller_gradient_is_more_suspicious() -> None:
    assert GradientNorm().suspicion(SimulatedSubject(gradient_norms=np.array([0.5, 2.0]))).tolist() == [-0.5, -2.0]


@given(LOG_PROBS, LOG_PROBS)
def test_a_reference_is_subtracted_and_a_prefix_divided(tokens: np.ndarray, other: np.ndarray) -> None:
    own, beside = sum(tokens) / len(tokens), sum(other) / len(other)
    assert Reference().suspicion(one(tokens, reference_log_probs=[other])) == pytest.approx([own - beside])
    assert Recall().suspicion(one(tokens, prefixed_log_probs=[other])) == pytest.approx([beside / own])


@pytest.mark.parametrize("extreme", [0.0, -np.inf])
def test_certain_and_impossible_answers_leave_numbers(extreme: float) -> None:
    beside = [np.array([extreme])]
    seen = one([extreme], reference_log_probs=beside, prefixed_log_probs=beside, shadows=two_sided([0.0, 1.0], [2.0, 3.0]))
    assert Recall().suspicion(seen).tolist() == [1.0]
    assert not np.isnan(Reference().suspicion(seen)).any()
    assert np.isfinite(Lira().suspicion(seen)).all()
    assert np.isfinite(Lira(mode="offline").suspicion(seen)).all()


def two_sided(inside: list[float], outside: list[float]) -> Any:
    """Shadows of one record."""
    phi, side = np.array([*inside, *outside])[:, None], np.array([*(1 for _ in inside), *(0 for _ in outside)])[:, None]
    return shadows_of(phi, side)


@given(LOG_PROBS)
def test_a_confidence_is_the_logit_of_the_length_normalised_probability(tokens: np.ndarray) -> None:
    p = math.exp(sum(tokens) / len(tokens))
    np.testing.assert_allclose(confidences([tokens]), [math.log(p / (1 - p))], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("logit", [-3.0, 0.4, 2.0])
def test_lira_by_hand(logit: float) -> None:
    """A record whose phi is the logit; both sides have a standard deviation of their own."""
    tokens = [-math.log1p(math.exp(-logit))]
    seen = one(tokens, shadows=two_sided([1.0, 2.0, 3.0], [-4.0, 0.0, 4.0]))
    expected = distributions.norm.logpdf(logit, 2.0, 1.0) - distributions.norm.logpdf(logit, 0.0, 4.0)
    assert Lira(few=2).suspicion(seen) == pytest.approx([expected])
    above = distributions.norm.cdf(logit / 4.0)
    assert Lira(few=2, mode="offline").suspicion(seen) == pytest.approx([math.log(above / (1 - above))])


def test_with_few_shadows_the_deviation_is_that_of_all_records() -> None:
    """One record's shadows lie 1 apart, the other's 3: pooled variance (0.5 + 4.5) / 2 on both."""
    phi = np.array([[0.0, 0.0], [1.0, 3.0], [0.0, 0.0], [1.0, 3.0]])
    shadows = shadows_of(phi, np.array([[1, 1], [1, 1], [0, 0], [0, 0]]))
    seen = SimulatedSubject(token_log_probs=[np.log([0.5])] * 2, shadows=shadows)
    above = distributions.norm.cdf([-0.5 / math.sqrt(2.5), -1.5 / math.sqrt(2.5)])
    np.testing.assert_allclose(Lira(mode="offline").suspicion(seen), np.log(above / (1 - above)))
    np.testing.assert_allclose(Lira().suspicion(seen), 0.0, atol=1e-12)


def test_lira_finds_members_that_are_hard_where_the_loss_attack_does_not() -> None:
    """Records differ in difficulty by far more than membership adds; shadows know each record's own."""
    draw = np.random.default_rng(0)
    hard, member = draw.normal(0, 5, 400), np.arange(400) < 200
    trained_on = draw.permuted(np.arange(64)[:, None] % 2 == np.zeros(400), axis=0)
    shadows = shadows_of(hard + 1.0 * trained_on + draw.normal(0, 0.3, (64, 400)), trained_on)
    phi = hard + 1.0 * member + draw.normal(0, 0.3, 400)
    seen = SimulatedSubject(token_log_probs=list(-np.log1p(np.exp(-phi))[:, None]), shadows=shadows)
    online, offline, loss = (found for found in (Lira().suspicion(seen), Lira(mode="offline").suspicion(seen), phi))
    assert stats.area(online[member], online[~member]).value > 0.95
    assert stats.area(offline[member], offline[~member]).value > 0.95
    assert stats.area(loss[member], loss[~member]).value < 0.65


def test_records_without_shadows_on_a_side_are_counted_and_refused() -> None:
    seen = one([-1.0], shadows=two_sided([], [1.0, 2.0]))
    with pytest.raises(UnmeasurableError, match=r"1 of 1 records have no shadow model trained on them.*or set `mode: offline`"):
        Lira().suspicion(seen)
    assert np.isfinite(Lira(mode="offline").suspicion(seen)).all()
    with pytest.raises(UnmeasurableError, match="1 of 1 records have no shadow model that never saw them, expected at least one"):
        Lira(mode="offline").suspicion(one([-1.0], shadows=two_sided([1.0, 2.0], [])))


def test_one_model_has_no_deviation() -> None:
    with pytest.raises(ConfigError, match="few must be at least 2"):
        Lira(few=1)
