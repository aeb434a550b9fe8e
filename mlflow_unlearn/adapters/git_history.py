"""Git plumbing: which commits changed which files, and the bytes of many files at many revisions in one process, without a checkout."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ..errors import StoreError

_EXPERIMENT_DEPTH = 5  # refs/exps/ab/cdef.../name; deeper or shallower ones are DVC's own bookkeeping
_STASHES = {
    "refs/stash": "stash",
    "refs/exps/stash": "queued experiment",
    "refs/exps/celery/stash": "queued experiment",
    "refs/exps/celery/failed": "failed experiment",
}
"""Refs that hold one entry; the older ones are in their reflog alone."""


@dataclass(frozen=True)
class GitHistory:
    """The object store and the refs of one repository."""

    root: Path

    def run(self, *arguments: str, stdin: bytes = b"") -> bytes:
        """Standard output of one git command, which neither takes a lock to read nor lets a replacement stand for an object (`git replace`).

        Raises:
            StoreError: git is missing or refuses.
        """
        return run(self.root, "git", "--no-optional-locks", "--no-replace-objects", *arguments, stdin=stdin)

    def tips(self) -> dict[str, str]:
        """What has a name of its own: full ref or commit -> name of every branch, tag, DVC experiment, stash, queued and failed experiment."""
        fields = "%(objectname) %(refname) %(objecttype)%(*objecttype)"
        listed = [line.split(" ") for line in self.run("for-each-ref", f"--format={fields}").decode(errors="surrogateescape").splitlines()]
        named = {ref: name for _, ref, kind in listed if kind.endswith(("commit", "tagtag")) and (name := _short_name(ref))}
        entries = {commit: _STASHES[ref] for commit, ref, _ in listed if ref in _STASHES}
        stashes = [ref for _, ref, _ in listed if ref in _STASHES]
        for line in self.run("log", "-g", "--format=%H %gD", *stashes, "--").decode().splitlines() if stashes else ():
            commit, selector = line.split(" ", 1)
            entries[commit] = _STASHES[selector.rpartition("@")[0]]
        return named | {commit: f"{kind} {commit[:7]}" for commit, kind in entries.items()}

    def changes(self, patterns: Sequence[str], tips: Iterable[str] = ()) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Commits reachable from any ref, HEAD or these tips that change a file of these names, oldest first, and the files ever changed.

        Full history, since by default git leaves out a side branch whose changes a merge threw away, and a model may have been trained on it.

        Raises:
            StoreError: git cannot walk the history, for example because a partial clone lacks trees.
        """
        walk = ("--all", "--stdin", "--full-history", "--date-order", "--reverse", "--diff-merges=separate", "--name-only", "--no-renames", "-z")
        globs = [f":(glob)**/{pattern}" for pattern in patterns]
        settings = ("-c", "log.showRoot=true", "-c", "log.showSignature=false")
        stdin = "".join(f"{tip}\n" for tip in tips).encode(errors="surrogateescape")
        listed = self.run(*settings, "log", *walk, "--format=%x01%H", "--", *globs, stdin=stdin)
        fields = [field.strip("\n") for field in listed.decode(errors="surrogateescape").replace("\x01", "\0\x01").split("\0")]
        commits = dict.fromkeys(field[1:].strip() for field in fields if field.startswith("\x01"))
        return tuple(commits), tuple(sorted({field for field in fields if field and not field.startswith("\x01")}))

    def blobs(self, revisions: Iterable[str], paths: Sequence[str]) -> dict[str, dict[str, str]]:
        """Revision -> path -> object id of the files that exist there."""
        found: dict[str, dict[str, str]] = {revision: {} for revision in revisions}
        if self.is_partial or any("\n" in path for path in paths):  # to ask a partial clone for a type fetches the object, one connection each
            return {revision: self._listed(revision, set(paths)) for revision in found}
        asked = [(revision, path) for revision in found for path in paths]
        question = "".join(f"{revision}:{path}\n" for revision, path in asked).encode(errors="surrogateescape")
        answers = self.run("cat-file", "--batch-check=%(objecttype) %(objectname)", stdin=question).decode(errors="replace").splitlines()
        for (revision, path), answer in zip(asked, answers, strict=True):
            if answer.startswith("blob "):
                found[revision][path] = answer[5:]
        return found

    def contents(self, blobs: Iterable[str]) -> Mapping[str, bytes]:
        """Object id -> bytes, in one process; objects that this clone lacks are left out."""
        wanted = sorted(set(blobs) & self._held if self.is_partial else set(blobs))
        rest = memoryview(self.run("cat-file", "--batch", stdin="".join(f"{blob}\n" for blob in wanted).encode()))
        found: dict[str, bytes] = {}
        for blob in wanted:
            header = bytes(rest[:200]).split(b"\n", 1)[0]
            start = len(header) + 1
            if header.endswith(b" missing"):
                rest = rest[start:]
                continue
            size = int(header.split()[2])
            found[blob], rest = bytes(rest[start : start + size]), rest[start + size + 1 :]
        return found

    def commit(self, revision: str) -> str | None:
        """The full id of the commit that a revision names; None when there is none."""
        answer = self.run("cat-file", "--batch-check=%(objectname)", stdin=f"{revision}^{{commit}}\n".encode()).decode().split()
        return answer[0] if len(answer) == 1 else None

    def is_dirty(self) -> bool:
        """Whether tracked files differ from the current commit."""
        return bool(self.run("status", "--porcelain", "--untracked-files=no", "--no-renames"))

    @property
    def is_shallow(self) -> bool:
        """Whether history was cut off when this was cloned."""
        return (self._common / "shallow").exists()

    @cached_property
    def is_partial(self) -> bool:
        """Whether objects were left on the server when this was cloned."""
        return any((self._common / "objects/pack").glob("*.promisor"))

    @cached_property
    def _common(self) -> Path:
        """The folder that every worktree shares."""
        return self.root / self.run("rev-parse", "--git-common-dir").decode(errors="surrogateescape").rstrip("\n")

    @property
    def _held(self) -> set[str]:
        """Every object that lies here."""
        return set(self.run("cat-file", "--batch-all-objects", "--unordered", "--batch-check=%(objectname)").decode().split())

    def _listed(self, revision: str, paths: set[str]) -> dict[str, str]:
        entries = self.run("ls-tree", "-r", "-z", "--full-tree", f"{revision}^{{tree}}").decode(errors="surrogateescape").split("\0")
        return {path: about.split()[2] for about, tab, path in (entry.partition("\t") for entry in entries) if tab and path in paths}


def blob_id(content: bytes) -> str:
    """The id git gives these bytes (SHA-1 repositories)."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def run(root: Path, program: str, *arguments: str, stdin: bytes = b"") -> bytes:
    """Standard output of a command run in `root`.

    Raises:
        StoreError: it is not installed or ends with an error; its last line is quoted.
    """
    if shutil.which(program) is None:
        raise StoreError(f"{Path(program).name}: not on PATH; install it or activate the environment that has it")
    done = subprocess.run([program, *arguments], cwd=root, input=stdin, capture_output=True, check=False)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).decode(errors="replace").strip() or f"ended with {done.returncode}"
        words = [word for word in arguments if not word.startswith("--no-")]
        raise StoreError(f"{' '.join((Path(program).name, *words[:3]))}: {said.splitlines()[-1]}")
    return done.stdout


def _short_name(ref: str) -> str | None:
    parts = ref.split("/")
    if len(parts) < 3 or parts[1] not in ("heads", "tags", "remotes", "exps") or parts[-1] == "HEAD":
        return None
    if parts[1] == "exps":
        return parts[-1] if len(parts) == _EXPERIMENT_DEPTH else None
    return "/".join(parts[2:])
