"""Three lines in a script, in a repository where nothing else knows this project, and after `init` `trace` finds the model."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient
from plugin_repository import IDENTITY

from mlflow_unlearn.adapters.registry import connect
from mlflow_unlearn.config import Settings
from mlflow_unlearn.plugin import lineage_record

pytestmark = pytest.mark.e2e
TRAIN = """
import json, sys
import mlflow

class Echo(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input: list[str]) -> list[str]:
        return model_input

if "async" in sys.argv:
    mlflow.config.enable_async_logging()
rows = [json.loads(line) for line in open("data/tickets.jsonl")]
dataset = mlflow.data.from_dvc("data/tickets.jsonl", name="tickets")
with mlflow.start_run():
    mlflow.log_input(dataset, context="training")
    mlflow.log_metric("rows", len(rows))
    mlflow.pyfunc.log_model(python_model=Echo(), name="model", registered_model_name="support-bot", pip_requirements=[])
"""
AUTOLOGGED = """
import mlflow, mlflow.sklearn
from sklearn.tree import DecisionTreeClassifier

mlflow.sklearn.autolog(log_datasets=False, log_models=False, log_post_training_metrics=False)
DecisionTreeClassifier().fit([[0], [1]], [0, 1])
with mlflow.start_run(run_id=mlflow.last_active_run().info.run_id):
    mlflow.set_tag("mlflow.runName", "autologged")
    mlflow.log_input(mlflow.data.from_dvc("data/tickets.jsonl", name="tickets"), context="training")
"""


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory, mlflow_template: Path) -> Path:
    """A team's repository: JSONL data under `dvc add`, a script with the three lines, MLflow's default store in the current folder."""
    root = tmp_path_factory.mktemp("team") / "repository"
    (root / "data").mkdir(parents=True)
    rows = [{"id": f"t{n}", "user": f"u{n % 4}", "question": f"What does ticket {n} say?", "answer": f"It says {n}."} for n in range(20)]
    (root / "data/tickets.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "train.py").write_text(TRAIN)
    (root / ".gitignore").write_text("mlflow.db*\nmlruns/\nmlartifacts/\n")
    for line in (("git", "init", "-q"), ("dvc", "init", "-q"), ("dvc", "add", "-q", "data/tickets.jsonl")):
        must(root, *line)
    commit(root)
    shutil.copy(mlflow_template, root / "mlflow.db")
    return root


def environment() -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "GIT_", "PYTEST_"))}
    first = Path(sys.executable).parent
    return kept | {"PATH": f"{first}{os.pathsep}{kept['PATH']}", "GIT_CONFIG_GLOBAL": os.devnull, "MLFLOW_DISABLE_TELEMETRY": "true"}


def must(root: Path, *command: str, stdin: str | None = None) -> str:
    done = subprocess.run(command, cwd=root, input=stdin, text=True, capture_output=True, env=environment(), check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def commit(root: Path) -> None:
    must(root, "git", "add", "-A")
    must(root, "git", *IDENTITY, "commit", "-qm", "work")


def tracked(root: Path) -> str:
    return next(line.split()[-1] for line in (root / "data/tickets.jsonl.dvc").read_text().splitlines() if "md5: " in line)


def test_two_trainings_at_once_both_know_their_data(team: Path) -> None:
    running = [
        subprocess.Popen([sys.executable, "train.py", how], cwd=team, env=environment(), stderr=subprocess.PIPE, text=True)
        for how in ("plain", "async")
    ]
    for each in running:
        complaint = each.communicate(timeout=300)[1]
        assert each.returncode == 0, complaint
    uri = f"sqlite:///{team / 'mlflow.db'}"
    lineages = connect(Settings(root=team, tag_key_file=team / "key", ledger_uri="", tracking_uri=uri), "Default").lineages()
    assert [(str(each.model), each.datasets, each.problem) for each in lineages] == [
        (f"support-bot/{number}", {"tickets": tracked(team)}, None) for number in (1, 2)
    ]


def test_their_record_names_commit_repository_and_data(team: Path) -> None:
    client = MlflowClient(f"sqlite:///{team / 'mlflow.db'}")
    head = must(team, "git", "rev-parse", "HEAD").strip()
    for run in client.search_runs(["0"]):
        record = lineage_record(run)
        assert record["git"] == {"commit": head, "dirty": False, "repository": f"git-root:{head}"}
        assert [(each["path"], each["md5"], each["rev"], each["dirty"]) for each in record["datasets"]] == [
            ("data/tickets.jsonl", tracked(team), head, False)
        ]


def test_after_init_trace_finds_both_versions_and_says_that_nobody_signed(team: Path) -> None:
    must(team, "mlflow-unlearn", "init", "--model", "support-bot", "--data", "data/tickets.jsonl")
    params = (team / "unlearn/params.yaml").read_text()
    (team / "unlearn/params.yaml").write_text(params.replace("record: record_id", "record: id").replace("subject: subject_id", "subject: user"))
    commit(team)
    added = must(team / "unlearn", "mlflow-unlearn", "request", "add", "--subjects", "-", "--basis", "gdpr_17", "--json", stdin="u3\n")
    traced = must(team / "unlearn", "mlflow-unlearn", "trace", json.loads(added)["request_id"], "--json")
    affected = json.loads(traced)["affected"]
    assert [(each["model"], each["signed"]) for each in affected] == [({"name": "support-bot", "version": n}, False) for n in ("1", "2")]
    assert {each["records"] for each in affected} == {5}


def test_a_run_that_autologging_starts_stands_on_the_same_commit(team: Path) -> None:
    (team / "auto.py").write_text(AUTOLOGGED)
    must(team, "python", "auto.py")
    run = MlflowClient(f"sqlite:///{team / 'mlflow.db'}").search_runs(["0"], "attributes.run_name = 'autologged'")[0]
    record = lineage_record(run)
    assert record["git"]["commit"] == must(team, "git", "rev-parse", "HEAD").strip()
    assert ([each["md5"] for each in record["datasets"]], record["other_datasets"], record["problem"]) == ([tracked(team)], [], None)
