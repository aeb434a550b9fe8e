"""The model that shards start from: found by folder, version or hub id, known by its weights and its tokenizer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from ensemble_files import small_base
from safetensors.torch import load_file, save_file

from mlflow_unlearn.adapters import bases
from mlflow_unlearn.adapters.bases import BaseFiles, fetch
from mlflow_unlearn.digests import tensor_digest
from mlflow_unlearn.errors import ConfigError


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_base(tmp_path_factory.mktemp("bases") / "base")


@pytest.fixture
def base(saved: Path, tmp_path: Path) -> BaseFiles:
    return fetch(str(shutil.copytree(saved, tmp_path / "base")))


def known(base: BaseFiles) -> tuple[str, str]:
    """Digest of the weights and of the tokenizer."""
    return base.pinned.tensor_digest, base.pinned.tokenizer_digest


def test_a_folder_is_its_own_base_and_its_digest_that_of_its_weights(saved: Path) -> None:
    found = fetch(str(saved))
    assert (found.reference, found.model, found.tokenizer) == (str(saved), saved, saved)
    assert found.pinned.tensor_digest == tensor_digest([saved / "model.safetensors"])


def test_other_weights_move_their_digest_alone(base: BaseFiles) -> None:
    before, path = known(base), base.model / "model.safetensors"
    tensors = load_file(path)
    save_file({name: value + 1 for name, value in tensors.items()}, path)
    assert [now == then for now, then in zip(known(base), before, strict=True)] == [False, True]


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"])
def test_another_tokenizer_moves_its_digest_alone(base: BaseFiles, name: str) -> None:
    before = known(base)
    with (base.tokenizer / name).open("a") as stream:
        stream.write(" ")
    assert [now == then for now, then in zip(known(base), before, strict=True)] == [True, False]


@pytest.mark.parametrize("name", ["README.md", "generation_config.json", ".gitattributes", "pytorch_model.bin", "onnx/model.onnx"])
def test_files_that_are_neither_weights_nor_tokenizer_move_nothing(base: BaseFiles, name: str) -> None:
    before = known(base)
    (base.model / name).parent.mkdir(exist_ok=True)
    (base.model / name).write_text("something else")
    assert known(base) == before


def test_weights_in_several_files_are_the_same_weights(base: BaseFiles) -> None:
    before, path = known(base), base.model / "model.safetensors"
    tensors = load_file(path)
    path.unlink()
    for number, names in enumerate((sorted(tensors)[::2], sorted(tensors)[1::2])):
        save_file({name: tensors[name] for name in names}, base.model / f"model-{number}.safetensors")
    (base.model / "model.safetensors.index.json").write_text("{}")
    assert known(base) == before


def test_a_classifier_is_one_by_its_configuration_and_loads_as_one(saved: Path, tmp_path: Path) -> None:
    found = fetch(str(small_base(tmp_path / "base", ("yes", "no"))))
    assert (fetch(str(saved)).task, found.task) == ("causal", "classification")
    model, tokenizer = bases.load(found, "cpu", "bfloat16")
    assert (type(model).__name__, model.config.label2id) == ("LlamaForSequenceClassification", {"yes": 0, "no": 1})
    assert (model.training, model.dtype, tokenizer.pad_token_id) == (False, torch.bfloat16, 0)


def registered(base: BaseFiles, uri: str, tmp_path: Path) -> str:
    """The base logged as MLflow's own flavour does it."""
    import mlflow

    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment(experiment_id=mlflow.create_experiment("x", artifact_location=str(tmp_path / "artifacts")))
    model, tokenizer = bases.load(base, "cpu")
    kinds = {"task": "text-generation", "pip_requirements": []}
    logged = mlflow.transformers.log_model({"model": model, "tokenizer": tokenizer}, name="model", registered_model_name="base", **kinds)
    return f"models:/base/{logged.registered_model_version}"


@pytest.mark.e2e
def test_a_registered_version_is_the_same_base(base: BaseFiles, mlflow_store: str, tmp_path: Path) -> None:
    reference = registered(base, mlflow_store, tmp_path)
    found = fetch(reference)
    assert found.reference == reference
    assert found.pinned.tensor_digest == base.pinned.tensor_digest
    assert fetch(reference).pinned == found.pinned
    assert bases.load(found, "cpu")[1]("the lamp")["input_ids"] == bases.load(base, "cpu")[1]("the lamp")["input_ids"]


@pytest.mark.e2e
@pytest.mark.parametrize("reference", ["models:/base/7", "models:/base", "models:/base@champion"])
def test_a_version_that_is_not_registered_is_said(mlflow_store: str, monkeypatch: pytest.MonkeyPatch, reference: str) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_store)
    with pytest.raises(ConfigError, match=f"{reference}: MLflow does not give it .*; check the name, the version and MLFLOW_TRACKING_URI"):
        fetch(reference)


@pytest.mark.parametrize("reference", ["../nowhere", "/nowhere/at/all", "~/base", "nowhere", "build/base/customers"])
def test_a_folder_that_is_not_there_is_not_asked_of_the_hub(reference: str) -> None:
    with pytest.raises(ConfigError, match=f"{reference}: no such folder, and not a hub id; correct exact.base"):
        fetch(reference)


@pytest.mark.parametrize("reference", ["nobody/nothing", "nobody/nothing@main", "nobody/nothing@refs/pr/1", "nobody/no thing"])
def test_a_hub_id_that_cannot_be_reached_is_said(reference: str) -> None:
    with pytest.raises(ConfigError, match=f"{reference}: neither a folder here nor a model that the hub gives"):
        fetch(reference)


def without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def without_configuration(folder: Path) -> None:
    (folder / "config.json").unlink()


def of_another_kind(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"architectures": ["NobodyForSequenceClassification"], "model_type": "nobody"}))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (without_weights, "no safetensors files; save the base with `save_pretrained`"),
        (without_configuration, r"no readable config\.json; expected a folder as `save_pretrained` writes it"),
        (of_another_kind, r"no classifier that transformers can load \(ValueError\)"),
    ],
)
def test_a_folder_that_is_no_model_is_said(base: BaseFiles, damage: Callable[[Path], None], words: str) -> None:
    damage(base.model)
    with pytest.raises(ConfigError, match=words):
        _ = base.pinned, bases.load(base, "cpu")
