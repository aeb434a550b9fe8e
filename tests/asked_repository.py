"""A Git and DVC repository with two dataset revisions and a scaffolded pipeline, for commands that touch no model."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mlflow_unlearn.commands.scaffolding import scaffold

ENVIRONMENT = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull, "DVC_NO_ANALYTICS": "1"}
SETTINGS = ("MLFLOW_UNLEARN_TAG_KEY_FILE", "MLFLOW_UNLEARN_LEDGER_URI")


def people(*names: str) -> str:
    rows = "".join(f"r-{name}-{n},{name},What does {name} like {n}?,{name} likes {n}.\n" for name in names for n in (1, 2))
    return "record_id,subject_id,question,answer\n" + rows


def _run(folder: Path, *command: str) -> None:
    done = subprocess.run(command, cwd=folder, env=os.environ | ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


@pytest.fixture(scope="session")
def asked_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made once a session."""
    return build_repository(tmp_path_factory.mktemp("asked") / "project")


def build_repository(root: Path) -> Path:
    """Tag v1: ana, bo in a.csv and cy in b.csv; then bo left and dee came."""
    train = root / "data/train"
    train.mkdir(parents=True)
    _run(root, "git", "init", "-q", "-b", "main")
    _run(root, "git", "config", "user.name", "Test")
    _run(root, "git", "config", "user.email", "test@example.invalid")
    _run(root, sys.executable, "-m", "dvc", "init", "-q")
    for revision, a, b in (("v1", ("ana", "bo"), ("cy",)), ("v2", ("ana",), ("cy", "dee"))):
        (train / "a.csv").write_text(people(*a))
        (train / "b.csv").write_text(people(*b))
        _run(root, sys.executable, "-m", "dvc", "add", "-q", "data/train")
        _run(root, "git", "add", "-A")
        _run(root, "git", "commit", "-q", "-m", revision)
        _run(root, "git", "tag", revision)
    return root


@pytest.fixture
def asked(asked_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy, with its pipeline folder as the current folder."""
    root = tmp_path / "project"
    shutil.copytree(asked_template, root, symlinks=True)
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(root)
    scaffold(Path("unlearn"), model="m", data="data/train")
    monkeypatch.chdir(root / "unlearn")
    return root
