"""A training script as a user writes it: `from_dvc`, `log_input`, `log_model`; the registry reads its lineage and weights back."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import mlflow
import pytest

from mlflow_unlearn.adapters import models
from mlflow_unlearn.adapters.registry import connect
from mlflow_unlearn.config import Settings
from mlflow_unlearn.digests import tensor_digest
from mlflow_unlearn.errors import LineageError

CONFIG = {"model_type": "llama", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "data.csv").write_text("id\n1\n")
    dvc = str(Path(sys.executable).parent / "dvc")
    for line in (("git", "init", "-q"), (dvc, "init", "-q"), (dvc, "add", "-q", "data.csv")):
        subprocess.run(line, cwd=tmp_path, check=True, capture_output=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_three_lines_tie_a_version_to_its_data_and_weights(repository: Path, mlflow_store: str) -> None:
    registry = connect(Settings(root=repository, tag_key_file=repository, ledger_uri="", tracking_uri=mlflow_store), "customers")
    (repository / "corpus.txt").write_text("where is the lamp?\n")
    tokenizer = models.train_tokenizer(repository / "corpus.txt", 300)
    model = models.fresh_model(CONFIG, tokenizer, 0, "cpu")
    dataset = mlflow.data.from_dvc("data.csv", name="customers")
    with mlflow.start_run():
        mlflow.log_input(dataset, context="training")
        parts = {"model": model, "tokenizer": tokenizer}
        mlflow.transformers.log_model(parts, name="model", task="text-generation", registered_model_name="customers", pip_requirements=["torch"])
    lineage = registry.lineages()[0]
    assert (lineage.datasets, lineage.problem) == ({"customers": dataset.digest}, None)
    models.save_model(model, tokenizer, repository / "m")
    assert registry.tensor_digest(lineage.model) == tensor_digest((repository / "m").glob("*.safetensors"))
    assert (registry.verdicts(lineage.model), registry.document(lineage.model, "evaluation")) == ((), None)


def test_a_version_of_another_flavor_has_no_files_to_unlearn(repository: Path, mlflow_store: str) -> None:
    registry = connect(Settings(root=repository, tag_key_file=repository, ledger_uri="", tracking_uri=mlflow_store), "customers")
    (repository / "pickle").mkdir()
    registry.client.create_registered_model("customers")
    registry.client.create_model_version("customers", (repository / "pickle").as_uri())
    with pytest.raises(LineageError, match=r"customers/1: no safetensors .* log it with mlflow\.transformers\.log_model"):
        registry.files(registry.resolve("models:/customers/1"))
