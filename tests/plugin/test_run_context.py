"""The run-context provider: tags inside a DVC repository, silence outside, and never an exception."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest

from mlflow_unlearn.plugin.run_context import PROBLEM, DvcRunContext


def test_a_run_inside_a_dvc_repository_carries_commit_state_and_data(repository: Path, mlflow_store: str, command: Callable[..., str]) -> None:
    mlflow.set_tracking_uri(mlflow_store)
    with mlflow.start_run() as run:
        pass
    tags = mlflow.get_run(run.info.run_id).data.tags
    assert tags["unlearn.git.commit"] == command("git", "rev-parse", "HEAD")
    assert tags["unlearn.git.dirty"] == "false"
    assert tags["unlearn.dvc.customers"].endswith(".dir")
    assert PROBLEM not in tags


def test_a_changed_tree_is_dirty(repository: Path) -> None:
    (repository / "params.yaml").write_text("data: {name: customers, path: data/train}\n# changed\n")
    assert DvcRunContext().tags()["unlearn.git.dirty"] == "true"


def test_a_deeper_folder_is_in_context(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository / "data/train/deep")
    assert DvcRunContext().in_context()
    assert "unlearn.dvc.customers" in DvcRunContext().tags()


@pytest.mark.parametrize("content", ["data: {name: customers", "data: {name: customers, path: nowhere}", "data: {nam: customers}", "data: 3", "- 1"])
def test_what_cannot_be_read_is_a_tag_and_no_exception(repository: Path, content: str) -> None:
    (repository / "params.yaml").write_text(content)
    problem = DvcRunContext().tags()[PROBLEM]
    assert 0 < len(problem) <= 250
    assert "\n" not in problem


@pytest.mark.parametrize("content", ["<<<<<<< HEAD\nouts:\n", "outs: 3\n", "outs:\n- a\n"])
def test_a_broken_tracking_file_is_a_tag_and_no_exception(repository: Path, content: str) -> None:
    (repository / "data/train.dvc").write_text(content)
    assert PROBLEM in DvcRunContext().tags()


def test_commit_and_dirt_are_said_even_where_the_data_are_not(repository: Path) -> None:
    (repository / "params.yaml").write_text("data: 3\n")
    assert {"unlearn.git.commit", "unlearn.git.dirty", PROBLEM} <= set(DvcRunContext().tags())


def test_a_repository_without_a_commit_or_params_still_has_tags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    (tmp_path / ".dvc").mkdir()
    monkeypatch.chdir(tmp_path)
    assert DvcRunContext().tags()["unlearn.git.commit"] == "none"


def test_outside_a_dvc_repository_nothing_changes(tmp_path: Path, mlflow_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(mlflow_store)
    with mlflow.start_run() as run:
        pass
    assert not [tag for tag in mlflow.get_run(run.info.run_id).data.tags if tag.startswith("unlearn.")]


def test_a_folder_that_is_gone_is_not_in_context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert not DvcRunContext().in_context()
    assert DvcRunContext().tags() == {}


def test_mlflow_finds_every_entry_point_and_loads_nothing_heavy() -> None:
    code = (
        "import sys, mlflow; from mlflow.tracking.context.registry import _run_context_provider_registry as contexts\n"
        "from mlflow.data.dataset_source_registry import _dataset_source_registry as sources\n"
        "assert any(type(each).__name__ == 'DvcRunContext' for each in contexts)\n"
        "assert any(each._get_source_type() == 'dvc' for each in sources.sources)\n"
        "assert mlflow.data.from_dvc\n"
        "heavy = {'torch', 'transformers', 'dvc', 'ruamel.yaml', 'duckdb', 'mlflow_unlearn.adapters.dvc_project'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
