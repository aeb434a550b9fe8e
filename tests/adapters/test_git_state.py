"""Where a script stands, asked of real git: worktrees, submodules, hooks, and a git that is missing, refuses or hangs."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from mlflow_unlearn.adapters.git_state import Git, State, place_of, public_url
from mlflow_unlearn.errors import StoreError


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "protocol.file.allow=always")
    return subprocess.run(["git", *identity, *arguments], cwd=folder, text=True, capture_output=True, check=True).stdout.strip()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with one commit and a `.dvc` folder."""
    root = tmp_path / "repository"
    (root / ".dvc").mkdir(parents=True)
    (root / ".dvc/config").write_text("")
    (root / "train.py").write_text("print(1)\n")
    git(root, "init", "-q")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "first")
    return root


def impostor(folder: Path, script: str) -> Path:
    """A folder with another `git` in it."""
    folder.mkdir()
    (folder / "git").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "git").chmod(0o755)
    return folder


def test_commit_and_dirt_are_gits_own(root: Path) -> None:
    head = git(root, "rev-parse", "HEAD")
    assert Git.within(root).state() == State(commit=head, dirty=False)
    (root / "new").write_text("untracked files are no dirt")
    assert Git.within(root).state() == State(commit=head, dirty=False)
    (root / "train.py").write_text("print(2)\n")
    assert Git.within(root).state() == State(commit=head, dirty=True)


def test_staged_and_deleted_files_are_dirt(root: Path) -> None:
    (root / "new").write_text("x")
    git(root, "add", "new")
    assert Git.within(root).state().dirty
    git(root, "commit", "-qm", "second")
    (root / "new").unlink()
    assert Git.within(root).state().dirty


def test_before_the_first_commit_there_is_none(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    assert (Git.within(tmp_path).state(), Git.within(tmp_path).identity()) == (State(commit=None, dirty=False), None)


def test_a_detached_head_a_worktree_and_a_clone_are_the_same_commit(root: Path, tmp_path: Path) -> None:
    git(root, "worktree", "add", "-q", "--detach", str(tmp_path / "tree"))
    git(tmp_path, "clone", "-q", str(root), "clone")
    git(root, "checkout", "-q", "--detach")
    assert len({Git.within(each).state() for each in (root, tmp_path / "tree", tmp_path / "clone")}) == 1
    assert len({Git.within(each).identity() for each in (root, tmp_path / "tree", tmp_path / "clone")}) == 1


def test_a_submodule_with_dvc_is_its_own_repository(root: Path, tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "whole")
    git(tmp_path / "whole", "submodule", "--quiet", "add", str(root), "part")
    place = place_of(tmp_path / "whole/part")
    assert place is not None
    assert (place.dvc, place.git) == (tmp_path / "whole/part", tmp_path / "whole/part")
    assert Git.within(place.top).state().commit == git(root, "rev-parse", "HEAD")


def test_dvc_may_stand_in_a_folder_of_the_repository_or_without_git(root: Path, tmp_path: Path) -> None:
    (root / "sub/.dvc").mkdir(parents=True)
    (root / "sub/deep").mkdir()
    (tmp_path / "alone/.dvc").mkdir(parents=True)
    deep, alone = place_of(root / "sub/deep"), place_of(tmp_path / "alone")
    assert deep is not None
    assert (deep.dvc, deep.git, deep.top) == (root / "sub", root, root)
    assert alone is not None
    assert (alone.git, alone.top) == (None, tmp_path / "alone")
    assert place_of(tmp_path) is None


def test_the_identity_is_the_remote_else_the_first_commit(root: Path) -> None:
    first = git(root, "rev-parse", "HEAD")
    git(root, "commit", "-q", "--allow-empty", "-m", "second")
    assert Git.within(root).identity() == f"git-root:{first}"
    git(root, "remote", "add", "a", "/somewhere/here")
    assert Git.within(root).identity() == f"git-root:{first}"
    git(root, "remote", "add", "b", "https://example.org/b.git")
    git(root, "remote", "add", "origin", "https://alice:secret@example.org/team/data.git")
    assert Git.within(root).identity() == "https://example.org/team/data.git"


def test_a_shallow_clone_does_not_pass_its_boundary_for_the_first_commit(root: Path, tmp_path: Path) -> None:
    git(root, "commit", "-q", "--allow-empty", "-m", "second")
    git(tmp_path, "clone", "-q", "--depth", "1", root.as_uri(), "shallow")
    assert Git.within(tmp_path / "shallow").identity() is None


@pytest.mark.parametrize(
    ("url", "public"),
    [
        ("https://token@github.com/team/data.git", "https://github.com/team/data.git"),
        ("https://user:p%40ss@host:8443/x?private_token=1#y", "https://host:8443/x"),
        ("https://user:p@ss@host/x", "https://host/x"),
        ("git@github.com:team/data.git", "git@github.com:team/data.git"),
        ("alice@host:data", "host:data"),
        ("ssh://alice@host:22/data", "ssh://host:22/data"),
        ("ssh://git@host/data", "ssh://git@host/data"),
        ("file:///home/alice/data", None),
        ("/home/alice/data", None),
        ("../data", None),
        ("C:/data", None),
        ("ext::program", None),
        ("https://[broken/x", None),
    ],
)
def test_a_url_goes_out_without_credentials_and_people(url: str, public: str | None) -> None:
    assert public_url(url) == public


def test_what_a_hook_says_of_another_repository_is_not_believed(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git(tmp_path, "init", "-q", "other")
    expected = Git.within(root).state()
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other/.git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "index"))
    assert Git.within(root).state() == expected


def test_a_missing_git_says_so(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StoreError, match=r"git status: cannot be started .*; install git or put it on PATH"):
        Git.within(root).state()


def test_a_git_that_may_not_be_run_says_so(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (impostor(tmp_path / "bin", "exit 0") / "git").write_bytes(b"\x00not a program")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(StoreError, match="git status: cannot be started"):
        Git.within(root).state()


def test_a_repository_of_somebody_else_is_refused_in_our_words(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    with pytest.raises(StoreError, match=r"belongs to someone else; allow it with `git config --global --add safe\.directory`") as refusal:
        Git.within(root).state()
    assert str(root) not in str(refusal.value)


def test_an_answer_that_names_no_commit_is_refused(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(impostor(tmp_path / "bin", "echo nonsense")))
    with pytest.raises(StoreError, match="named no commit"):
        Git.within(root).state()


def test_a_git_that_hangs_is_left_after_the_deadline_and_nothing_of_it_stays(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pid = tmp_path / "pid"
    monkeypatch.setenv("PATH", f"{impostor(tmp_path / 'bin', f'sleep 60 & echo $! > {pid}; wait')}{os.pathsep}{os.environ['PATH']}")
    started = time.monotonic()
    with pytest.raises(StoreError, match=r"git status: no answer in time \(0\.5 s\)"):
        Git.within(root).state()
    assert time.monotonic() - started < 2
    deadline = time.monotonic() + 5
    while _lives(int(pid.read_text())) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _lives(int(pid.read_text()))


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False
