"""Git and DVC around one repository: every state a dataset ever had, what it became, and its bytes, without checking anything out.

Listing states reads tracking files with git's plumbing alone; DVC itself is imported only to fetch bytes that no disk here holds and to commit.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from pathlib import Path

from ..errors import LineageError, StoreError
from ..lineage import DatasetRevision, Derivation
from .dvc_history import WORKSPACE, Snapshot, TrackingHistory
from .dvc_locks import TrackedOutput
from .dvc_objects import DvcObjects
from .dvc_parts import parts
from .git_history import GitHistory, run

_EVERY_FIELD = attrgetter("source", "source_path", "target", "target_path", "stage")  # the order of the dataclass, in a tenth of its time


@dataclass(frozen=True)
class DvcProject:
    """A Git repository with DVC set up at its root or in a folder of it."""

    root: Path
    """The git root, from which all paths count."""
    start: Path | None = None
    """Where to look for DVC's project, upwards to the root; default: the root itself."""

    def __post_init__(self) -> None:
        if not (self.folder / ".dvc").is_dir():
            raise StoreError(f"{self.start or self.root}: DVC is not set up here; run `dvc init`, or work from the folder where it is")

    @cached_property
    def folder(self) -> Path:
        """The folder that holds `.dvc`; the root where there is none."""
        root, start = self.root.resolve(), (self.start or self.root).resolve()
        inside = (folder for folder in (start, *start.parents) if folder.is_relative_to(root) and folder != root)
        return next((folder for folder in inside if (folder / ".dvc").is_dir()), self.root)

    def dataset_states(self, name: str, path: str) -> tuple[DatasetRevision, ...]:
        """Every state of the DVC output at `path` (relative to the git root) over all commits of all refs, and the workspace.

        A committed tracking file that cannot be read hides its states: what was trained on them is unknown, never clear; `problems` names it.

        Returns:
            One entry an md5, sorted; `revisions` are branches, tags, experiments and stashes that hold it, or short commits where none does, and
            `workspace`.

        Raises:
            StoreError: the output is not in the workspace, and a tracking file there that might name it cannot be read.
        """
        past = self._tracking.past()
        commits: dict[str, set[str]] = {}
        names: dict[str, set[str]] = {}
        for revision, snapshot in past.snapshots.items():
            if found := snapshot.output(path):
                (names if revision in past.names else commits).setdefault(found.md5, set()).add(past.label(revision))
        current = self._in_workspace(path)
        here = {current.md5} if current else set()
        return tuple(
            DatasetRevision(name=name, path=path, md5=md5, revisions=_labels(names.get(md5) or commits.get(md5, set()), md5 in here))
            for md5 in sorted({*names, *commits, *here})
        )

    def derivations(self) -> tuple[Derivation, ...]:
        """Every edge of DVC's graph, from dvc.lock and imports, over all commits of all refs and the workspace; distinct, sorted.

        An output of another repository has the source path `url:path@revision` and no md5; a dependency that DVC keeps no md5 of has none either.
        A dependency inside an output is joined to it where the output's list of files is on this machine and proves it.
        """
        edges = self._tracking.derivations() | parts(self._tracking.snapshots(), self._objects.listing)
        return tuple(sorted(edges, key=_EVERY_FIELD))

    def outputs(self) -> frozenset[str]:
        """md5 of every DVC output over all commits of all refs and the workspace."""
        return self._tracking.outputs()

    def problems(self) -> tuple[str, ...]:
        """What of the history cannot be read, one line each, sorted: whatever hides behind it is unknown."""
        return self._tracking.problems()

    def current_state(self, name: str, path: str) -> DatasetRevision:
        """The state that the workspace's tracking files record.

        Raises:
            LineageError: DVC does not track `path`.
            StoreError: it is not found, and a tracking file cannot be read.
        """
        return DatasetRevision(name=name, path=path, md5=self._owned(path).md5, revisions=(WORKSPACE,))

    def output_at(self, path: str, revision: str) -> TrackedOutput | None:
        """The output at `path` in a git revision or in the `workspace`; None when DVC does not track it there.

        Raises:
            LineageError: there is no such revision.
            StoreError: it is not found, and a tracking file of that revision cannot be read.
        """
        if revision == WORKSPACE:
            return self._in_workspace(path)
        commit = self.git.commit(revision)
        if commit is None:
            raise LineageError(f"revision '{revision}': not in this repository; run `git fetch --tags` or name a branch, tag or commit")
        return _output(self._tracking.at(commit), path, f" at {revision}")

    def beside(self, path: str, state: DatasetRevision) -> str | None:
        """md5 of another output (hold-out, canaries, ...) beside a dataset state: in the oldest commit that holds both, else in the workspace.

        Names in `state.revisions` are not trusted: a branch moves on, a pinned state does not.
        """
        for snapshot in self._tracking.past().snapshots.values():
            found, sibling = snapshot.output(state.path), snapshot.output(path)
            if found and sibling and found.md5 == state.md5:
                return sibling.md5
        current, sibling = self._in_workspace(state.path), self._in_workspace(path)
        return sibling.md5 if sibling and current and current.md5 == state.md5 else None

    def git_show(self, revision: str, path: str) -> bytes | None:
        """A git-tracked file at a revision; None when it is not in it."""
        blob = self.git.blobs([revision], [path])[revision].get(path)
        return self.git.contents([blob]).get(blob) if blob else None

    def files(self, md5: str) -> tuple[tuple[str, str], ...]:
        """(relative path, file md5) of every file in an output; a single file has the empty path.

        Raises:
            StoreError: nobody holds the list, or it is not one.
        """
        return self._objects.files(md5)

    def local_path(self, md5: str) -> Path:
        """Where an object lies on this machine: in DVC's cache or in a directory that is a remote of any revision, else fetched. Read only.

        Raises:
            StoreError: neither the cache, nor a remote of any revision, nor the repository it was imported from holds it; or its bytes are others
                than its md5 says.
        """
        return self._objects.find(md5)

    def prefetch(self, md5s: Iterable[str]) -> None:
        """Bring objects that are not on this machine, all at once; what nobody holds stays missing."""
        self._objects.fetch(md5s)

    def commit_output(self, path: str, message: str | None = None) -> None:
        """Record the workspace bytes of an output as its new state, in DVC and in a git commit of its tracking file alone.

        Raises:
            LineageError: DVC does not track `path`.
            StoreError: dvc or git refuses.
        """
        owner = self._owned(path)
        file = os.path.relpath(self.root.resolve() / owner.owner, self.folder.resolve())
        run(
            self.folder,
            sys.executable,
            "-m",
            "dvc",
            "commit",
            "-q",
            "-f",
            f"{file.removesuffix('.lock')}.yaml:{owner.stage}" if owner.stage else file,
        )
        if self.git.run("status", "--porcelain", "--", owner.owner):
            self.git.run("add", "--", owner.owner)
            self.git.run("commit", "-q", "-m", message or f"New revision of {path}", "--", owner.owner)

    def head(self) -> str | None:
        """The current commit; None before the first."""
        return self.git.commit("HEAD")

    def is_dirty(self) -> bool:
        """Whether tracked files differ from the current commit."""
        return self.git.is_dirty()

    @cached_property
    def git(self) -> GitHistory:
        """The repository's history."""
        return GitHistory(self.root)

    @cached_property
    def _tracking(self) -> TrackingHistory:
        return TrackingHistory(self.git)

    @cached_property
    def _objects(self) -> DvcObjects:
        return DvcObjects(self.folder, self._tracking)

    def _in_workspace(self, path: str) -> TrackedOutput | None:
        return _output(self._tracking.workspace(), path, "")

    def _owned(self, path: str) -> TrackedOutput:
        snapshot = self._tracking.workspace()
        found = _output(snapshot, path, "")
        if found is not None:
            return found
        around = next((each for reading in snapshot.readings for each in reading.outputs if path.startswith(f"{each}/")), None)
        hint = f"it lies inside the output {around}, name that" if around else f"run `dvc add {path}` or name the output of a stage"
        raise LineageError(f"{path}: not a DVC output here; {hint} (data.path in params.yaml)")


def _output(snapshot: Snapshot, path: str, where: str) -> TrackedOutput | None:
    """The output at a path, which may be absent only if every tracking file was read."""
    found = snapshot.output(path)
    if found is None and snapshot.unread:
        file = f"{path}.dvc" if f"{path}.dvc" in snapshot.unread else min(snapshot.unread)
        raise StoreError(f"{file}{where}: {snapshot.unread[file]}")
    return found


def _labels(names: set[str], here: bool) -> tuple[str, ...]:
    return tuple(sorted(names | ({WORKSPACE} if here else set())))
