"""What DVC's tracking files say at every git revision and in the workspace, and what of it cannot be read.

Files are read with git's plumbing, a few processes for all revisions; parses are kept between runs under the object id of the bytes.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol

from ..digests import write_atomically
from ..errors import StoreError
from ..lineage import Derivation
from .dvc_locks import Import, Parsed, Reading, TrackedOutput, is_tracking_file, parse, read
from .dvc_templates import read_values, value_files, values
from .git_history import GitHistory, blob_id

WORKSPACE = "workspace"
_PATTERNS = ("*.dvc", "dvc.lock", "dvc.yaml")
_SCHEMA = "mlflow-unlearn.tracking/1"
_SHOWN = 4  # revisions that a line of `problems` names
_SHALLOW = "shallow clone: older commits, and the data and models made at them, are not here; run `git fetch --unshallow`"
_ABSENT = "its bytes are not in this clone; run `git fetch --refetch --no-filter`, or `git fsck` if this is no partial clone"
_NO_MD5 = "is tracked without an md5 (never downloaded, or kept by an object store's own versions), so what it held is not known"
_UNPLACED = "its folder (wdir) cannot be told from dvc.yaml and its vars, so where its outputs lay is not known"


class Files(Protocol):
    """Bytes of many files at many revisions: git's, or those of the workspace."""

    def blobs(self, revisions: Iterable[str], paths: Sequence[str]) -> dict[str, dict[str, str]]:
        """Revision -> path -> object id of the files that exist there."""

    def contents(self, blobs: Iterable[str]) -> Mapping[str, bytes]:
        """Object id -> bytes; what is not at hand is left out."""


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """All tracking files at one revision."""

    readings: tuple[Reading, ...]
    unread: Mapping[str, str] = field(default_factory=dict)
    """File -> why it cannot be read."""

    def output(self, path: str) -> TrackedOutput | None:
        """The output at a path, if one is tracked there."""
        return next((reading.outputs[path] for reading in self.readings if path in reading.outputs), None)


@dataclass(frozen=True, kw_only=True)
class Past:
    """Every revision that can differ: commits oldest first, then whatever has a name."""

    names: Mapping[str, str]
    """Revision -> its own name, for those that have one."""
    snapshots: Mapping[str, Snapshot]

    def label(self, revision: str) -> str:
        """How people call a revision: its name, else the first digits of the commit."""
        return self.names.get(revision) or revision[:8]


