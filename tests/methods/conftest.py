"""A tiny model that methods may change, and one optimiser batch for it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from plain_formulas import FORGET, RETAIN

from mlflow_unlearn.config import OptimiserParams
from mlflow_unlearn.engine.batches import Sets, batches_of, unlearning_plan
from mlflow_unlearn.protocols import Batch

OPTIMISER = OptimiserParams(epochs=3, learning_rate=1e-2, batch_size=4, token_budget=1000)


@pytest.fixture
def model() -> Any:
    config = transformers.AutoConfig.for_model(
        "llama",
        vocab_size=32,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(1)
        return transformers.AutoModelForCausalLM.from_config(config).eval()


@pytest.fixture
def batches() -> list[Batch]:
    rows = next(unlearning_plan(len(FORGET), len(RETAIN), OPTIMISER, 0))
    return batches_of(rows, Sets(forget=FORGET, retain=RETAIN, pad=0), OPTIMISER.token_budget)
