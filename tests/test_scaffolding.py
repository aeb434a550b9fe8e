import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from mlflow_unlearn import config
from mlflow_unlearn.commands.scaffolding import scaffold
from mlflow_unlearn.policy import Policy

ROOT = Path(__file__).parents[1]


@pytest.fixture
def repository(tmp_path, monkeypatch):
    (tmp_path / ".git").mkdir()
    (tmp_path / ".dvc").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_UNLEARN_TAG_KEY_FILE", raising=False)
    return tmp_path


def test_init_writes_a_pipeline_whose_params_are_valid(repository):
    scaffold(Path("unlearn"), "churn", "data/train.parquet")
    params = config.load_params(repository / "unlearn/params.yaml")
    assert (params.model.name, params.data.name, params.data.path) == ("churn", "train", "../data/train.parquet")
    assert config.load_policy(repository / "unlearn/policy.yaml") == Policy()


def test_init_never_overwrites(repository):
    mine = repository / "unlearn/params.yaml"
    mine.parent.mkdir()
    mine.write_text("mine")
    first = scaffold(Path("unlearn"))
    key = (repository / ".unlearn/tag.key").read_bytes()
    second = scaffold(Path("unlearn"))
    assert mine.read_text() == "mine"
    assert "unlearn/params.yaml" in first["kept"]
    assert (second["created"], second["key"]) == ([], "kept")
    assert (repository / ".unlearn/tag.key").read_bytes() == key


def test_private_state_ignores_itself(repository):
    scaffold(Path("unlearn"))
    assert (repository / ".unlearn/.gitignore").read_text().splitlines()[-1] == "*"


def test_a_repository_that_runs_our_stages_only_gets_a_key(repository):
    (repository / "dvc.yaml").write_text("stages: {trace: {cmd: mlflow-unlearn stage trace}}")
    scaffold(Path("unlearn"))
    assert not (repository / "unlearn").exists()


@pytest.mark.parametrize(
    ("ours", "scaffolded"),
    [
        ("dvc.yaml", "dvc.yaml"),
        ("policy.yaml", "policy.yaml"),
        *((f"pipelines/routes/{route}/dvc.yaml", f"routes/{route}/dvc.yaml") for route in ("approximate", "exact")),
    ],
)
def test_the_scaffold_is_the_pipeline_of_this_project(ours, scaffolded):
    """But for the base of the shards: ours is a folder that a stage makes, and DVC takes no hub id for a file."""
    relocated = (ROOT / ours).read_text().replace("../../../params.yaml", "../../params.yaml").replace("wdir: ../../..", "wdir: ../..")
    relocated = re.sub(
        r"- (\$\{exact\.base\}) .*", r"# - \1        # uncomment this where the base is a folder here, so that DVC watches it", relocated
    )
    assert (ROOT / "mlflow_unlearn/scaffold" / scaffolded).read_text() == relocated


@pytest.mark.parametrize("route", ["approximate", "exact"])
def test_a_stage_of_the_scaffold_depends_on_what_another_makes_or_what_is_there_whatever_the_base_is_called(repository, route):
    scaffold(Path("unlearn"))
    stages = {}
    for path in ("dvc.yaml", f"routes/{route}/dvc.yaml"):
        stages |= YAML(typ="safe").load((repository / "unlearn" / path).read_text().replace("${unlearn.strategy}", route))["stages"]
    made = [next(iter(out)) if isinstance(out, dict) else out for stage in stages.values() for out in stage["outs"]]
    asked = {dep for stage in stages.values() for dep in stage["deps"]}
    assert {dep for dep in asked if not any(dep == out or out.startswith(f"{dep}/") or dep.startswith(f"{out}/") for out in made)} == {
        "${data.path}",
        "policy.yaml",
    }
