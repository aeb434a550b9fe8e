"""The example's training script starts from a local model as well as from a config, and trains adapters as well as full weights."""

from __future__ import annotations

import json

import pytest
from ruamel.yaml import YAML
from small_project import Project

from mlflow_unlearn.digests import tensor_digest

pytestmark = pytest.mark.e2e


def test_a_local_model_with_lora_becomes_a_version_with_lineage(project: Project) -> None:
    (project.folder / "build/train/customers").rename(project.folder / "build/base")
    project.edit_params({"train": {"init": "build/base", "lora": {"rank": 4, "alpha": 8}, "optimiser": {"epochs": 1}}})
    project.must("dvc", "repro", "-q", "pipelines/customers/dvc.yaml:train")
    config = json.loads((project.folder / "build/train/customers/config.json").read_bytes())
    assert config["initialised_from"] == "build/base"
    run = project.client().get_run(project.client().get_model_version("customers", "2").run_id)
    assert [each.dataset.source_type for each in run.inputs.dataset_inputs] == ["dvc"]
    assert run.data.tags["unlearn.base"] == tensor_digest((project.folder / "build/base").glob("*.safetensors"))
    person = project.people()[1]
    asked = project.json("mlflow-unlearn", "request", "add", "--subjects", "-", "--basis", "safety", stdin=person)["request_id"]
    traced = project.json("mlflow-unlearn", "trace", asked)
    assert [line["model"]["version"] for line in traced["affected"]] == ["1", "2"]
    project.must("mlflow-unlearn", "request", "refuse", asked, "--reason", "withdrawn")
    before = {path.name: path.read_bytes() for path in (project.folder / "build/base").glob("*.safetensors")}
    assert before != {path.name: path.read_bytes() for path in (project.folder / "build/train/customers").glob("*.safetensors")}


def test_retrain_is_a_method_like_any_other_and_stays_undecided_until_replayed(project: Project) -> None:
    path = project.folder / "params.yaml"
    parameters = YAML(typ="safe").load(path)
    parameters["unlearn"]["method"] = {"name": "retrain", "base": "scratch", "epochs": 2}
    YAML().dump(parameters, path)
    project.must("mlflow-unlearn", "request", "add", "--subjects", "-", "--basis", "gdpr_17", stdin=project.people()[2])
    project.must("dvc", "repro", "-q")
    removal = next(each for each in project.document("verdict")["verdicts"] if each["effect"] == "removal")
    assert project.document("approximate/unlearned")["claim"] == "exact"
    assert removal["outcome"] == "INCONCLUSIVE"
    assert any(reason.startswith("replay: not measured") for reason in removal["reasons"])
