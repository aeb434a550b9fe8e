"""Both versions together against a loop that runs each on the whole prefix, and a planted erasure."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_memory import END, FORGOTTEN, KEPT, NEVER, Numbers, mean_log_probs, parent, retrained, told

from mlflow_unlearn.engine.generation import greedy
from mlflow_unlearn.engine.two_versions import Guided, guided_answers
from mlflow_unlearn.errors import UnmeasurableError
from mlflow_unlearn.protocols import Example

LONGER = [Example(tokens=(*range(3, 3 + length), END), prompt_length=length) for length in (2, 9, 5)]
PROMPTS = [example.tokens[: example.prompt_length] for example in (*FORGOTTEN, *KEPT, *LONGER)]


@torch.no_grad()
def naive(before: Any, after: Any, prompt: tuple[int, ...], weight: float, most: int) -> list[int]:
    tokens = list(prompt)
    while len(tokens) < len(prompt) + most:
        old, new = (model(input_ids=torch.tensor([tokens])).logits[0, -1].log_softmax(-1) for model in (before, after))
        tokens.append(int((new + weight * (old - new)).argmax()))
        if tokens[-1] == END:
            return tokens[len(prompt) : -1]
    return tokens[len(prompt) :]


@pytest.mark.parametrize("weight", [0.5, 1.5, 3.0])
def test_guided_answers_are_those_of_a_loop_over_whole_prefixes(weight: float) -> None:
    before, after = parent(), retrained()
    expected = [naive(before, after, prompt, weight, 6) for prompt in PROMPTS]
    assert guided_answers(before, after, Numbers(), PROMPTS, weight, 6) == Numbers.batch_decode(expected, skip_special_tokens=True)


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_the_ends_of_the_scale_are_the_new_version_alone_and_the_old_one_alone(weight: float) -> None:
    alone = greedy(parent() if weight else retrained(), PROMPTS, end=END, max_new_tokens=6, batch_tokens=999)
    assert guided_answers(parent(), retrained(), Numbers(), PROMPTS, weight, 6) == Numbers.batch_decode(alone, skip_special_tokens=True)


def test_even_a_retrain_beside_its_parent_gives_the_forgotten_away_and_nothing_never_seen() -> None:
    def out(examples: list[Example]) -> int:
        said = guided_answers(parent(), retrained(), Numbers(), [each.tokens[:3] for each in examples], 1.5, 6)
        return sum(line == told(each) for line, each in zip(said, examples, strict=True))

    fallen = [mean_log_probs(parent(), each) - mean_log_probs(retrained(), each) for each in (FORGOTTEN, NEVER)]
    assert (out(FORGOTTEN), out(NEVER)) == (len(FORGOTTEN), 0)
    assert fallen[0].min() > fallen[1].max()


def test_a_token_that_both_versions_forbid_stays_forbidden_and_all_scores_are_numbers() -> None:
    before, after = parent(), retrained()
    for model in (before, after):
        model.lm_head.register_forward_hook(lambda _, __, logits: logits.index_fill(-1, torch.tensor([7]), float("-inf")))
    logits = Guided(before, after, 1.5)(input_ids=torch.tensor([PROMPTS[0]]), use_cache=True).logits
    assert bool(logits.isfinite().all())
    assert (logits[..., 7] == -1e4).all()


def test_versions_with_other_vocabularies_are_not_compared() -> None:
    other = retrained()
    other.resize_token_embeddings(62)
    with pytest.raises(UnmeasurableError, match="the old one knows 61 tokens and the new one 62"):
        guided_answers(parent(), other, Numbers(), PROMPTS, 1.5, 6)
