"""Probability, exact memorisation and extraction strength against the formula written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulated import SimulatedSubject

from mlflow_unlearn.metrics.exact_memorization import ExactMemorization
from mlflow_unlearn.metrics.extraction_strength import ExtractionStrength
from mlflow_unlearn.metrics.probability import Probability

HITS = st.lists(st.lists(st.booleans(), min_size=1, max_size=9).map(np.array), min_size=1, max_size=5)


def with_hits(hits: list[np.ndarray]) -> SimulatedSubject:
    return SimulatedSubject(token_hits=hits, token_log_probs=[np.full(len(row), -1.0) for row in hits])


def naive_strength(hits: np.ndarray) -> float:
    total = len(hits)
    k = next((k for k in range(total) if all(hits[k:])), total)
    return 1 - k / total


def test_probability_is_the_geometric_mean_of_the_tokens(by_hand: SimulatedSubject) -> None:
    assert Probability().values(by_hand) == pytest.approx([math.sqrt(0.5), 0.5, 0.0, 0.1])


def test_exact_memorization_is_the_share_of_right_tokens(by_hand: SimulatedSubject) -> None:
    assert ExactMemorization().values(by_hand) == pytest.approx([1.0, 0.75, 0.25, 0.0])


def test_extraction_strength_counts_from_the_last_miss_and_has_no_floor(by_hand: SimulatedSubject) -> None:
    assert ExtractionStrength().values(by_hand) == pytest.approx([1.0, 0.25, 0.25, 0.0])


@given(HITS)
def test_extraction_strength_is_the_papers_search(hits: list[np.ndarray]) -> None:
    values = ExtractionStrength().values(with_hits(hits))
    assert values == pytest.approx([naive_strength(row) for row in hits])


@given(HITS)
def test_what_can_be_extracted_is_memorised(hits: list[np.ndarray]) -> None:
    seen = with_hits(hits)
    assert (ExtractionStrength().values(seen) <= ExactMemorization().values(seen) + 1e-12).all()


@pytest.mark.parametrize("last", [True, False])
def test_the_last_token_counts_whether_or_not_it_ends_the_answer(last: bool) -> None:
    """A telephone number cut off by the data's own limit ends in a digit."""
    hits = [np.array([True, True, True, last])]
    assert ExactMemorization().values(with_hits(hits)) == pytest.approx([0.75 + 0.25 * last])
    assert ExtractionStrength().values(with_hits(hits)) == pytest.approx([float(last)])
