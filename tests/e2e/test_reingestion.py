"""What a closed request erased does not come back: neither through the data, nor through a new model, whenever closing was cut short."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest
from small_project import Project, clean_environment
from test_closing import LENIENT, only_request

pytestmark = pytest.mark.e2e
GUARD = ("mlflow-unlearn", "guard")


@pytest.fixture(scope="module")
def asked(project: Project) -> Project:
    """A copyright request that passed, the hook in place, and the rows of its person kept aside."""
    (project.folder / "policy.yaml").write_text(LENIENT)
    project.edit_params({"evaluate": {"permutations": 2000}})
    project.must(*GUARD, "--install")
    project.must("mlflow-unlearn", "request", "add", "--subjects", "-", "--basis", "copyright", stdin=project.people()[7])
    project.must("dvc", "repro", "-q")
    project.commit("asked")
    return project


def erased_rows(project: Project) -> list[dict[str, object]]:
    person = project.people()[7]
    return [row for row in project.rows() if row["subject_id"] == person]


def kill_once_changed(project: Project, path: Path) -> None:
    """Start closing, and SIGKILL it as soon as a file has been replaced."""
    before = path.stat().st_ino
    command = [sys.executable, "-m", "mlflow_unlearn.cli", "request", "close", only_request(project)]
    running = subprocess.Popen(command, cwd=project.folder, env=clean_environment())
    while path.stat().st_ino == before and running.poll() is None:
        time.sleep(0.001)
    os.kill(running.pid, signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL, "closing was faster than the kill"


def kept_aside(project: Project) -> list[dict[str, object]]:
    return json.loads(project.folder.with_name("rows.json").read_text())


def add_rows(project: Project, rows: list[dict[str, object]]) -> None:
    """A shard more in the training data."""
    model = next((project.folder / "data/customers/train").glob("*.parquet"))
    parquet.write_table(arrow.Table.from_pylist(rows, schema=parquet.read_schema(model)), model.with_name("again.parquet"))


def test_killed_after_burying_the_tombstones_are_there_and_the_data_too(asked: Project) -> None:
    rows = erased_rows(asked)
    asked.folder.with_name("rows.json").write_text(json.dumps(rows))
    kill_once_changed(asked, asked.folder / ".unlearn/ledger.head")
    assert erased_rows(asked) == rows
    files = asked.json(*GUARD, code=1)["files"]
    assert sum(len(file["refused"]["subject"]) for file in files if "/train/" in file["file"]) == len(rows)


def test_killed_after_the_first_file_was_erased_nothing_is_lost(asked: Project) -> None:
    files = sorted((asked.folder / "data/customers/train").glob("*.parquet"))
    kill_once_changed(asked, next(path for path in files if asked.people()[7] in parquet.read_table(path)["subject_id"].to_pylist()))
    assert only_request(asked) == asked.json("mlflow-unlearn", "request", "list", "--state", "open")["requests"][0]["request_id"]


def test_closing_again_completes_and_the_guard_is_clean(asked: Project) -> None:
    assert asked.json("mlflow-unlearn", "request", "close", only_request(asked))["closed"]
    report = asked.json(*GUARD)
    assert (report["answer"], report["complete"]) == ("clean", True)
    asked.commit("closed")


def test_the_erased_cannot_be_committed_again(asked: Project) -> None:
    rows = kept_aside(asked)
    add_rows(asked, rows)
    asked.must("dvc", "commit", "-q", "-f", "pipelines/customers/dvc.yaml:dataset")
    asked.must("git", "add", "-A")
    refused = asked.run("git", "commit", "-m", "they are back")
    assert refused.returncode == 1
    assert "again.parquet" in refused.stdout + refused.stderr
    assert str(rows[0]["subject_id"]) not in refused.stdout + refused.stderr


def test_a_text_of_the_erased_under_another_person_stops_the_pipeline_at_validate(asked: Project) -> None:
    rows = kept_aside(asked)
    owner = next(row for row in asked.rows() if row["subject_id"] not in {None, rows[0]["subject_id"]})
    add_rows(asked, [{**row, "record_id": f"new-{n}", "subject_id": owner["subject_id"]} for n, row in enumerate(rows)])
    asked.must("dvc", "commit", "-q", "-f", "pipelines/customers/dvc.yaml:dataset")
    asked.must("git", "add", "-A")
    asked.must("git", "commit", "-q", "--no-verify", "-m", "copied")
    asked.must("dvc", "repro", "-q", "pipelines/customers/dvc.yaml:train")
    asked.must("git", "add", "-A")
    asked.must("git", "commit", "-q", "--no-verify", "-m", "trained on copies")
    newest = max(int(version.version) for version in asked.client().search_model_versions("name = 'customers'"))
    asked.edit_params({"model": {"parent": f"models:/customers/{newest}"}})
    asked.must("mlflow-unlearn", "request", "add", "--subjects", "-", "--basis", "copyright", stdin=asked.people()[-1])
    said = asked.run("dvc", "repro", "validate")
    assert said.returncode != 0
    assert f"no erased person, record or text is back in retain: {len(rows)} of" in said.stdout + said.stderr
