"""A Git and DVC repository with one dataset of two files."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from plugin_repository import IDENTITY, Command


@pytest.fixture
def command(repository: Path) -> Command:
    """Run a program in the repository."""

    def run(program: str, *arguments: str) -> str:
        tool = str(Path(sys.executable).parent / program) if program == "dvc" else program
        extra = IDENTITY if program == "git" else ()
        return subprocess.run([tool, *extra, *arguments], cwd=repository, text=True, capture_output=True, check=True).stdout.strip()

    return run


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("plugin") / "repository"
    (root / "data/train/deep").mkdir(parents=True)
    (root / "data/train/a.csv").write_text("id\n1\n")
    (root / "data/train/deep/b.csv").write_text("id\n2\n")
    (root / "data/one.csv").write_text("id\n3\n")
    (root / "params.yaml").write_text("unlearn: {}\ndata: {name: customers, path: data/train}\n")
    dvc = str(Path(sys.executable).parent / "dvc")
    for line in (("git", "init", "-q"), (dvc, "init", "-q"), (dvc, "add", "-q", "data/train", "data/one.csv"), ("git", "add", "-A")):
        subprocess.run(line, cwd=root, check=True, capture_output=True)
    subprocess.run(["git", *IDENTITY, "commit", "-qm", "data"], cwd=root, check=True, capture_output=True)
    return root


@pytest.fixture
def repository(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the template, and the current folder."""
    import shutil

    root = tmp_path / "repository"
    shutil.copytree(template, root)
    monkeypatch.chdir(root)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # where `load` puts copies
    return root
