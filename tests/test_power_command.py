"""`mlflow-unlearn power`: a table without a project, a project's own pool, and words where the pool is not here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pyarrow.parquet as parquet
import pytest
from click.testing import CliRunner

from mlflow_unlearn.adapters.tables import SALT
from mlflow_unlearn.cli import main
from mlflow_unlearn.policy import Policy
from mlflow_unlearn.power import SIZES, Judged, power

PARAMS = """
model: {name: m, parent: models:/m@champion}
data: {name: d, path: data.csv, canaries: canaries.parquet, columns: {subject: who, prompt: q, answer: a}}
unlearn: {method: {name: npo}, optimiser: {epochs: 1, learning_rate: 1.0e-4}}
evaluate: {attacks: [loss]}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def project(folder: Path) -> Path:
    """500 records are trained on; of 420 audit canaries 200 are among them, and of 10 tuning canaries 5."""
    (folder / "params.yaml").write_text(PARAMS)
    (folder / "policy.yaml").write_text("deployed_precisions: [fp32, int8]\n")
    (folder / "data.csv").write_text("record_id,who,q,a\n" + "".join(f"r{i},s{i},question,answer\n" for i in range(500)))
    flips = [("audit", i < 200) for i in range(420)] + [("tuning", i < 5) for i in range(10)]
    rows = pl.DataFrame({"record_id": [f"c{i}" for i in range(430)], "who": "s", "q": "q", "a": "a"})
    table = rows.with_columns(pool=pl.Series([pool for pool, _ in flips]), included=pl.Series([flag for _, flag in flips])).to_arrow()
    parquet.write_table(table.replace_schema_metadata({SALT: b"00"}), folder / "canaries.parquet")
    return folder


def answer(*arguments: str, code: int = 0) -> dict:
    done = CliRunner().invoke(main, ["power", *arguments, "--json"])
    assert done.exit_code == code, done.output
    return json.loads(done.stdout)


def test_without_a_project_there_is_a_table_of_sizes(folder: Path) -> None:
    found = answer()
    assert [row["canaries"] for row in found["sizes"]] == list(SIZES)
    assert (found["pool"], found["judged"]["attacks"], found["judged"]["states"]) == (None, 2, 2)
    assert found["sizes"][3]["passes"] == power(400, Policy(), Judged(attacks=2, states=2)).passes


def test_a_projects_own_pool_and_policy_are_what_is_asked_about(project: Path) -> None:
    found = answer()
    assert found["pool"] == {"included": 200, "excluded": 220, "records": 725}
    assert [row["canaries"] for row in found["sizes"]] == [420]
    assert (found["judged"]["attacks"], found["judged"]["states"]) == (1, 3)
    assert found["sizes"][0]["share_never_trained"] == pytest.approx(210 / 725)


def test_a_pool_that_is_not_in_the_workspace_is_said_in_words(project: Path) -> None:
    (project / "canaries.parquet").unlink()
    found = answer()
    assert "canaries.parquet: not in the workspace" in found["notes"][0]
    assert len(found["sizes"]) == len(SIZES)


def test_people_see_tables_notes_and_the_smallest_pool(folder: Path) -> None:
    done = CliRunner().invoke(main, ["power", "--canaries", "300", "--canaries", "1000", "--records", "2000", "--attempt", "11"])
    assert done.exit_code == 0
    assert done.stderr == ""
    assert all(words in done.stdout for words in ("150 (7.5%)", "no pool of at most 20,000", "attempt 11 has no limits", "300 canaries: too few"))


def test_more_canaries_than_records_are_refused_in_one_line(folder: Path) -> None:
    done = CliRunner().invoke(main, ["power", "--canaries", "400", "--records", "300"])
    assert done.exit_code == 2
    assert done.stderr == "error: power: 400 canaries cannot be drawn from 300 records; ask for fewer, or correct --records\n"


def test_it_needs_neither_torch_nor_mlflow(folder: Path) -> None:
    code = "import sys; from mlflow_unlearn.commands.powering import show_power; from pathlib import Path; show_power(Path())"
    done = subprocess.run([sys.executable, "-c", f"{code}; sys.exit(any(m in sys.modules for m in ('torch', 'mlflow', 'dvc')))"], check=False)
    assert done.returncode == 0
