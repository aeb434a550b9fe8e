"""MUSE's table: from numbers by hand, with whatever is missing named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from benchmark_folders import spoken

from mlflow_unlearn.muse_report import measure, report
from mlflow_unlearn.records import Direction

STATES = ("original", "unlearned", "retrained")


def subjects(known: float, seed: int = 0, **changed: Any) -> dict[str, Any]:
    """Forgotten texts are as probable as `known`, unseen ones about 0.3."""
    rng = np.random.default_rng(seed)
    told = spoken([0.5] * 10, said="by the window")
    texts = {"forget_texts": spoken(known * rng.uniform(0.9, 1.0, 30)), "unseen_texts": spoken(0.3 * rng.uniform(0.9, 1.0, 30))}
    return {"verbatim": told, "forget_questions": told, "retain_questions": told, **texts} | changed


def test_rouge_of_two_right_words_in_three() -> None:
    scores = report({"unlearned": measure(subjects(0.3))}, 100, 0).states["unlearned"].scores
    assert {name: score.value for name, score in scores.items()} == {name: pytest.approx(2 / 3) for name in scores}
    assert len(scores) == 3


def test_what_is_kept_should_be_high_and_the_rest_low() -> None:
    scores = report({"unlearned": measure(subjects(0.3))}, 100, 0).states["unlearned"].scores
    assert scores["retain_questions/knowledge_memorization"].direction is Direction.HIGHER
    assert scores["forget_questions/knowledge_memorization"].direction is scores["verbatim/verbatim_memorization"].direction is Direction.LOWER


@pytest.mark.parametrize(("known", "words"), [(0.9, "under-unlearned"), (0.01, "over-unlearned"), (0.3, "undecided")])
def test_the_leak_of_what_is_known_shunned_or_like_the_rest(known: float, words: str) -> None:
    states = report({"unlearned": measure(subjects(known)), "retrained": measure(subjects(0.3, seed=1))}, 100, 0).states
    leak = states["unlearned"].leak
    assert leak is not None
    assert leak.reading == words
    assert states["retrained"].leak is None


def test_without_a_retrained_model_there_is_no_leak_against_one_half() -> None:
    found = report({"unlearned": measure(subjects(0.9))}, 100, 0).states["unlearned"]
    assert found.leak is None
    assert "AUC of 0.5 would be no reference" in found.absent["privacy leak"]


def test_without_unseen_texts_the_leak_is_absent_and_so_is_the_set() -> None:
    less = [measure({name: each for name, each in subjects(0.9).items() if name != "unseen_texts"}) for _ in range(2)]
    found = report(dict(zip(("unlearned", "retrained"), less, strict=True)), 100, 0).states["unlearned"]
    assert (found.leak, "privacy leak" in found.absent) == (None, True)
    assert found.absent["unseen_texts/min_k"] == "the data do not have this set"


def test_states_keep_their_order_and_the_retrained_one_has_nothing_absent() -> None:
    states = report({name: measure(subjects(0.3, seed=i)) for i, name in enumerate(reversed(STATES))}, 100, 0).states
    assert tuple(states) == STATES
    assert not states["retrained"].absent