class TrackingHistory:
    """The tracking files of one repository, over all of its history."""

    def __init__(self, git: GitHistory) -> None:
        self.git = git
        self._readings: dict[tuple[str, ...], Reading] = {}
        self._grown = False
        self._last: tuple[object, Past] | None = None

    def past(self) -> Past:
        """Every commit of every ref that changed a tracking file, and every branch, tag, experiment and stash. Read again when a ref moved."""
        state = (self.git.run("for-each-ref"), self.git.commit("HEAD"))
        if self._last is None or self._last[0] != state:
            tips = self.git.tips()
            commits, files = self.git.changes(_PATTERNS, tips)
            revisions = list(dict.fromkeys([*commits, *tips]))
            snapshots = self._snapshots(self.git, revisions, [file for file in files if is_tracking_file(file)])
            self._last = state, Past(names=tips, snapshots=snapshots)
            self._keep_parses()
        return self._last[1]

    def at(self, commit: str) -> Snapshot:
        """One commit."""
        listed = self.git.run("ls-tree", "-r", "-z", "--full-tree", "--name-only", commit).decode(errors="surrogateescape").split("\0")
        return self._snapshots(self.git, [commit], [file for file in listed if is_tracking_file(file)])[commit]

    def workspace(self) -> Snapshot:
        """The files as they lie here, tracked by git or new."""
        globs = [f":(glob)**/{pattern}" for pattern in _PATTERNS]
        listed = self.git.run("ls-files", "-z", "-co", "--exclude-standard", "--", *globs).decode(errors="surrogateescape").split("\0")
        files = [file for file in dict.fromkeys(listed) if file and is_tracking_file(file)]
        return self._snapshots(_WorkspaceFiles(self.git.root), [WORKSPACE], files)[WORKSPACE]

    def snapshots(self) -> list[Snapshot]:
        """Every distinct state of the tracking files, that of the workspace included."""
        every = [*self.past().snapshots.values(), self.workspace()]
        return list({tuple(map(id, snapshot.readings)): snapshot for snapshot in every}.values())

    def derivations(self) -> set[Derivation]:
        """Every edge that a dvc.lock or an import names, at any revision and in the workspace."""
        return {edge for reading in self._all_readings() for edge in reading.derivations}

    def outputs(self) -> frozenset[str]:
        """md5 of every output, at any revision and in the workspace."""
        return frozenset(output.md5 for reading in self._all_readings() for output in reading.outputs.values())

    def imports(self) -> tuple[Import, ...]:
        """Every output that was ever taken from another repository."""
        return tuple(dict.fromkeys(each for reading in self._all_readings() for each in reading.imports))

    def cloud(self) -> frozenset[str]:
        """md5s of outputs that a cloud-versioned remote holds."""
        return frozenset(md5 for reading in self._all_readings() for md5 in reading.cloud)

    def problems(self) -> tuple[str, ...]:
        """What of the history cannot be read, a line each, sorted."""
        past = self.past()
        labelled = [*((past.label(revision), snapshot) for revision, snapshot in past.snapshots.items()), (WORKSPACE, self.workspace())]
        placed = {_identity(output) for _, each in labelled for reading in each.readings for output in reading.outputs.values()}
        found: dict[tuple[str, str], set[str]] = {}
        for label, snapshot in labelled:
            for what, why in _problems(snapshot, placed):
                found.setdefault((what, why), set()).add(label)
        return tuple(sorted([*(_line(*key, where) for key, where in found.items()), *([_SHALLOW] if self.git.is_shallow else [])]))

    def _all_readings(self) -> list[Reading]:
        return list({id(reading): reading for snapshot in self.snapshots() for reading in snapshot.readings}.values())

    def _snapshots(self, source: Files, revisions: Sequence[str], files: Sequence[str]) -> dict[str, Snapshot]:
        found = source.blobs(revisions, files)
        self._parse(source, {blob: file for blobs in found.values() for file, blob in blobs.items()})
        drawn = self._drawn(source, found)
        return {revision: self._snapshot(blobs, drawn.get(revision, {})) for revision, blobs in found.items()}

    def _drawn(self, source: Files, found: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
        """Revision -> file of values that a template draws from -> object id."""
        wanted = {
            revision: needed
            for revision, blobs in found.items()
            if (needed := [path for file, blob in blobs.items() for path in value_files(self._parsed(file, blob), posixpath.dirname(file))])
        }
        drawn = source.blobs(wanted, sorted({path for needed in wanted.values() for path in needed})) if wanted else {}
        self._parse(source, {blob: file for blobs in drawn.values() for file, blob in blobs.items()})
        return drawn

    def _snapshot(self, blobs: Mapping[str, str], drawn: Mapping[str, str]) -> Snapshot:
        parsed = ((file, self._parsed(file, blob)) for file, blob in {**blobs, **drawn}.items())
        unread = {file: document["problem"] for file, document in parsed if "problem" in document}
        told = [file for file in blobs if file not in unread and not file.endswith("dvc.yaml")]
        return Snapshot(readings=tuple(self._reading(file, blobs, drawn) for file in told), unread=unread)

    def _reading(self, file: str, blobs: Mapping[str, str], drawn: Mapping[str, str]) -> Reading:
        """Made once for equal bytes in equal surroundings, however many revisions share them."""
        folder, name = posixpath.split(file)
        beside = posixpath.join(folder, "dvc.yaml")
        pipeline = self._parsed(beside, blobs[beside]) if name == "dvc.lock" and beside in blobs else {}
        sources = value_files(pipeline, folder)
        key = (file, blobs[file], blobs.get(beside, "") if pipeline else "", *(drawn.get(path, "") for path in sources))
        if key not in self._readings:
            given = values(pipeline, folder, lambda path: self._parsed(path, drawn[path]).get("values") if path in drawn else None)
            self._readings[key] = read(file, self._parsed(file, blobs[file]), pipeline, given)
        return self._readings[key]

    def _parse(self, source: Files, blobs: Mapping[str, str]) -> None:
        new = {blob: file for blob, file in blobs.items() if _kind(file) + blob not in self._parses}
        contents = source.contents(new) if new else {}
        for blob, file in new.items():
            if blob in contents:
                self._parses[_kind(file) + blob] = _parsed_or_problem(file, contents[blob])
                self._grown = True

    def _parsed(self, file: str, blob: str) -> Parsed:
        return self._parses.get(_kind(file) + blob) or {"problem": _ABSENT}

    @cached_property
    def _parses(self) -> dict[str, Parsed]:
        """Kind and git object id -> what the file says; the id names the bytes, so nothing here can go stale."""
        try:
            kept = json.loads(self._parses_file.read_bytes())
            return dict(kept["parses"]) if kept["schema"] == _SCHEMA else {}
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    @property
    def _parses_file(self) -> Path:
        return self.git.root / ".unlearn/index/tracking.json"

    def _keep_parses(self) -> None:
        if self._grown and (self.git.root / ".unlearn").is_dir():
            write_atomically(self._parses_file, json.dumps({"schema": _SCHEMA, "parses": self._parses}).encode())
            self._grown = False


class _WorkspaceFiles:
    """The files as they lie here; no revision but the one."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._contents: dict[str, bytes] = {}

    def blobs(self, revisions: Iterable[str], paths: Sequence[str]) -> dict[str, dict[str, str]]:
        found = {}
        for path in paths:
            if (self._root / path).is_file():
                content = (self._root / path).read_bytes()
                found[path] = blob_id(content)
                self._contents[found[path]] = content
        return dict.fromkeys(revisions, found)

    def contents(self, blobs: Iterable[str]) -> Mapping[str, bytes]:
        return {blob: self._contents[blob] for blob in blobs}


def _parsed_or_problem(file: str, content: bytes) -> Parsed:
    try:
        return parse(file, content) if is_tracking_file(file) else {"values": read_values(file, content)}
    except StoreError as error:
        return {"problem": str(error)}


def _problems(snapshot: Snapshot, placed: set[tuple[str, ...]]) -> Iterator[tuple[str, str]]:
    """(what, why) of one revision; an output whose folder another revision tells is no loss."""
    yield from snapshot.unread.items()
    for reading in snapshot.readings:
        yield from ((path, _NO_MD5) for path in reading.undigested)
        yield from ((f"{each.owner}: {each.stage}", _UNPLACED) for each in reading.unplaced if _identity(each) not in placed)


def _identity(output: TrackedOutput) -> tuple[str, ...]:
    """What of an output does not hang on its stage's folder."""
    return output.owner, output.stage or "", posixpath.basename(output.path), output.md5


def _line(what: str, why: str, where: Iterable[str]) -> str:
    names = sorted(where)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{what} at {', '.join(names[:_SHOWN])}{more}: {why}"


def _kind(file: str) -> str:
    """`dvc.yaml:` or the like: equal bytes in files of different kinds say different things."""
    name = posixpath.basename(file)
    return f"{name if name in ('dvc.lock', 'dvc.yaml') else posixpath.splitext(name)[1]}:"
