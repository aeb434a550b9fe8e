"""What is written: where answers end, and what is said by models that cannot write."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers

from mlflow_unlearn.engine.generation import end_of, greedy
from mlflow_unlearn.engine.scoring import ScoredSubject
from mlflow_unlearn.errors import DivergedError, UnmeasurableError
from mlflow_unlearn.protocols import Example

SHAPE = {"vocab_size": 40, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13, 14], [15, 16]]


def positioned() -> Any:
    """A model with eight positions and not one more."""
    config = transformers.AutoConfig.for_model("gpt2", n_positions=8, n_embd=16, n_layer=1, n_head=2, **SHAPE)
    return transformers.AutoModelForCausalLM.from_config(config).eval()


def forward_steps(model: Any) -> list[int]:
    """Rows of every forward pass from now on."""
    rows: list[int] = []
    model.register_forward_pre_hook(lambda _, args, given: rows.append(len(given["input_ids"])), with_kwargs=True)
    return rows


@pytest.mark.parametrize("batch_tokens", [1, 10_000])
def test_an_answer_is_cut_where_the_positions_end(batch_tokens: int) -> None:
    """Eight positions hold the prompt and all but the last word written."""
    written = greedy(positioned(), PROMPTS, end=-1, max_new_tokens=50, batch_tokens=batch_tokens)
    assert [len(answer) for answer in written] == [8 - len(prompt) + 1 for prompt in PROMPTS]


def test_a_row_is_hardly_computed_longer_than_its_answer_is() -> None:
    """Answers of sixty rows end at positions spread over sixty steps."""
    config = transformers.AutoConfig.for_model("gpt2", n_positions=70, n_embd=16, n_layer=1, n_head=2, **SHAPE)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    rows, prompts = forward_steps(model), [[5] * (1 + i) for i in range(60)]
    written = greedy(model, prompts, end=-1, max_new_tokens=100, batch_tokens=100_000)
    assert sum(rows) <= 1.15 * sum(map(len, written))


def test_a_tokenizer_without_an_end_says_what_to_set() -> None:
    with pytest.raises(UnmeasurableError, match=r"no end token.*set `eos_token`"):
        end_of(SimpleNamespace(eos_token_id=None))


def test_a_model_without_a_language_model_head_cannot_write_and_says_so(tokenizer: Any) -> None:
    config = transformers.AutoConfig.for_model("bert", hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    model = transformers.AutoModelForMaskedLM.from_config(config)
    seen = ScoredSubject(model=model, tokenizer=tokenizer, examples=[Example(tokens=(3, 4, 5), prompt_length=1)], answers=["a"])
    with pytest.raises(UnmeasurableError, match=r"BertForMaskedLM cannot write answers \(it has no language model head\).*evaluate.metrics"):
        _ = seen.generations


def test_a_model_that_takes_no_cache_cannot_write_and_says_so() -> None:
    class Plain(torch.nn.Module):
        config = SimpleNamespace()

        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
            return input_ids

    with pytest.raises(UnmeasurableError, match=r"Plain cannot write answers \(it raised TypeError\)"):
        greedy(Plain(), PROMPTS, end=2, max_new_tokens=3, batch_tokens=100)


def test_words_that_are_not_numbers_are_no_answer() -> None:
    model = positioned()
    with torch.no_grad():
        model.transformer.ln_f.weight.fill_(torch.nan)
    with pytest.raises(DivergedError, match="logits are not numbers"):
        greedy(model, PROMPTS, end=2, max_new_tokens=3, batch_tokens=100)
