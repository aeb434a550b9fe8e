"""A stage killed at any moment loses nothing: the next `dvc repro` completes, and only one version is registered."""

from __future__ import annotations

import json

import pytest
from small_project import Project, kill_during

pytestmark = pytest.mark.e2e
STAGES = ("index", "trace", "split", "validate", "pipelines/routes/approximate/dvc.yaml:unlearn", "evaluate", "judge", "register")


@pytest.fixture(scope="module")
def asked(project: Project) -> Project:
    """One open request; nothing has run yet."""
    project.must("mlflow-unlearn", "request", "add", "--subjects", "-", "--basis", "ccpa", stdin=project.people()[5])
    return project


@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_stage_is_completed_by_the_next_run(asked: Project, stage: str) -> None:
    kill_during(asked, stage)
    asked.must("dvc", "repro", "-q", stage)
    assert not [path for path in asked.folder.rglob("build/**/.*") if path.name.startswith((".new", ".model."))]


def test_after_all_kills_one_version_is_registered_and_nothing_is_left_to_do(asked: Project) -> None:
    asked.must("dvc", "repro", "-q")
    versions = asked.client().search_model_versions("name = 'customers'")
    assert sorted(version.version for version in versions) in ([1, 2], ["1", "2"])
    before = (asked.folder / "build/registered.json").read_bytes()
    asked.must("dvc", "repro", "-q")
    assert (asked.folder / "build/registered.json").read_bytes() == before


UNLEARN = "pipelines/routes/approximate/dvc.yaml:unlearn"


def test_a_killed_unlearning_goes_on_where_it_was_and_ends_with_the_same_weights(asked: Project) -> None:
    asked.edit_params({"unlearn": {"checkpoint_minutes": 0, "optimiser": {"epochs": 12}, "selection": {"every": 3, "forget_target": 0.0}}})
    asked.must("dvc", "repro", "-q", "validate")
    kill_during(asked, UNLEARN, once_there="build/raw/unlearning/run/state.pt")
    asked.must("dvc", "repro", "-q", UNLEARN)
    resumed = json.loads((asked.folder / "build/approximate/unlearned.json").read_bytes())
    asked.must("dvc", "repro", "-q", "--single-item", "--force", UNLEARN)
    whole = json.loads((asked.folder / "build/approximate/unlearned.json").read_bytes())
    assert [note for note in resumed["notes"] if note.startswith("taken up after step")]
    assert not [note for note in whole["notes"] if note.startswith("taken up after step")]
    assert {key: resumed[key] for key in ("tensor_digest", "losses", "kept_step")} == {k: whole[k] for k in ("tensor_digest", "losses", "kept_step")}
    assert not (asked.folder / "build/raw/unlearning/run/state.pt").exists()
