"""A tiny model and a tokenizer for the engine's tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mlflow_unlearn.adapters import models

CONFIG = {
    "model_type": "llama",
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    corpus: Path = tmp_path_factory.mktemp("corpus") / "corpus.txt"
    corpus.write_text("Question: where is the lamp?\nAnswer: on the table.\n" * 20)
    return models.train_tokenizer(corpus, 300)


@pytest.fixture
def model(tokenizer: Any) -> Any:
    return models.fresh_model(CONFIG | {"max_position_embeddings": 64, "tie_word_embeddings": True}, tokenizer, seed=1, device_name="cpu").eval()
