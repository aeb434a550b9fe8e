"""`mlflow.data.from_dvc` and its source, on real Git, DVC and MLflow."""

from __future__ import annotations

import json
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from mlflow_unlearn.errors import ConfigError, LineageError
from mlflow_unlearn.plugin.dataset_source import DvcDatasetSource


def recorded(tracking_file: Path) -> str:
    return next(line.split()[-1] for line in tracking_file.read_text().splitlines() if "md5: " in line)


def test_the_digest_is_what_dvc_records(repository: Path) -> None:
    for path, file in (("data/train", "data/train.dvc"), ("data/one.csv", "data/one.csv.dvc")):
        assert mlflow.data.from_dvc(path).digest == recorded(repository / file)


def test_it_says_the_same_from_any_folder(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = mlflow.data.from_dvc("data/train")
    monkeypatch.chdir(repository / "data")
    there = mlflow.data.from_dvc("train")
    assert (there.digest, there.name, there.source.to_dict()) == (here.digest, "train", here.source.to_dict())


def test_changed_data_are_never_called_by_the_recorded_digest(repository: Path, command: object) -> None:
    before = mlflow.data.from_dvc("data/train").digest
    (repository / "data/train/a.csv").write_text("id\n1\n9\n")
    changed = mlflow.data.from_dvc("data/train").digest
    assert changed != before
    command("dvc", "add", "-q", "data/train")  # type: ignore[operator]
    assert recorded(repository / "data/train.dvc") == changed


def test_a_file_that_came_or_went_changes_the_digest(repository: Path) -> None:
    before = mlflow.data.from_dvc("data/train").digest
    (repository / "data/train/new.csv").write_text("id\n")
    came = mlflow.data.from_dvc("data/train").digest
    (repository / "data/train/new.csv").unlink()
    assert came != before == mlflow.data.from_dvc("data/train").digest


def test_a_revision_is_read_from_git_whatever_lies_in_the_workspace(repository: Path, command: object) -> None:
    first = mlflow.data.from_dvc("data/train").digest
    (repository / "data/train/a.csv").write_text("id\n5\n")
    command("dvc", "add", "-q", "data/train")  # type: ignore[operator]
    command("git", "commit", "-qam", "second")  # type: ignore[operator]
    assert mlflow.data.from_dvc("data/train", rev="HEAD~1").digest == first != mlflow.data.from_dvc("data/train", rev="HEAD").digest


def test_another_digest_than_expected_is_refused(repository: Path) -> None:
    with pytest.raises(LineageError, match=r"data/train: expected md5 0000, found .*dvc checkout"):
        mlflow.data.from_dvc("data/train", digest="0000")


def test_what_dvc_does_not_track_is_refused(repository: Path) -> None:
    with pytest.raises(LineageError, match=r"params\.yaml: not a DVC output here; run `dvc add"):
        mlflow.data.from_dvc("params.yaml")
    with pytest.raises(LineageError, match=r"params\.yaml: not a DVC output at HEAD"):
        mlflow.data.from_dvc("params.yaml", rev="HEAD")


def test_outside_a_repository_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="not inside a git repository"):
        mlflow.data.from_dvc("data")


def test_a_run_is_found_by_its_data_and_gives_the_source_back(repository: Path, mlflow_store: str) -> None:
    mlflow.set_tracking_uri(mlflow_store)
    dataset = mlflow.data.from_dvc("data/train", name="customers")
    with mlflow.start_run() as run:
        mlflow.log_input(dataset, context="training")
    found = MlflowClient(mlflow_store).search_runs(["0"], f"dataset.digest = '{dataset.digest}'")
    assert [each.info.run_id for each in found] == [run.info.run_id]
    entity = found[0].inputs.dataset_inputs[0].dataset
    assert (entity.name, entity.source_type) == ("customers", "dvc")
    assert mlflow.data.get_source(entity).to_dict() == dataset.source.to_dict()


def test_loading_brings_back_the_bytes_of_that_state(repository: Path) -> None:
    source = mlflow.data.from_dvc("data/train").source
    (repository / "data/train/a.csv").unlink()
    folder = Path(source.load())
    assert (folder / "a.csv").read_text() == "id\n1\n"
    assert (folder / "deep/b.csv").read_text() == "id\n2\n"


def test_a_source_survives_its_own_description() -> None:
    source = DvcDatasetSource(path="data", md5="a" * 32, rev="main")
    assert DvcDatasetSource.from_dict(json.loads(json.dumps(source.to_dict()))).to_dict() == source.to_dict()


def test_digests_fit_into_mlflow(repository: Path) -> None:
    assert len(mlflow.data.from_dvc("data/train").digest) == 36
