"""A small copy of this project in a folder of its own: real Git, DVC, MLflow, Great Expectations and models, a minute instead of six."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
from ruamel.yaml import YAML
from warm_processes import WarmProcesses

ROOT = Path(__file__).parents[2]
SMALL = {
    "dataset": {"people": 50, "base_people": 50, "holdout_people": 10, "shards": 4, "audit": 100, "tuning": 40},
    "train": {
        "vocabulary": 512,
        "init": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2},
        "optimiser": {"epochs": 6},
    },
    "base": {
        "vocabulary": 512,
        "init": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2},
    },
    "exact": {"shards": [0, 1, 2, 3], "canary_parts": 1, "optimiser": {"epochs": 3}},
    "unlearn": {"strategy": "approximate", "optimiser": {"epochs": 2}},
    "evaluate": {"bootstrap": 200, "permutations": 200, "max_new_tokens": 12},
}


def clean_environment() -> dict[str, str]:
    env = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "GIT_", "PYTEST_"))}
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    return env | {
        "OMP_NUM_THREADS": "1",
        "DVC_NO_ANALYTICS": "1",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "HF_HUB_OFFLINE": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
    }


def warm_environment() -> dict[str, str]:
    """The same, with our commands in processes that have imported everything."""
    environment = clean_environment()
    return environment | {"PATH": f"{_warm().path}{os.pathsep}{environment['PATH']}"}


@cache
def _warm() -> WarmProcesses:
    warm = WarmProcesses(clean_environment())
    atexit.register(warm.close)
    return warm


@dataclass
class Project:
    """A repository under test and the commands one types in it."""

    folder: Path

    def run(self, *command: str, stdin: str | None = None, cwd: str = ".") -> subprocess.CompletedProcess[str]:
        environment = warm_environment()
        return subprocess.run(command, cwd=self.folder / cwd, input=stdin, text=True, capture_output=True, env=environment, check=False)

    def must(self, *command: str, stdin: str | None = None, cwd: str = ".") -> str:
        done = self.run(*command, stdin=stdin, cwd=cwd)
        assert done.returncode == 0, f"{command} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def json(self, *command: str, stdin: str | None = None, code: int = 0, cwd: str = ".") -> dict[str, Any]:
        done = self.run(*command, "--json", stdin=stdin, cwd=cwd)
        assert done.returncode == code, f"{command} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
        return json.loads(done.stdout)

    def commit(self, message: str) -> None:
        self.must("git", "add", "-A")
        self.must("git", "commit", "-q", "--allow-empty", "-m", message)

    def edit_params(self, changes: dict[str, Any]) -> None:
        yaml, path = YAML(), self.folder / "params.yaml"
        document = yaml.load(path)
        _merge(document, changes)
        yaml.dump(document, path)

    def train(self, people: int, revision: str) -> None:
        self.edit_params({"dataset": {"people": people}})
        self.must("dvc", "repro", "-q", "pipelines/customers/dvc.yaml:dataset")
        self.commit(f"dataset {revision}")
        self.must("git", "tag", revision)
        self.must("dvc", "repro", "-q", "pipelines/customers/dvc.yaml:train")
        self.commit(f"model {revision}")
        self.must("dvc", "push", "-q")

    def champion(self, version: str) -> None:
        self.must("python", "pipelines/champion.py", "customers", version)

    def document(self, name: str) -> dict[str, Any]:
        return json.loads((self.folder / "build" / f"{name}.json").read_bytes())

    def rows(self) -> list[dict[str, Any]]:
        return [row for path in sorted((self.folder / "data/customers/train").glob("*.parquet")) for row in parquet.read_table(path).to_pylist()]

    def people(self) -> list[str]:
        return sorted({row["subject_id"] for row in self.rows() if row["subject_id"]})

    def client(self) -> Any:
        from mlflow import MlflowClient

        return MlflowClient(f"sqlite:///{self.folder / 'mlflow.db'}")


def _merge(document: Any, changes: dict[str, Any]) -> None:
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(document.get(key), dict):
            _merge(document[key], value)
        else:
            document[key] = value


def new_repository(folder: Path) -> Project:
    folder.mkdir(parents=True)
    project = Project(folder)
    project.must("git", "init", "-q", "-b", "main")
    project.must("git", "config", "user.name", "Test")
    project.must("git", "config", "user.email", "test@example.invalid")
    return project


def copy_of_this_project(folder: Path) -> Project:
    project = new_repository(folder)
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, text=True, capture_output=True, check=True).stdout
    for name in listed.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    project.edit_params(SMALL)
    project.must("dvc", "remote", "add", "-q", "-d", "store", str(folder.with_name("remote")))
    project.must("mlflow-unlearn", "init")
    project.commit("project")
    return project


def kill_during(project: Project, stage: str, *, once_there: str | None = None) -> None:
    """Start one stage, SIGKILL the whole process group once its own process has begun to work, or once a file is there."""
    running = subprocess.Popen(
        ["dvc", "repro", "--single-item", "--force", stage],
        cwd=project.folder,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert running.stdout is not None
    for line in running.stdout:
        if line.startswith("> "):  # DVC has just started the command
            break
    while once_there is not None and not (project.folder / once_there).exists():
        assert running.poll() is None, f"{stage} ended before {once_there} was there"
        time.sleep(0.01)
    time.sleep(0.8 if once_there is None else 0.0)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    running.stdout.close()
