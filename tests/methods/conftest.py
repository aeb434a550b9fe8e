"""A tiny model that methods may change, and one optimiser batch for it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from plain_formulas import FORGET, RETAIN, mean_nll

from mlflow_unlearn.engine.batches import Sets, batches_of, collate, unlearning_plan
from mlflow_unlearn.params import OptimiserParams
from mlflow_unlearn.protocols import Batch

OPTIMISER = OptimiserParams(epochs=3, learning_rate=1e-2, batch_size=4, token_budget=1000)


def tiny(**more: Any) -> Any:
    return transformers.AutoConfig.for_model(
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
        **more,
    )


@pytest.fixture
def model() -> Any:
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(1)
        return transformers.AutoModelForCausalLM.from_config(tiny()).eval()


@pytest.fixture
def knowing(model: Any) -> Any:
    """The model once it knows its records: on one that does not, bounded losses are flat and a test of them sees the retain loss alone."""
    records = collate([*FORGET, *RETAIN], range(len(FORGET) + len(RETAIN)), 0)
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-2)
    for _ in range(15):
        optimiser.zero_grad()
        mean_nll(model, records).backward()
        optimiser.step()
    model.zero_grad(set_to_none=True)
    return model


@pytest.fixture
def classifier() -> Any:
    """Tells three classes apart."""
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(2)
        return transformers.AutoModelForSequenceClassification.from_config(tiny(num_labels=3)).eval()


@pytest.fixture
def batches() -> list[Batch]:
    rows = next(unlearning_plan(len(FORGET), len(RETAIN), OPTIMISER, 0))
    return batches_of(rows, Sets(forget=FORGET, retain=RETAIN, pad=0), OPTIMISER.token_budget)
