"""A tiny model that has learned a handful of records by heart, for probes that have to find or not to find them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
import transformers

from mlflow_unlearn.engine.descent import fit
from mlflow_unlearn.params import OptimiserParams
from mlflow_unlearn.protocols import Example

END = 2
LEARNING = OptimiserParams(epochs=60, learning_rate=1e-2, batch_size=16, schedule="constant")
SIZES = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": END,
}


class Numbers:
    """A tokenizer that writes tokens as numbers."""

    eos_token_id = END

    @staticmethod
    def batch_decode(lines: Sequence[Sequence[int]], skip_special_tokens: bool) -> list[str]:
        return [" ".join(str(token) for token in line if not skip_special_tokens or token > END) for line in lines]


def told(example: Example) -> str:
    """The answer as `Numbers` writes it."""
    return " ".join(str(token) for token in example.tokens[example.prompt_length : -1])


def strangers(count: int, seed: int) -> list[Example]:
    """Three tokens of prompt, three of answer, the end; all drawn."""
    drawn = torch.randint(3, 61, (count, 6), generator=torch.Generator().manual_seed(seed)).tolist()
    return [Example(tokens=(*tokens, END), prompt_length=3) for tokens in drawn]


def untrained(architecture: str = "llama") -> Any:
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(0)
        return transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(architecture, **SIZES)).eval()


def taught(examples: Sequence[Example], settings: OptimiserParams = LEARNING, seed: int = 0) -> Any:
    """A fresh model that was trained on examples."""
    model = untrained()
    for _ in fit(model, examples, settings, seed, 0):
        pass
    return model.eval()


FORGOTTEN, KEPT, NEVER = strangers(8, 1), strangers(8, 2), strangers(8, 3)


@cache
def _knowing(everything: bool) -> Any:
    return taught([*FORGOTTEN, *KEPT] if everything else KEPT)


def parent() -> Any:
    """Knows what is to be forgotten and what is kept."""
    return copy.deepcopy(_knowing(True))


def retrained() -> Any:
    """Knows what is kept."""
    return copy.deepcopy(_knowing(False))


@torch.no_grad()
def mean_log_probs(model: Any, examples: Sequence[Example]) -> torch.Tensor:
    """(examples,) mean log-probability of the answers, one record at a time."""
    found = []
    for example in examples:
        tokens = torch.tensor([example.tokens])
        log_probs = model(input_ids=tokens).logits[0, :-1].log_softmax(-1).gather(1, tokens[0, 1:, None])[:, 0]
        found.append(log_probs[example.prompt_length - 1 :].mean())
    return torch.stack(found)
