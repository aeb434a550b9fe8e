"""What MLflow's transformers flavor and PEFT themselves write about a base model is read back: nothing here is written by hand."""

from __future__ import annotations

from pathlib import Path

import mlflow
import pytest
import transformers
from registered_models import MD5, registry_at

from mlflow_unlearn.adapters import models
from mlflow_unlearn.adapters.registry import Registry
from mlflow_unlearn.adapters.registry_references import UNREGISTERED
from mlflow_unlearn.params import LoraParams
from mlflow_unlearn.plugin.dataset_constructor import DvcDataset
from mlflow_unlearn.plugin.dataset_source import DvcDatasetSource

CONFIG = {"model_type": "llama", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.fixture
def registry(mlflow_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.chdir(tmp_path)
    return registry_at(tmp_path, mlflow_store)


def logged(model: object, tokenizer: object, name: str, **how: object) -> None:
    """Log and register as a training script does."""
    with mlflow.start_run():
        mlflow.log_input(DvcDataset(source=DvcDatasetSource(path="data", md5=MD5), name="customers", digest=MD5))
        parts = {"model": model, "tokenizer": tokenizer}
        mlflow.transformers.log_model(parts, name="model", task="text-generation", registered_model_name=name, pip_requirements=["torch"], **how)


def trained_base(tmp_path: Path) -> tuple[object, object]:
    (tmp_path / "corpus.txt").write_text("where is the lamp?\n")
    tokenizer = models.train_tokenizer(tmp_path / "corpus.txt", 300)
    return models.fresh_model(CONFIG, tokenizer, 0, "cpu"), tokenizer


def adapter_of(folder: Path) -> object:
    base = transformers.AutoModelForCausalLM.from_pretrained(folder)
    return models.with_lora(base, LoraParams(rank=2, target_modules=("q_proj",)), 0)


def test_a_lora_adapter_over_a_registered_model_descends_from_it(registry: Registry, tmp_path: Path) -> None:
    model, tokenizer = trained_base(tmp_path)
    logged(model, tokenizer, "base")
    files = registry.files(registry.resolve("models:/base/1"))
    logged(adapter_of(files.model), tokenizer, "adapter", base_model_path=str(files.model))
    (found,) = registry.lineages("adapter")
    assert [(str(each.parent), each.relation) for each in found.ancestors] == [("base/1", "adapter")]
    assert (found.datasets, found.problem) == ({"customers": MD5}, None)


def test_a_model_fine_tuned_from_the_files_of_a_registered_one_descends_from_it(registry: Registry, tmp_path: Path) -> None:
    model, tokenizer = trained_base(tmp_path)
    logged(model, tokenizer, "base")
    files = registry.files(registry.resolve("models:/base/1"))
    logged(transformers.AutoModelForCausalLM.from_pretrained(files.model), tokenizer, "tuned")
    assert [(str(each.parent), each.relation) for each in registry.lineages("tuned")[0].ancestors] == [("base/1", "fine-tuned")]


def test_a_lora_adapter_over_a_model_that_nobody_registered_is_unknown(registry: Registry, tmp_path: Path) -> None:
    model, tokenizer = trained_base(tmp_path)
    models.save_model(model, tokenizer, tmp_path / "outside")
    logged(adapter_of(tmp_path / "outside"), tokenizer, "adapter", base_model_path=str(tmp_path / "outside"))
    assert registry.lineages("adapter")[0].problem == UNREGISTERED
