"""The run-context provider: tags inside a DVC project, silence outside, and never an exception, whatever lies there."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mlflow
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plugin_repository import Command

from mlflow_unlearn.plugin.run_context import PROBLEM, DvcRunContext


def tags() -> dict[str, str]:
    provider = DvcRunContext()
    return provider.tags() if provider.in_context() else {}


def test_a_run_inside_a_dvc_repository_carries_commit_state_and_data(repository: Path, mlflow_store: str, command: Command) -> None:
    mlflow.set_tracking_uri(mlflow_store)
    with mlflow.start_run() as run:
        pass
    found = {key: value for key, value in mlflow.get_run(run.info.run_id).data.tags.items() if key.startswith("unlearn.")}
    head = command("git", "rev-parse", "HEAD")
    md5 = found.pop("unlearn.dvc.customers")
    assert md5.endswith(".dir")
    assert found == {"unlearn.git.commit": head, "unlearn.git.dirty": "false", "unlearn.git.repository": f"git-root:{head}"}


def test_nested_runs_carry_them_too(repository: Path, mlflow_store: str) -> None:
    mlflow.set_tracking_uri(mlflow_store)
    with mlflow.start_run() as outer, mlflow.start_run(nested=True) as inner:
        pass
    ours = [{k: v for k, v in mlflow.get_run(run.info.run_id).data.tags.items() if k.startswith("unlearn.")} for run in (outer, inner)]
    assert ours[0] == ours[1] == tags()


def test_runs_that_start_at_once_all_carry_the_same(repository: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: tags(), range(24)))
    assert all(each == found[0] for each in found)
    assert PROBLEM not in found[0]


def test_a_changed_tree_is_dirty(repository: Path) -> None:
    (repository / "params.yaml").write_text("unlearn: {}\ndata: {name: customers, path: data/train}\n# changed\n")
    assert tags()["unlearn.git.dirty"] == "true"


def test_a_deeper_folder_is_in_context(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository / "data/train/deep")
    assert "unlearn.dvc.customers" in tags()


def test_the_settings_that_init_wrote_are_found_from_the_teams_own_folder(repository: Path) -> None:
    (repository / "unlearn").mkdir()
    (repository / "params.yaml").rename(repository / "unlearn/params.yaml")
    (repository / "unlearn/params.yaml").write_text("unlearn: {}\ndata: {name: customers, path: ../data/train}\n")
    assert tags()["unlearn.dvc.customers"].endswith(".dir")


@pytest.mark.parametrize("content", ["data: {train: 0.8}\n", "data: 3\n", "- 1\n", "data: {name: x\n", "\x00", "# unlearn:\ndata:\n"])
def test_a_params_file_of_somebody_elses_is_nobodys_problem(repository: Path, content: str) -> None:
    (repository / "params.yaml").write_text(content)
    assert set(tags()) == {"unlearn.git.commit", "unlearn.git.dirty", "unlearn.git.repository"}


@pytest.mark.parametrize(
    "content", ["data: {name: customers", "data: {name: customers, path: nowhere}", "data: {nam: customers}", "data: 3", "data:"]
)
def test_what_cannot_be_read_is_a_tag_and_the_rest_is_said(repository: Path, content: str) -> None:
    (repository / "params.yaml").write_text(f"unlearn: {{}}\n{content}\n")
    found = tags()
    assert 0 < len(found[PROBLEM]) <= 250
    assert "\n" not in found[PROBLEM]
    assert str(repository) not in found[PROBLEM]
    assert {"unlearn.git.commit", "unlearn.git.dirty", "unlearn.git.repository", PROBLEM} == set(found)


@pytest.mark.parametrize("content", ["<<<<<<< HEAD\nouts:\n", "outs: 3\n", "outs:\n- a\n", "\xff", "{" * 5000])
def test_a_broken_tracking_file_is_a_tag_and_no_exception(repository: Path, content: str) -> None:
    (repository / "data/train.dvc").write_bytes(content.encode("latin-1"))
    assert PROBLEM in tags()


@pytest.fixture(scope="module")
def shared(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy that examples write into."""
    return Path(shutil.copytree(template, tmp_path_factory.mktemp("fuzzed") / "repository"))


@given(params=st.binary(max_size=60), tracking=st.binary(max_size=60), head=st.binary(max_size=20))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_bytes_make_it_raise(shared: Path, monkeypatch: pytest.MonkeyPatch, params: bytes, tracking: bytes, head: bytes) -> None:
    monkeypatch.chdir(shared)
    (shared / "params.yaml").write_bytes(b"unlearn: {}\ndata: {name: customers, path: data/train}\n" + params)
    (shared / "data/train.dvc").write_bytes(b"outs:\n- path: train\n  md5: " + tracking)
    (shared / ".git/HEAD").write_bytes(head)
    assert all(isinstance(value, str) for value in tags().values())


def test_before_the_first_commit_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    (tmp_path / ".dvc").mkdir()
    monkeypatch.chdir(tmp_path)
    assert tags() == {"unlearn.git.commit": "none", "unlearn.git.dirty": "false"}


def test_without_git_it_says_so_and_still_names_the_data(repository: Path) -> None:
    shutil.rmtree(repository / ".git")
    found = tags()
    assert found[PROBLEM].startswith("git: no repository around this DVC project")
    assert set(found) == {"unlearn.dvc.customers", PROBLEM}


@pytest.mark.parametrize(("script", "said"), [("sleep 30", "no answer in time"), ("exit 3", "ended with 3"), ("echo x", "named no commit")])
def test_a_git_that_does_not_answer_costs_half_a_second_and_no_run(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, said: str
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/git").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "bin/git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    started = time.monotonic()
    assert said in tags()[PROBLEM]
    assert time.monotonic() - started < 2


def test_a_bare_repository_and_one_without_dvc_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run(["git", "init", "-q", "--bare", str(tmp_path / "bare")], check=True)
    subprocess.run(["git", "init", "-q", str(tmp_path / "plain")], check=True)
    for name in ("bare", "plain"):
        monkeypatch.chdir(tmp_path / name)
        assert tags() == {}


def test_a_stage_of_dvc_is_named_with_what_defines_it(repository: Path, command: Command) -> None:
    code = "from mlflow_unlearn.plugin.run_context import DvcRunContext; import json; json.dump(DvcRunContext().tags(), open('tags.json', 'w'))"
    (repository / "train.py").write_text(code)
    (repository / "dvc.yaml").write_text(f"stages:\n  train:\n    cmd: {sys.executable} train.py\n    deps: [data/train]\n    outs: [tags.json]\n")
    command("dvc", "repro", "-q")
    import json

    found = json.loads((repository / "tags.json").read_bytes())
    assert (found["unlearn.stage"], found["unlearn.git.dirty"]) == ("train", "false")
    for what, file in (("definition", "dvc.yaml"), ("params", "params.yaml")):
        assert found[f"unlearn.stage.{what}"] == hashlib.sha256((repository / file).read_bytes()).hexdigest()


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
        "ours = {name for name in sys.modules if name.startswith('mlflow_unlearn.')}\n"
        "light = {'plugin', 'adapters', 'adapters.alias_header', 'adapters.lineage_record', 'adapters.registry_rows', 'digests', 'errors'}\n"
        "light |= {'server', 'server.entry_points'}\n"
        "assert {each for each in ours if not each.startswith('mlflow_unlearn.plugin')} <= {f'mlflow_unlearn.{each}' for each in light}, ours\n"
        "heavy = {'torch', 'transformers', 'dvc', 'ruamel.yaml', 'duckdb'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
