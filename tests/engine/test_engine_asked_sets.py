"""Benchmark sets in a model's tokens: every answer with its own record, texts as they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from benchmark_folders import record

from mlflow_unlearn.engine.asked_sets import Asked
from mlflow_unlearn.errors import DataError

TEXTS = ["on the table", "where is the lamp?", "the lamp is on the table."]


@pytest.fixture
def asked(model: Any, tokenizer: Any) -> Asked:
    return Asked(model=model, tokenizer=tokenizer, batch_tokens=256)


@torch.no_grad()
def plain(model: Any, tokens: list[int], start: int) -> np.ndarray:
    """Log-probabilities of the tokens from `start` on, one record in a pass of its own."""
    log_probs = model(input_ids=torch.tensor([tokens])).logits[0].double().log_softmax(-1)
    return np.array([float(log_probs[place - 1, tokens[place]]) for place in range(start, len(tokens))])


def test_other_and_wrong_answers_stay_with_their_record(asked: Asked) -> None:
    records = [
        record("where?", "on", wrong_answers=("the", "lamp")),
        record("where is it?", "the table", paraphrased_answer="on the table"),
        record("what?", "a lamp", paraphrased_answer="the lamp", wrong_answers=("table",)),
    ]
    subject = asked.questions(records, "{prompt} ", 4, "set")
    alone = [asked.questions([each], "{prompt} ", 4, "set") for each in records]
    for i, own in enumerate(alone):
        assert [len(each) for each in subject.wrong_log_probs][i] == len(records[i].wrong_answers)
        np.testing.assert_allclose(subject.paraphrased_log_probs[i], own.paraphrased_log_probs[0], atol=1e-5)
        for wrong, single in zip(subject.wrong_log_probs[i], own.wrong_log_probs[0], strict=True):
            np.testing.assert_allclose(wrong, single, atol=1e-5)


def test_a_wrong_answer_scores_as_if_it_were_the_true_one(asked: Asked) -> None:
    swapped = asked.questions([record("where?", "the lamp")], "{prompt} ", 4, "set").token_log_probs[0]
    subject = asked.questions([record("where?", "on", wrong_answers=("the lamp",), paraphrased_answer="the lamp")], "{prompt} ", 4, "set")
    np.testing.assert_allclose(subject.wrong_log_probs[0][0], swapped, atol=1e-5)
    np.testing.assert_allclose(subject.paraphrased_log_probs[0], swapped, atol=1e-5)


def test_every_token_of_a_text_but_the_first_is_predicted_and_no_end_is_added(asked: Asked, model: Any, tokenizer: Any) -> None:
    subject = asked.texts(TEXTS, 64, "set")
    for text, found in zip(TEXTS, subject.token_log_probs, strict=True):
        np.testing.assert_allclose(found, plain(model, tokenizer(text)["input_ids"], 1), atol=1e-5)


def test_a_long_text_is_cut_to_what_is_looked_at_and_to_what_the_model_takes(asked: Asked) -> None:
    long = " ".join(TEXTS * 20)
    assert [len(asked.texts([long], most, "set").token_log_probs[0]) for most in (10, 1000)] == [9, 63]


def test_a_text_without_a_second_token_is_refused_by_count(asked: Asked) -> None:
    with pytest.raises(DataError, match="set: 2 of 3 texts have fewer than two tokens"):
        asked.texts(["", "t", "on the table"], 64, "set")


def test_a_continuation_is_cut_after_as_many_tokens_as_are_written(asked: Asked, tokenizer: Any) -> None:
    subject = asked.begun([record("where is", "the lamp on the table. " * 3), record("on", "the lamp")], 5, "set")
    assert subject.answers[1] == "the lamp"
    assert subject.answers[0] == tokenizer.decode(tokenizer("the lamp on the table. " * 3)["input_ids"][:5])
    assert subject.max_new_tokens == 5


def test_records_longer_than_the_model_takes_are_refused_with_both_lengths(asked: Asked) -> None:
    for wrong in ({}, {"wrong_answers": ("lamp " * 80,)}, {"paraphrased_answer": "lamp " * 80}):
        with pytest.raises(DataError, match=r"some set: the longest record has \d+ tokens, the model takes 64"):
            asked.questions([record("where?", "on" if wrong else "lamp " * 80, **wrong)], "{prompt}", 4, "some set")


def test_empty_sets_stay_empty(asked: Asked) -> None:
    for subject in (asked.questions([], "{prompt}", 4, "set"), asked.texts([], 64, "set"), asked.begun([], 4, "set")):
        assert (len(subject.answers), len(subject.token_log_probs)) == (0, 0)
