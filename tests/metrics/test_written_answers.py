"""What is measured of texts: MUSE's memorisation scores and fluency, against formulas written out."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated import SimulatedSubject

from mlflow_unlearn.metrics.fluency import Fluency
from mlflow_unlearn.metrics.knowledge_memorization import KnowledgeMemorization
from mlflow_unlearn.metrics.verbatim_memorization import VerbatimMemorization

WORDS = st.lists(st.sampled_from(["red", "blue", "house", "cat"]), max_size=12)


def said(text: str, answer: str = "") -> SimulatedSubject:
    return SimulatedSubject(answers=[answer], generations=[text])


def test_a_continuation_is_scored_by_f1_of_its_words_as_they_are() -> None:
    """Of four words three are right and in order, of five true ones three are found; "house" is not "houses"."""
    seen = said("the red cat sat", "the red big cat houses")
    assert VerbatimMemorization().values(seen) == pytest.approx([2 * (3 / 4) * (3 / 5) / (3 / 4 + 3 / 5)])
    assert VerbatimMemorization().values(said("house", "houses")) == pytest.approx([0.0])


def test_an_answer_is_judged_by_what_comes_before_the_next_question() -> None:
    seen = said("in Bamako\nQuestion: who else?\nAnswer: in Bamako", "in Bamako")
    assert KnowledgeMemorization().values(seen) == pytest.approx([1.0])
    assert VerbatimMemorization().values(seen)[0] < 1.0


def test_recall_forgives_talking_more_and_f1_does_not() -> None:
    seen = said("she lives in Bamako now", "Bamako")
    assert KnowledgeMemorization(score="recall").values(seen) == pytest.approx([1.0])
    assert KnowledgeMemorization().values(seen) == pytest.approx([2 * (1 / 5) / (1 / 5 + 1)])


def naive_entropy(words: list[str], n: int) -> float:
    counts = Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
    return -sum(count / counts.total() * math.log2(count / counts.total()) for count in counts.values())


@settings(deadline=None)
@given(WORDS)
def test_fluency_is_the_weighted_entropy_of_pairs_and_triples(words: list[str]) -> None:
    expected = (2 / 3 * naive_entropy(words, 2) + 4 / 3 * naive_entropy(words, 3)) / 2
    assert Fluency().values(said(" ".join(words))) == pytest.approx([expected])


def test_fluency_by_hand() -> None:
    """Five different words have four pairs and three triples, each once."""
    assert Fluency().values(said("one two three four five")) == pytest.approx([(2 / 3 * 2 + 4 / 3 * math.log2(3)) / 2])
    assert Fluency().values(said("no no no no no")) == pytest.approx([0.0])
    assert Fluency().values(SimulatedSubject(generations=["", "one"])).tolist() == [0.0, 0.0]


def test_what_stands_beside_words_is_a_word_of_its_own() -> None:
    assert Fluency().values(said("a, b")) == Fluency().values(said("a ; b"))
    assert np.isfinite(Fluency().values(said("...\n\t!"))).all()
