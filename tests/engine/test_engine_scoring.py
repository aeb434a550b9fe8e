"""Scoring and generation against one record at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from mlflow_unlearn.engine.examples import encode
from mlflow_unlearn.engine.generation import greedy
from mlflow_unlearn.engine.reference import mean_losses
from mlflow_unlearn.engine.scoring import ScoredSubject
from mlflow_unlearn.protocols import Example

PROMPTS = ["Where?", "where is the lamp?", "on the table", "t", "Question: where is the table? Answer:"]
ANSWERS = ["on", "the table.", "lamp", "on the table.", "w"]


@pytest.fixture
def examples(tokenizer: Any) -> list[Example]:
    return encode(tokenizer, "{prompt} ", PROMPTS, ANSWERS)


@pytest.fixture
def subject(model: Any, tokenizer: Any, examples: list[Example]) -> ScoredSubject:
    return ScoredSubject(model=model, tokenizer=tokenizer, examples=examples, answers=ANSWERS, batch_tokens=64, max_new_tokens=6)


def restless(model: Any) -> Any:
    """Random weights large enough that answers differ and some of them end."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.default_generator.manual_seed(11)
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.6)
    return model


@torch.no_grad()
def naive_greedy(model: Any, prompt: tuple[int, ...], end: int, max_new_tokens: int) -> list[int]:
    """The whole prefix again for every token."""
    tokens = list(prompt)
    for _ in range(max_new_tokens):
        tokens.append(int(model(input_ids=torch.tensor([tokens])).logits[0, -1].argmax()))
        if tokens[-1] == end:
            return tokens[len(prompt) : -1]
    return tokens[len(prompt) :]


@pytest.mark.parametrize("batch_tokens", [1, 60, 10_000])
@pytest.mark.parametrize("end", [2, 5, 60])
def test_greedy_answers_equal_a_loop_over_single_records(model: Any, examples: list[Example], batch_tokens: int, end: int) -> None:
    model = restless(model)
    prompts = [example.tokens[: example.prompt_length] for example in examples]
    naive = [naive_greedy(model, prompt, end, 12) for prompt in prompts]
    assert greedy(model, prompts, end=end, max_new_tokens=12, batch_tokens=batch_tokens) == naive


def test_rows_that_ended_are_dropped_without_touching_the_others(model: Any, examples: list[Example]) -> None:
    """End tokens chosen so that answers end at different steps."""
    model = restless(model)
    prompts = [example.tokens[: example.prompt_length] for example in examples]
    endless = [naive_greedy(model, prompt, -1, 12) for prompt in prompts]
    for end in {token for answer in endless for token in answer}:
        expected = [answer[: answer.index(end)] if end in answer else answer for answer in endless]
        assert greedy(model, prompts, end=end, max_new_tokens=12, batch_tokens=10_000) == expected


@torch.no_grad()
def test_one_pass_gives_the_log_probs_and_hits_of_single_records(model: Any, subject: ScoredSubject, examples: list[Example]) -> None:
    for i, example in enumerate(examples):
        tokens = torch.tensor(example.tokens)
        log_probs = model(input_ids=tokens[None]).logits[0].double().log_softmax(-1)
        places = range(example.prompt_length, len(tokens))
        np.testing.assert_allclose(subject.token_log_probs[i], [float(log_probs[t - 1, tokens[t]]) for t in places], atol=1e-5)
        assert subject.token_hits[i].tolist() == [int(log_probs[t - 1].argmax()) == int(tokens[t]) for t in places]


def test_each_property_is_computed_once(subject: ScoredSubject) -> None:
    assert subject.token_log_probs is subject.token_log_probs
    assert subject.generations is subject.generations
    assert len(subject.generations) == len(PROMPTS)


def test_generations_are_text_without_special_tokens(subject: ScoredSubject) -> None:
    assert all("<eos>" not in text and text == text.strip() for text in subject.generations)


def test_an_empty_set_scores_to_nothing(model: Any, tokenizer: Any) -> None:
    subject = ScoredSubject(model=model, tokenizer=tokenizer, examples=[], answers=[])
    assert (list(subject.token_log_probs), list(subject.token_hits), list(subject.generations)) == ([], [], [])


def test_mean_losses_do_not_depend_on_the_batch(model: Any, examples: list[Example]) -> None:
    torch.testing.assert_close(mean_losses(model, examples, 0, 10), mean_losses(model, examples, 0, 10_000), atol=1e-5, rtol=0)
