"""A real Git and DVC repository with a past: made once a session, copied for each test."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from ledger_databases import ledger_uri, postgres  # noqa: F401 - fixtures

HEADER = "record_id,subject_id,question,answer\n"
ENVIRONMENT = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull, "DVC_NO_ANALYTICS": "1"}


@dataclass
class Repository:
    root: Path

    def git(self, *arguments: str) -> str:
        return self._run("git", *arguments)

    def dvc(self, *arguments: str) -> str:
        return self._run(sys.executable, "-m", "dvc", *arguments)

    def write(self, path: str, text: str) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def people(self, path: str, *subjects: str) -> None:
        self.write(path, HEADER + "".join(f"r-{s},{s},Where is {s}?,In {s}ville.\n" for s in subjects))

    def commit(self, message: str) -> str:
        self.git("add", "-A")
        self.git("commit", "-q", "-m", message)
        return self.git("rev-parse", "HEAD").strip()

    def push(self) -> None:
        """Never --all-commits: it reads the remote from every revision, and a relative one then lands below the root of the file system."""
        self.dvc("push", "-q")

    def add(self, *outputs: str) -> None:
        self.dvc("add", "-q", *outputs)

    def empty_cache(self) -> None:
        shutil.rmtree(self.root / ".dvc/cache")

    def _run(self, *command: str) -> str:
        done = subprocess.run(command, cwd=self.root, env=os.environ | ENVIRONMENT, text=True, capture_output=True, check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout


def _new(root: Path) -> Repository:
    root.mkdir(parents=True)
    made = Repository(root)
    made.git("init", "-q", "-b", "main")
    made.git("config", "user.name", "Test")
    made.git("config", "user.email", "test@example.invalid")
    made.dvc("init", "-q")
    return made


@pytest.fixture(scope="session")
def _template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """main: v1 (tag data-v1), v3; `trial` holds v4; v2 was on a side branch that a merge threw away."""
    home = tmp_path_factory.mktemp("dvc")
    made = _new(home / "project")
    made.dvc("remote", "add", "-q", "-d", "store", str(home / "remote"))
    made.people("data/train/shard-0.csv", "ana", "bo")
    made.people("data/train/shard-1.csv", "cy")
    made.people("data/holdout.csv", "zed")
    made.write("data/commitment.json", "{}")
    made.add("data/train", "data/holdout.csv")
    made.commit("v1")
    made.push()
    made.git("tag", "-a", "data-v1", "-m", "first")
    made.git("checkout", "-q", "-b", "side")
    made.people("data/train/shard-1.csv", "cy", "dee")
    made.add("data/train")
    made.commit("v2")
    made.push()
    made.git("checkout", "-q", "main")
    made.git("merge", "-q", "-s", "ours", "side", "-m", "throw it away")
    made.git("branch", "-q", "-D", "side")
    made.people("data/train/shard-1.csv", "cy", "eve")
    made.add("data/train")
    made.commit("v3")
    made.push()
    made.git("checkout", "-q", "-b", "trial")
    made.people("data/train/shard-0.csv", "bo")
    made.people("data/holdout.csv", "yan")
    made.add("data/train", "data/holdout.csv")
    made.commit("v4")
    made.push()
    made.git("checkout", "-q", "main")
    made.dvc("checkout", "-q")
    return home


@pytest.fixture
def repository(_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """A copy whose cache is full and whose remote lies beside it."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    shutil.copytree(_template, tmp_path / "home", symlinks=True)
    made = Repository(tmp_path / "home/project")
    made.dvc("remote", "modify", "-q", "--local", "store", "url", str(tmp_path / "home/remote"))
    return made


@pytest.fixture
def new_repository() -> Callable[[Path], Repository]:
    """Makes a folder an empty Git and DVC repository."""
    return _new
