"""`mlflow.data.from_dvc` and its source, on real Git, DVC and MLflow."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from plugin_repository import IDENTITY, Command

from mlflow_unlearn.errors import ConfigError, LineageError, StoreError, TamperedError
from mlflow_unlearn.plugin.dataset_source import DvcDatasetSource

COMMIT = ("git", "commit", "-qm", "data")


def git_and_dvc(folder: Path, *lines: tuple[str, ...]) -> None:
    for program, *arguments in lines:
        line = ["git", *IDENTITY, *arguments] if program == "git" else [str(Path(sys.executable).parent / program), *arguments]
        subprocess.run(line, cwd=folder, check=True, capture_output=True)


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


def test_changed_data_are_never_called_by_the_recorded_digest(repository: Path, command: Command) -> None:
    before = mlflow.data.from_dvc("data/train").digest
    (repository / "data/train/a.csv").write_text("id\n1\n9\n")
    changed = mlflow.data.from_dvc("data/train").digest
    assert changed != before
    command("dvc", "add", "-q", "data/train")
    assert recorded(repository / "data/train.dvc") == changed


def test_a_file_that_came_or_went_changes_the_digest(repository: Path) -> None:
    before = mlflow.data.from_dvc("data/train").digest
    (repository / "data/train/new.csv").write_text("id\n")
    came = mlflow.data.from_dvc("data/train").digest
    (repository / "data/train/new.csv").unlink()
    assert came != before == mlflow.data.from_dvc("data/train").digest


def test_a_revision_is_read_from_git_whatever_lies_in_the_workspace(repository: Path, command: Command) -> None:
    first = mlflow.data.from_dvc("data/train").digest
    (repository / "data/train/a.csv").write_text("id\n5\n")
    command("dvc", "add", "-q", "data/train")
    command("git", "commit", "-qam", "second")
    assert mlflow.data.from_dvc("data/train", rev="HEAD~1").digest == first != mlflow.data.from_dvc("data/train", rev="HEAD").digest


def test_another_digest_than_expected_is_refused(repository: Path) -> None:
    with pytest.raises(LineageError, match=r"data/train: expected md5 0000, found .*dvc checkout"):
        mlflow.data.from_dvc("data/train", digest="0000")


def test_what_dvc_does_not_track_is_refused(repository: Path) -> None:
    with pytest.raises(LineageError, match=r"params\.yaml: not a DVC output here; run `dvc add"):
        mlflow.data.from_dvc("params.yaml")
    with pytest.raises(LineageError, match=r"params\.yaml: not a DVC output at HEAD"):
        mlflow.data.from_dvc("params.yaml", rev="HEAD")


def test_a_folder_of_several_outputs_is_refused_with_their_names(repository: Path) -> None:
    with pytest.raises(LineageError, match=r"data: no DVC output itself, but holds data/one\.csv, data/train; name each of them"):
        mlflow.data.from_dvc("data")


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


def test_several_datasets_of_one_run_are_all_found(repository: Path, mlflow_store: str) -> None:
    mlflow.set_tracking_uri(mlflow_store)
    with mlflow.start_run() as run:
        for path in ("data/train", "data/one.csv"):
            mlflow.log_input(mlflow.data.from_dvc(path), context="training")
    inputs = mlflow.get_run(run.info.run_id).inputs.dataset_inputs
    assert sorted(each.dataset.name for each in inputs) == ["one", "train"]


def test_a_part_stands_for_the_output_that_trace_knows(repository: Path) -> None:
    whole, part = mlflow.data.from_dvc("data/train"), mlflow.data.from_dvc("data/train/deep/b.csv")
    assert (part.digest, part.name) == (whole.digest, "b")
    assert (part.source.path, part.source.part, part.source.dirty) == ("data/train", "deep/b.csv", False)
    assert {file.name: file.read_text() for file in Path(part.source.load()).iterdir()} == {"b.csv": "id\n2\n"}
    folder = Path(mlflow.data.from_dvc("data/train/deep", rev="HEAD").source.load())
    assert [file.name for file in folder.iterdir()] == ["b.csv"]


def test_a_part_of_which_nothing_else_is_here_is_still_of_the_output(repository: Path) -> None:
    whole = mlflow.data.from_dvc("data/train")
    (repository / "data/train/a.csv").unlink()
    part = mlflow.data.from_dvc("data/train/deep/b.csv")
    assert (part.digest, part.source.dirty) == (whole.digest, False)
    (repository / "data/train/deep/b.csv").write_text("id\n7\n")
    changed = mlflow.data.from_dvc("data/train/deep/b.csv")
    assert (changed.digest != whole.digest, changed.source.dirty) == (True, True)


def test_a_part_that_nobody_knows_is_refused(repository: Path) -> None:
    with pytest.raises(LineageError, match=r"data/train: neither here nor as recorded does it hold gone\.csv"):
        mlflow.data.from_dvc("data/train/gone.csv")


def test_dirty_says_that_the_commit_does_not_hold_these_bytes(repository: Path, command: Command) -> None:
    assert mlflow.data.from_dvc("data/train").source.dirty is False
    (repository / "data/train/a.csv").write_text("id\n8\n")
    assert mlflow.data.from_dvc("data/train").source.dirty is True
    command("dvc", "add", "-q", "data/train")
    assert mlflow.data.from_dvc("data/train").source.dirty is True
    command("git", "commit", "-qam", "second")
    assert mlflow.data.from_dvc("data/train").source.dirty is False


def test_data_that_are_not_checked_out_keep_their_recorded_digest(repository: Path) -> None:
    shutil.rmtree(repository / "data/train")
    dataset = mlflow.data.from_dvc("data/train")
    assert (dataset.digest, dataset.source.dirty) == (recorded(repository / "data/train.dvc"), False)


def test_a_source_names_commit_and_repository_without_credentials(repository: Path, command: Command) -> None:
    head = command("git", "rev-parse", "HEAD")
    assert mlflow.data.from_dvc("data/train", rev="HEAD").source.repository == f"git-root:{head}"
    command("git", "remote", "add", "origin", "https://alice:secret@example.org/team/data.git")
    command("git", "tag", "v1")
    source = mlflow.data.from_dvc("data/train", rev="v1").source
    assert (source.rev, source.repository, source.repo) == (head, "https://example.org/team/data.git", None)
    assert "secret" not in source.to_json()


def test_dvc_2s_data_keep_their_digest_though_line_ends_were_unified(repository: Path) -> None:
    (repository / "data/one.csv").write_bytes(b"id\r\n3\r\n")
    unified = hashlib.md5(b"id\n3\n").hexdigest()
    (repository / "data/one.csv.dvc").write_text(f"outs:\n- md5: {unified}\n  path: one.csv\n")
    assert mlflow.data.from_dvc("data/one.csv").digest == unified
    (repository / "data/one.csv.dvc").write_text(f"outs:\n- md5: {unified}\n  hash: md5\n  path: one.csv\n")
    assert mlflow.data.from_dvc("data/one.csv").digest == hashlib.md5(b"id\r\n3\r\n").hexdigest()


def test_without_git_the_digest_is_still_true_and_no_commit_is_claimed(repository: Path) -> None:
    shutil.rmtree(repository / ".git")
    source = mlflow.data.from_dvc("data/train").source
    assert (source.md5, source.rev, source.repository, source.dirty) == (recorded(repository / "data/train.dvc"), None, None, True)
    with pytest.raises(LineageError, match="no git repository here, so there is no revision to read"):
        mlflow.data.from_dvc("data/train", rev="HEAD")


def test_a_project_in_a_folder_of_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub/data").mkdir(parents=True)
    (tmp_path / "sub/data/x.csv").write_text("id\n1\n")
    git_and_dvc(tmp_path, ("git", "init", "-q"))
    git_and_dvc(tmp_path / "sub", ("dvc", "init", "-q", "--subdir"), ("dvc", "add", "-q", "data/x.csv"), ("git", "add", "-A"), COMMIT)
    monkeypatch.chdir(tmp_path / "sub")
    source = mlflow.data.from_dvc("data/x.csv").source
    assert (source.path, source.md5, source.dirty) == ("sub/data/x.csv", recorded(tmp_path / "sub/data/x.csv.dvc"), False)
    assert (Path(source.load()) / "x.csv").read_text() == "id\n1\n"


def test_a_worktree_has_the_same_data(repository: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    here = mlflow.data.from_dvc("data/train").source
    command("git", "worktree", "add", "-q", str(tmp_path / "tree"))
    monkeypatch.chdir(tmp_path / "tree")
    assert mlflow.data.from_dvc("data/train").source.to_dict() == here.to_dict()


def test_another_repository_by_its_folder(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = mlflow.data.from_dvc("data/train")
    monkeypatch.chdir(tmp_path)
    for rev in (None, "HEAD"):
        there = mlflow.data.from_dvc("data/train", repo=str(repository), rev=rev)
        assert (there.digest, there.source.rev, there.source.repo) == (here.digest, here.source.rev, str(repository))
    assert (Path(there.source.load()) / "a.csv").read_text() == "id\n1\n"


def test_another_repository_by_its_url(repository: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    here = mlflow.data.from_dvc("data/train/deep")
    command("dvc", "remote", "add", "-d", "store", str(tmp_path / "store"))
    command("dvc", "push", "-q")
    command("git", "commit", "-qam", "remote")
    monkeypatch.chdir(tmp_path)
    there = mlflow.data.from_dvc("data/train/deep", repo=repository.as_uri())
    assert (there.digest, there.source.part, there.source.dirty) == (here.digest, "deep", False)
    assert [file.read_text() for file in Path(there.source.load()).iterdir()] == ["id\n2\n"]


def test_an_import_from_another_repository(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = mlflow.data.from_dvc("data/train")
    (tmp_path / "other").mkdir()
    lines = ("git", "init", "-q"), ("dvc", "init", "-q"), ("dvc", "import", "-q", str(repository), "data/train", "-o", "mine")
    git_and_dvc(tmp_path / "other", *lines, ("git", "add", "-A"), COMMIT)
    monkeypatch.chdir(tmp_path / "other")
    imported = mlflow.data.from_dvc("mine")
    assert (imported.digest, imported.source.path, imported.source.dirty) == (here.digest, "mine", False)


def test_an_address_that_leads_nowhere_is_refused_without_its_secrets(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="git cannot clone it; check the address") as refusal:
        mlflow.data.from_dvc("data", repo=f"https://alice:secret@localhost:1/{tmp_path.name}")
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize("path", ["data/train", "data/one.csv"])
def test_loading_brings_back_the_bytes_of_that_state(repository: Path, path: str) -> None:
    source = mlflow.data.from_dvc(path).source
    before = {
        file.relative_to(repository / "data").name: file.read_text()
        for file in (repository / path, *(repository / path).rglob("*"))
        if file.is_file()
    }
    for file in (repository / "data").rglob("*.csv"):
        file.unlink()
    folder = Path(source.load())
    assert {file.name: file.read_text() for file in folder.rglob("*") if file.is_file()} == before


def test_loading_writes_where_it_is_told_and_never_over_anything(repository: Path, tmp_path: Path) -> None:
    source = mlflow.data.from_dvc("data/train").source
    assert source.load(str(tmp_path / "copy")) == str(tmp_path / "copy")
    with pytest.raises(StoreError, match="dst_path: the folder is not empty"):
        source.load(str(tmp_path / "copy"))


def test_bytes_that_nobody_has_are_refused_and_nothing_half_is_left(repository: Path, tmp_path: Path) -> None:
    source = mlflow.data.from_dvc("data/train").source
    shutil.rmtree(repository / ".dvc/cache")
    with pytest.raises(StoreError, match=r"data/train: these bytes .* are not at hand; sought in the current repository: "):
        source.load(str(tmp_path / "copy"))
    assert not (tmp_path / "copy").exists()


def test_a_cache_with_other_bytes_is_found_out(repository: Path) -> None:
    source = mlflow.data.from_dvc("data/one.csv").source
    cached = repository / ".dvc/cache/files/md5" / source.md5[:2] / source.md5[2:]
    cached.chmod(0o644)
    cached.write_text("id\n666\n")
    with pytest.raises(TamperedError, match=r"object .* in DVC's cache is not what its name says"):
        source.load()


@pytest.mark.parametrize("part", ["../../one.csv", "/etc/passwd", "deep/../../x"])
def test_a_description_that_leads_out_of_the_data_is_refused(repository: Path, part: str) -> None:
    source = mlflow.data.from_dvc("data/train").source
    with pytest.raises(TamperedError, match="data/train: its part leads out of it"):
        DvcDatasetSource(path="data/train", md5=source.md5, part=part).load()


@pytest.mark.parametrize("repo", ["--upload-pack=touch pwned", "ext::touch%20pwned", "git-root:" + "1" * 40])
def test_git_is_sent_to_addresses_alone(tmp_path: Path, repo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError, match="sought in no repository at all"):
        DvcDatasetSource(path="data/train", md5="a" * 32, rev="c" * 40, repo=repo).load(str(tmp_path / "copy"))
    assert list(tmp_path.iterdir()) == []


def test_a_source_of_an_older_version_is_read(repository: Path) -> None:
    old = {"path": "data/train", "md5": recorded(repository / "data/train.dvc"), "rev": "HEAD", "repo": None}
    assert (Path(DvcDatasetSource.from_dict(old).load()) / "a.csv").read_text() == "id\n1\n"


def test_a_source_survives_its_own_description() -> None:
    source = DvcDatasetSource(path="data", md5="a" * 32, rev="main", repository="https://example.org/x", dirty=True, part="a.csv")
    assert DvcDatasetSource.from_dict(json.loads(json.dumps(source.to_dict()))).to_dict() == source.to_dict()


def test_a_misspelt_field_of_a_source_is_refused() -> None:
    with pytest.raises(TypeError, match="repositry: not a field of a DVC source; there are path, md5"):
        DvcDatasetSource(path="data", md5="a" * 32, repositry="x")


def test_digests_fit_into_mlflow(repository: Path) -> None:
    assert len(mlflow.data.from_dvc("data/train").digest) == 36
