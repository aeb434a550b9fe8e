"""Git plumbing: which commits changed which files, and the bytes of many files at many revisions in one process, without a checkout."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import StoreError

_EXPERIMENT_DEPTH = 5  # refs/exps/ab/cdef.../name; deeper or shallower ones are DVC's own bookkeeping


@dataclass(frozen=True)
class GitHistory:
    """The object store and the refs of one repository."""

    root: Path

    def run(self, *arguments: str, stdin: bytes = b"") -> bytes:
        """Standard output of one git command.

        Raises:
            StoreError: git is missing or refuses.
        """
        return run(self.root, "git", *arguments, stdin=stdin)

    def tips(self) -> dict[str, str]:
        """Full name -> short name of every branch, tag and DVC experiment."""
        listed = self.run("for-each-ref", "--format=%(refname)", "refs/heads", "refs/tags", "refs/remotes", "refs/exps").decode().splitlines()
        return {ref: name for ref in listed if (name := _short_name(ref))}

    def changes(self, patterns: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Commits reachable from any ref or HEAD that change a file of these names, oldest first, and the files ever changed.

        Full history, since by default git leaves out a side branch whose changes a merge threw away, and a model may have been trained on it.
        """
        globs = [f":(glob)**/{pattern}" for pattern in patterns]
        listed = self.run("log", "--all", "--full-history", "--date-order", "--reverse", "-m", "--name-only", "-z", "--format=%x01%H", "--", *globs)
        fields = [field.strip("\n") for field in listed.decode(errors="surrogateescape").replace("\x01", "\0\x01").split("\0")]
        commits = dict.fromkeys(field[1:].strip() for field in fields if field.startswith("\x01"))
        return tuple(commits), tuple(sorted({field for field in fields if field and not field.startswith("\x01")}))

    def blobs(self, revisions: Iterable[str], paths: Sequence[str]) -> dict[str, dict[str, str]]:
        """Revision -> path -> object id of the files that exist there."""
        asked = [(revision, path) for revision in revisions for path in paths]
        question = "".join(f"{revision}:{path}\n" for revision, path in asked).encode(errors="surrogateescape")
        answers = self.run("cat-file", "--batch-check=%(objecttype) %(objectname)", stdin=question).decode(errors="replace").splitlines()
        found: dict[str, dict[str, str]] = {revision: {} for revision, _ in asked}
        for (revision, path), answer in zip(asked, answers, strict=True):
            if answer.startswith("blob "):
                found[revision][path] = answer.split()[1]
        return found

    def contents(self, blobs: Iterable[str]) -> Mapping[str, bytes]:
        """Object id -> bytes, in one process."""
        wanted = sorted(set(blobs))
        rest = memoryview(self.run("cat-file", "--batch", stdin="".join(f"{blob}\n" for blob in wanted).encode()))
        found: dict[str, bytes] = {}
        for blob in wanted:
            header = bytes(rest[:200]).split(b"\n", 1)[0]
            size = int(header.split()[2])
            start = len(header) + 1
            found[blob], rest = bytes(rest[start : start + size]), rest[start + size + 1 :]
        return found


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
        named = " ".join((Path(program).name, *arguments[:3]))
        raise StoreError(f"{named}: {said.splitlines()[-1]}")
    return done.stdout


def _short_name(ref: str) -> str | None:
    parts = ref.split("/")
    if parts[1] == "exps":
        return parts[-1] if len(parts) == _EXPERIMENT_DEPTH else None
    return None if parts[-1] == "HEAD" else "/".join(parts[2:])
