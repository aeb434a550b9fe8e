"""Which repository a training script stands in, at which commit, clean or not: asked of git within a deadline, since a run waits for the answer.

Nothing here starts git's file-system monitor, takes a lock, asks for a password or follows the variables that a git hook sets.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from ..errors import StoreError

WAIT = 0.5
"""Seconds that a run may wait for git, all questions together."""
ROOT_COMMIT = "git-root:"
"""Begins the identity of a repository that has no remote: the first commit of its history follows."""
_OPTIONS = ("--no-optional-locks", "-c", "core.fsmonitor=false", "-c", "core.quotePath=false")
_SHOWN_USERS = ("git",)
_SCP = re.compile(r"(?:([^@/:\s]+)@)?([^@/:\s]{2,}):(?!//|:)(\S+)")
"""`user@host:path`, git's short form of ssh; one letter before the colon is a drive of Windows."""
_HERE = frozenset({"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR", "GIT_PREFIX", "GIT_NAMESPACE"})
"""What git tells its hooks about the repository they run for, which need not be the one asked about."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """The folders that decide what a path means."""

    dvc: Path
    """Holds `.dvc`."""
    git: Path | None
    """Holds `.git`, a folder or (worktree, submodule) a file; None where DVC runs without it."""

    @property
    def top(self) -> Path:
        """What paths of outputs are relative to."""
        return self.git or self.dvc


@dataclass(frozen=True, kw_only=True)
class State:
    """What the working tree stands on."""

    commit: str | None
    """None before the first commit."""
    dirty: bool
    """Whether tracked files differ from the commit."""


def place_of(start: Path) -> Place | None:
    """The DVC project at or above a folder and the git repository around it; None where there is no DVC."""
    dvc = next((folder for folder in (start, *start.parents) if (folder / ".dvc").is_dir()), None)
    if dvc is None:
        return None
    return Place(dvc=dvc, git=next((folder for folder in (dvc, *dvc.parents) if (folder / ".git").exists()), None))


@dataclass(frozen=True)
class Git:
    """One repository, asked with a deadline that all questions share; without one they may take as long as they need."""

    root: Path
    deadline: float | None = None
    """On the clock of time.monotonic."""

    @classmethod
    def within(cls, root: Path, seconds: float = WAIT) -> Git:
        """A repository whose answers have to be there in so many seconds."""
        return cls(root, time.monotonic() + seconds)

    def ask(self, *arguments: str, accept: tuple[int, ...] = (0,)) -> bytes:
        """Standard output of one git command.

        Raises:
            StoreError: git is missing, refuses, or does not answer in time; the message quotes nothing of what it says, which may hold paths.
        """
        about = f"git {arguments[0]}"
        try:
            process = subprocess.Popen(
                ["git", *_OPTIONS, *arguments],
                cwd=self.root,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise StoreError(f"{about}: cannot be started ({error.strerror or type(error).__name__}); install git or put it on PATH") from None
        said, complaint = self._answer(process, about)
        if process.returncode not in accept:
            raise StoreError(f"{about}: {_reason(complaint, process.returncode)}")
        return said

    def state(self) -> State:
        """Commit and dirt, in one process.

        Raises:
            StoreError: git does not say.
        """
        answer = self.ask("status", "--porcelain=v2", "--branch", "--no-ahead-behind", "--untracked-files=no", "--no-renames", "-z").split(b"\0")
        oid = next((line.split()[-1] for line in answer if line.startswith(b"# branch.oid ")), None)
        if oid is None:
            raise StoreError("git status: named no commit; git 2.13 or later is needed")
        return State(commit=None if oid == b"(initial)" else oid.decode(), dirty=any(line and not line.startswith(b"#") for line in answer))

    def identity(self) -> str | None:
        """What this repository is called wherever it is cloned: the URL of its remote, else `git-root:` and the first commit.

        None when neither is known.

        Raises:
            StoreError: git does not say.
        """
        listed = self.ask("config", "--null", "--get-regexp", r"^remote\..*\.url$", accept=(0, 1)).decode(errors="replace").split("\0")
        remotes = {key.removeprefix("remote.").removesuffix(".url"): url for key, _, url in (line.partition("\n") for line in listed if line)}
        urls = [public_url(remotes[name]) for name in sorted(remotes, key=lambda name: (name != "origin", name))]
        return next((url for url in urls if url), None) or self._first_commit()

    def _first_commit(self) -> str | None:
        """The oldest commit; of a shallow clone nobody here knows it."""
        if self.ask("rev-parse", "--is-shallow-repository").strip() == b"true":
            return None
        found = self.ask("rev-list", "--max-parents=0", "HEAD", "--", accept=(0, 128)).decode().split()
        return f"{ROOT_COMMIT}{found[-1]}" if found else None

    def _answer(self, process: subprocess.Popen[bytes], about: str) -> tuple[bytes, bytes]:
        left = None if self.deadline is None else max(self.deadline - time.monotonic(), 0.0)
        try:
            return process.communicate(timeout=left)
        except subprocess.TimeoutExpired:
            raise StoreError(f"{about}: no answer in time ({WAIT:g} s); the repository is very large, or its disk hangs") from None
        finally:
            if process.returncode is None:
                _end(process)


def public_url(url: str) -> str | None:
    """A remote's URL without user, password, query and fragment; None for a folder of this machine, which says nothing elsewhere."""
    if "://" not in url:
        match = _SCP.fullmatch(url)
        return None if match is None else f"{f'{match[1]}@' if match[1] in _SHOWN_USERS else ''}{match[2]}:{match[3]}"
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    user, _, host = parts.netloc.rpartition("@")
    if parts.scheme == "file" or not host:
        return None
    shown = f"{user}@" if user in _SHOWN_USERS and "ssh" in parts.scheme else ""
    return urlunsplit((parts.scheme, shown + host, parts.path, "", ""))


def _environment(variables: Mapping[str, str] | None = None) -> dict[str, str]:
    kept = {key: value for key, value in (os.environ if variables is None else variables).items() if key not in _HERE}
    return kept | {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0"}


def _reason(complaint: bytes, code: int) -> str:
    if b"dubious ownership" in complaint:
        return "refuses this folder, which belongs to someone else; allow it with `git config --global --add safe.directory`"
    return f"ended with {code}; run it here to see why"


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill a git that hangs and whatever it started, and wait for it alone: a grandchild may keep the pipes open."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        process.kill()
    process.wait()
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
