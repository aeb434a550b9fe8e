"""Every method of the catalog, LoRA over a rounded base and two processes, as the stage runs them on real sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from ruamel.yaml import YAML
from safetensors.torch import load_file
from small_project import Project

from mlflow_unlearn import catalog
from mlflow_unlearn.digests import tensor_digest
from mlflow_unlearn.stages.unlearn import run
from mlflow_unlearn.stages.workbench import Workbench

pytestmark = pytest.mark.e2e
SETTINGS: dict[str, dict[str, Any]] = {"rmu": {"layer": 0, "trained_layers": 1}, "retrain": {"epochs": 1}}
"""What defaults made for large models do not fit: the model has one layer."""


@pytest.fixture(scope="module")
def asked(project: Project) -> Project:
    """One request, split and checked."""
    project.must("mlflow-unlearn", "request", "add", "--subjects", "-", "--basis", "gdpr_17", stdin=project.people()[5])
    project.must("dvc", "repro", "-q", "validate")
    return project


def unlearned(project: Project, monkeypatch: pytest.MonkeyPatch, method: dict[str, Any], **params: Any) -> dict[str, Any]:
    """The stage in this process; its document."""
    path = project.folder / "params.yaml"
    document = YAML(typ="safe").load(path)
    kept = {key: value for key, value in document["unlearn"].items() if key not in ("lora", "dtype", "processes")}  # of an earlier test
    document["unlearn"] = {**kept, "method": method, "optimiser": {"epochs": 1, "learning_rate": 1e-3, "batch_size": 64}, **params}
    YAML().dump(document, path)
    monkeypatch.chdir(project.folder)
    run(Workbench(project.folder))
    return json.loads((project.folder / "build/approximate/unlearned.json").read_bytes())


def weights(project: Project) -> dict[str, torch.Tensor]:
    return load_file(project.folder / "build/approximate/model/model.safetensors")


def parent(project: Project) -> dict[str, torch.Tensor]:
    (file,) = (path for path in Path(project.folder / "build/train/customers").glob("*.safetensors"))
    return load_file(file)


@pytest.mark.parametrize("name", catalog.names("methods"))
def test_every_method_writes_other_weights_and_says_how(asked: Project, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    record = unlearned(asked, monkeypatch, {"name": name, **SETTINGS.get(name, {})})
    folder = asked.folder / "build/approximate/model"
    assert (record["method"]["name"], record["tensor_digest"]) == (name, tensor_digest(folder.glob("*.safetensors")))
    assert record["steps"] == len(record["losses"]) > 0
    assert any(not torch.equal(value, parent(asked)[key]) for key, value in weights(asked).items())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_adapters_are_added_to_the_parents_own_weights(asked: Project, monkeypatch: pytest.MonkeyPatch, dtype: str) -> None:
    """Rank one changes each matrix by rank one, and nothing else: not even rounding."""
    unlearned(asked, monkeypatch, {"name": "npo"}, lora={"rank": 1, "target_modules": ["q_proj"]}, dtype=dtype)
    for key, value in weights(asked).items():
        change = value - parent(asked)[key]
        assert value.dtype == torch.float32
        assert bool(change.any()) is ("q_proj" in key)
        if change.any():
            singular = torch.linalg.svdvals(change)
            assert singular[1] < 1e-4 * singular[0]


def test_two_processes_write_the_weights_of_one(asked: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = unlearned(asked, monkeypatch, {"name": "npo"}), weights(asked)
    (asked.folder / "build/approximate/unlearned.json").unlink()  # as DVC does before it runs a stage
    together = unlearned(asked, monkeypatch, {"name": "npo"}, processes=2), weights(asked)
    torch.testing.assert_close(together[1], alone[1], atol=2e-4, rtol=1e-4)  # AdamW divides a gradient by its own size: rounding shows
    assert (together[0]["steps"], together[0]["kept_step"]) == (alone[0]["steps"], alone[0]["kept_step"])
    assert [step["loss"] for step in together[0]["losses"]] == pytest.approx([step["loss"] for step in alone[0]["losses"]], rel=1e-4)


def test_an_error_in_one_of_several_processes_ends_all_in_words(
    asked: Project, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from mlflow_unlearn.errors import UnlearnError

    with pytest.raises(UnlearnError, match="one of 2 processes ended with an error, which stands above"):
        unlearned(asked, monkeypatch, {"name": "rmu", "layer": 7}, processes=2)
    assert "layer 7: the model has 1 decoder layers" in capfd.readouterr().err
