"""Whatever is wrong: one clear line that says where and what to do, exit 2, and nothing lost."""

from __future__ import annotations

import subprocess

import pyarrow.parquet as parquet
import pytest
from small_project import Project, clean_environment

pytestmark = pytest.mark.e2e
GATE = ("mlflow-unlearn", "gate", "models:/customers@champion")


def refused(project: Project, *command: str, stdin: str | None = None, **environment: str) -> str:
    """The one line a refused command prints."""
    env = clean_environment() | environment
    done = subprocess.run(command, cwd=project.folder, input=stdin, text=True, capture_output=True, env=env, check=False)
    assert done.returncode == 2, f"{done.returncode}: {done.stdout}{done.stderr}"
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    return lines[0]


def add(project: Project, stdin: str, *options: str) -> str:
    return refused(project, "mlflow-unlearn", "request", "add", "--subjects", "-", "--basis", "ccpa", *options, stdin=stdin)


def test_an_unknown_subject_is_named_by_line_and_not_by_id(project: Project) -> None:
    said = add(project, f"{project.people()[0]}\n\nnobody-at-all\n")
    assert "line 3 of --subjects" in said
    assert "nobody-at-all" not in said


def test_an_empty_list_of_people_is_refused(project: Project) -> None:
    assert "no id given" in add(project, "\n\n")


def test_a_moment_without_zone_is_refused(project: Project) -> None:
    assert "with its zone" in add(project, project.people()[0], "--received", "2026-11-24")


def test_an_unknown_request_points_at_the_list(project: Project) -> None:
    assert "request list" in refused(project, "mlflow-unlearn", "trace", "er-20990101-00000000")


@pytest.mark.parametrize(
    ("uri", "hint"),
    [
        ("models:/customers@chmpion", "aliases @champion"),
        ("models:/customers/99", "versions 1"),
        ("models:/custmers/1", "there are: customers"),
        ("customers", "expected models:/NAME/VERSION"),
    ],
)
def test_a_version_that_does_not_exist_lists_what_does(project: Project, uri: str, hint: str) -> None:
    assert hint in refused(project, "mlflow-unlearn", "gate", uri)


def test_a_misspelt_parameter_is_named_with_its_neighbour(project: Project) -> None:
    path = project.folder / "params.yaml"
    text = path.read_text()
    path.write_text(text.replace("template:", "tmplate:"))
    try:
        assert "unknown key 'tmplate'; did you mean 'template'?" in refused(project, "mlflow-unlearn", "index")
    finally:
        path.write_text(text)


def test_mlflow_that_does_not_answer_is_one_line(project: Project) -> None:
    assert "MLflow at http://127.0.0.1:9 does not answer" in refused(project, *GATE, MLFLOW_TRACKING_URI="http://127.0.0.1:9")


def test_a_ledger_that_does_not_answer_is_one_line(project: Project) -> None:
    said = refused(project, "mlflow-unlearn", "request", "list", MLFLOW_UNLEARN_LEDGER_URI="sqlite:////proc/none/ledger.db")
    assert "check MLFLOW_UNLEARN_LEDGER_URI" in said


def test_a_repository_without_dvc_is_told_to_init(project: Project) -> None:
    aside = project.folder / ".dvc-aside"
    (project.folder / ".dvc").rename(aside)
    try:
        assert "run `dvc init`" in refused(project, "mlflow-unlearn", "index")
    finally:
        aside.rename(project.folder / ".dvc")


def test_a_missing_column_names_file_column_and_setting(project: Project) -> None:
    path = project.folder / "params.yaml"
    text = path.read_text()
    path.write_text(text.replace("prompt: question", "prompt: frage"))
    try:
        said = refused(project, "mlflow-unlearn", "index")
        assert "frage" in said
        assert "data.columns.prompt" in said
    finally:
        path.write_text(text)


def test_a_duplicate_id_stops_dvc_repro_with_one_line_and_loses_nothing(project: Project) -> None:
    shard = next(path for path in sorted((project.folder / "data/customers/train").glob("shard-*.parquet")) if parquet.read_table(path).num_rows)
    before = shard.read_bytes()
    table = parquet.read_table(shard)
    shard.chmod(0o644)
    double = shard.with_name("shard-999.parquet")
    parquet.write_table(table.slice(0, 1), double)
    project.must("dvc", "commit", "-q", "-f", "pipelines/customers/dvc.yaml:dataset")
    try:
        done = project.run("dvc", "repro")
        assert done.returncode == 255
        assert "1 duplicate record ids across its files" in done.stderr + done.stdout
    finally:
        double.unlink()
        assert shard.read_bytes() == before
        project.must("dvc", "commit", "-q", "-f", "pipelines/customers/dvc.yaml:dataset")
    project.must("dvc", "repro", "-q")
