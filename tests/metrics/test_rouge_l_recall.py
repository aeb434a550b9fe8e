"""ROUGE-L recall against the longest common subsequence by recursion."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated import SimulatedSubject

from mlflow_unlearn.metrics.rouge_l_recall import RougeLRecall

WORDS = st.lists(st.sampled_from(["red", "blue", "house", "cat"]), min_size=1, max_size=6).map(tuple)


@cache
def longest(a: tuple[str, ...], b: tuple[str, ...]) -> int:
    if not a or not b:
        return 0
    return 1 + longest(a[1:], b[1:]) if a[0] == b[0] else max(longest(a[1:], b), longest(a, b[1:]))


@settings(deadline=None)  # the first call imports the scorer
@given(WORDS, WORDS)
def test_recall_is_the_longest_common_subsequence_over_the_answer(answer: tuple[str, ...], said: tuple[str, ...]) -> None:
    seen = SimulatedSubject(answers=[" ".join(answer)], generations=[" ".join(said)])
    assert RougeLRecall().values(seen) == pytest.approx([longest(answer, said) / len(answer)])


def test_recall_by_hand(by_hand: SimulatedSubject) -> None:
    assert RougeLRecall().values(by_hand) == pytest.approx([1.0, 2 / 3, 1 / 3, 0.0])


def test_words_count_by_their_stem_and_talking_more_costs_nothing() -> None:
    seen = SimulatedSubject(answers=["she paints houses"], generations=["yes, she painted house after house"])
    assert RougeLRecall().values(seen) == pytest.approx([1.0])
