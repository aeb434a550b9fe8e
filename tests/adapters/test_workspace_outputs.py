"""The output a path belongs to, wherever the file that tracks it lies and however large it is."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from mlflow_unlearn.adapters.git_state import Git, Place
from mlflow_unlearn.adapters.workspace_outputs import Owned, owned
from mlflow_unlearn.errors import LineageError, StoreError

A, B, D = "a" * 32, "b" * 32, "d" * 32 + ".dir"


def write(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def lock(**outs: str) -> str:
    """A dvc.lock as DVC writes it: stage -> `path md5`."""
    stages = "".join(
        f"  {stage.replace('__', '@')}:\n    cmd: make\n    outs:\n    - path: {out.split()[0]}\n      hash: md5\n      md5: {out.split()[1]}\n"
        for stage, out in outs.items()
    )
    return f"schema: '2.0'\nstages:\n{stages}"


def find(root: Path, path: str) -> Owned:
    """With git's list of files where there is a repository, else by walking."""
    git = root if (root / ".git").exists() else None
    return owned(Place(dvc=root, git=git), path, Git(root) if git else None)


@pytest.fixture(params=["git", "no git"])
def root(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    if request.param == "git":
        subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    (tmp_path / ".dvc").mkdir()
    return tmp_path


@pytest.mark.parametrize("file", ["data/x.dvc", "data/other.dvc", "x.dvc"])
def test_a_dvc_file_beside_or_above(root: Path, file: str) -> None:
    write(root, file, f"outs:\n- md5: {A}\n  path: {'x' if file.startswith('data/') else 'data/x'}\n")
    found = find(root, "data/x")
    assert (found.output.md5, found.output.owner, found.part) == (A, file, None)


def test_a_dvc_file_somewhere_else_with_a_folder_of_its_own(root: Path) -> None:
    write(root, "tracking/raw.dvc", f"outs:\n- md5: {A}\n  path: data/x\nwdir: ..\n")
    assert find(root, "data/x").output.owner == "tracking/raw.dvc"


def test_the_output_of_a_stage(root: Path) -> None:
    write(root, "dvc.yaml", "stages: {clean: {cmd: make, outs: [data/clean]}}\n")
    write(root, "dvc.lock", lock(other=f"data/raw {B}", clean=f"data/clean {D}"))
    found = find(root, "data/clean")
    assert (found.output.md5, found.output.stage) == (D, "clean")


@pytest.mark.parametrize("wdir", ["../..", "${where}"])
def test_the_output_of_a_stage_that_runs_elsewhere(root: Path, wdir: str) -> None:
    write(root, "pipelines/a/params.yaml", "where: ../..\n")
    write(root, "pipelines/a/dvc.yaml", f"stages: {{clean: {{wdir: '{wdir}', cmd: make, outs: [data/clean]}}}}\n")
    write(root, "pipelines/a/dvc.lock", lock(clean=f"data/clean {D}"))
    assert find(root, "data/clean").output.owner == "pipelines/a/dvc.lock"


def test_one_of_a_matrix(root: Path) -> None:
    write(root, "dvc.yaml", "stages: {shard: {matrix: {n: [1, 2]}, cmd: make, outs: ['shards/${item.n}']}}\n")
    write(root, "dvc.lock", lock(shard__1=f"shards/1 {A}", shard__2=f"shards/2 {B}"))
    assert find(root, "shards/2").output.md5 == B


def test_what_lies_in_an_output_is_a_part_of_it(root: Path) -> None:
    write(root, "data/train.dvc", f"outs:\n- md5: {D}\n  path: train\n")
    found = find(root, "data/train/deep/x.csv")
    assert (found.output.path, found.output.md5, found.part) == ("data/train", D, "deep/x.csv")


@pytest.mark.parametrize("name", ["it's here", "\u00e9t\u00e9", "\U0001f600", 'a "b"', "#x", "back\\slash"])
def test_names_that_yaml_writes_in_other_ways(root: Path, name: str) -> None:
    from ruamel.yaml import YAML

    with (root / "dvc.lock").open("w", encoding="utf-8") as stream:
        outs = [{"path": f"data/{name}", "hash": "md5", "md5": A}]
        YAML().dump({"schema": "2.0", "stages": {"clean": {"cmd": "make", "outs": outs}}}, stream)
    write(root, "dvc.yaml", "stages: {clean: {cmd: make}}\n")
    assert find(root, f"data/{name}").output.md5 == A


def test_an_unrelated_file_in_conflict_does_not_matter_and_one_that_may_name_it_does(root: Path) -> None:
    write(root, "data/x.dvc", f"outs:\n- md5: {A}\n  path: x\n")
    write(root, "dvc.lock", "<<<<<<< HEAD\n" + lock(x=f"data/y {B}"))
    assert find(root, "data/x").output.md5 == A
    with pytest.raises(StoreError, match=r"dvc\.lock: not YAML; it has conflict markers"):
        find(root, "data/y")


def test_a_file_that_cannot_be_read_is_named(root: Path) -> None:
    (root / "data").mkdir()
    (root / "data/x.dvc").symlink_to("x.dvc")
    with pytest.raises(StoreError, match=r"data/x\.dvc: cannot be read .*; restore it from git"):
        find(root, "data/x")


def test_a_folder_of_several_outputs_names_them(root: Path) -> None:
    write(root, "data/x.dvc", f"outs:\n- md5: {A}\n  path: x\n")
    write(root, "dvc.yaml", "stages: {clean: {cmd: make}}\n")
    write(root, "dvc.lock", lock(clean=f"data/deep/y {B}"))
    with pytest.raises(LineageError, match="data: no DVC output itself, but holds data/deep/y, data/x; name each of them"):
        find(root, "data")


def test_an_output_without_a_digest_says_so(root: Path) -> None:
    write(root, "data/x.dvc", "outs:\n- path: x\n")
    with pytest.raises(LineageError, match="data/x: DVC keeps no md5 of it here; run `dvc repro`"):
        find(root, "data/x")


def test_nothing_is_tracked_in_an_empty_project(root: Path) -> None:
    with pytest.raises(LineageError, match="data/x: not a DVC output here; run `dvc add data/x`"):
        find(root, "data/x")


def test_only_dvc_2_left_out_the_kind_of_digest(root: Path) -> None:
    write(root, "new.dvc", f"outs:\n- md5: {A}\n  hash: md5\n  path: new\n")
    write(root, "old.dvc", f"outs:\n- md5: {A}\n  path: old\n")
    assert (find(root, "new").unified_ends, find(root, "old").unified_ends) == (False, True)


def test_a_lock_of_2000_stages_is_read_as_far_as_needed(root: Path) -> None:
    import time

    write(root, "dvc.yaml", "stages: {shard: {matrix: {n: 2000}, cmd: make}}\n")
    write(root, "dvc.lock", lock(**{f"shard__{n}": f"shards/part-{n:04d} {n:032x}" for n in range(2000)}))
    started = time.process_time()
    assert find(root, "shards/part-1234").output.md5 == f"{1234:032x}"
    assert time.process_time() - started < 0.2
