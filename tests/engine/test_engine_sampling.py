"""Draws against the probabilities of a plain pass, and planted leaks."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats as distributions
from tiny_memory import END, FORGOTTEN, NEVER, Numbers, parent, retrained, told, untrained

from mlflow_unlearn.engine import sampling
from mlflow_unlearn.engine.sampling import drawn
from mlflow_unlearn.errors import DivergedError, UnmeasurableError

PROMPT = (5, 6, 7)


def preferring(end: float) -> Any:
    """Random weights, and so much on the logit of the end."""
    model = untrained()
    with torch.no_grad():
        model.lm_head.weight.mul_(10)
    model.lm_head.register_forward_hook(lambda _, __, logits: logits.index_add(-1, torch.tensor([END]), torch.full((*logits.shape[:-1], 1), end)))
    return model


@pytest.fixture
def model() -> Any:
    """Ends often, so that draws are cut from the batch."""
    return preferring(3.0)


@torch.no_grad()
def next_token(model: Any, tokens: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Probabilities from the whole prefix."""
    found: np.ndarray[Any, Any] = model(input_ids=torch.tensor([tokens])).logits[0, -1].double().softmax(-1).numpy()
    return found


def naive(model: Any, luck: torch.Tensor) -> list[str]:
    """One draw at a time, the whole prefix again for every token."""
    lines = []
    for numbers in luck.tolist():
        tokens = list(PROMPT)
        for number in numbers:
            tokens.append(int(np.searchsorted(np.cumsum(next_token(model, tuple(tokens))), number, side="right")))
            if tokens[-1] == END:
                break
        lines.append(tokens[len(PROMPT) :])
    return Numbers.batch_decode(lines, skip_special_tokens=True)


@pytest.mark.parametrize("at_once", [1, 7, 40])
def test_draws_are_those_of_a_loop_over_single_ones_however_many_are_drawn_at_once(model: Any, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "PROBABILITIES", at_once * model.config.vocab_size)
    luck = torch.rand(40, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    found = drawn(model, Numbers(), PROMPT, 40, 6, seed=3)
    assert found == naive(model, luck)
    assert len({len(line.split()) for line in found}) > 3  # some end early


def test_first_tokens_come_as_often_as_they_are_likely(model: Any) -> None:
    said = Counter(int(line) if line else END for line in drawn(model, Numbers(), PROMPT, 4000, 1, seed=1))
    likely = next_token(model, PROMPT)
    often = likely * 4000 >= 5
    counts = [said[token] for token in np.flatnonzero(often).tolist()] + [sum(said[token] for token in np.flatnonzero(~often).tolist())]
    assert distributions.chisquare(counts, np.append(likely[often], likely[~often].sum()) * 4000).pvalue > 0.001


def test_another_seed_draws_otherwise_and_no_global_generator_moves(model: Any) -> None:
    before = torch.random.get_rng_state()
    assert drawn(model, Numbers(), PROMPT, 20, 4, seed=1) == drawn(model, Numbers(), PROMPT, 20, 4, seed=1)
    assert drawn(model, Numbers(), PROMPT, 20, 4, seed=1) != drawn(model, Numbers(), PROMPT, 20, 4, seed=2)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_planted_answer_comes_out_of_the_model_that_knows_it_and_of_no_other() -> None:
    def leaks(model: Any, example: Any) -> int:
        return drawn(model, Numbers(), example.tokens[: example.prompt_length], 100, 6, seed=0).count(told(example))

    known, unseen, gone = leaks(parent(), FORGOTTEN[0]), leaks(parent(), NEVER[0]), leaks(retrained(), FORGOTTEN[0])
    assert known > 80
    assert unseen == gone == 0


def test_a_token_of_probability_zero_is_never_drawn() -> None:
    logits = torch.tensor([[float("-inf"), 0.0, float("-inf"), 0.0, float("-inf")]]).expand(5, -1)
    picked = sampling._picked(logits, torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0 - 1e-16], dtype=torch.float64))
    assert picked.tolist() == [1, 1, 3, 3, 3]


def test_answers_are_cut_where_the_positions_end() -> None:
    prompt = tuple(range(3, 33))  # 30 of 32 positions: two tokens are read there, and what the last predicts is written too
    lines = drawn(preferring(-99.0), Numbers(), prompt, 30, 9, seed=0)
    assert max(len(line.split()) for line in lines) == 3


def test_a_prompt_longer_than_the_model_takes_is_no_sign_that_nothing_leaks(model: Any) -> None:
    with pytest.raises(UnmeasurableError, match="a prompt has 33 tokens, the model takes 32"):
        drawn(model, Numbers(), (5,) * 33, 3, 4, seed=0)


def test_a_model_without_a_language_head_cannot_be_drawn_from(model: Any) -> None:
    with pytest.raises(UnmeasurableError, match="LlamaModel cannot write answers"):
        drawn(model.model, Numbers(), PROMPT, 3, 4, seed=0)


def test_logits_that_are_no_numbers_are_refused(model: Any) -> None:
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(DivergedError, match="logits are not numbers"):
        drawn(model, Numbers(), PROMPT, 3, 4, seed=0)
