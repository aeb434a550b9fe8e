"""The DVC output that a path of the workspace belongs to, by reading as few tracking files as will do: a run that starts waits for it.

The files beside the path and above it come first; only a stage elsewhere that writes here through `wdir` needs the list of all of them.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import LineageError, StoreError
from .dvc_locks import Parsed, Reading, TrackedOutput, is_tracking_file, parse, read
from .dvc_templates import Values, read_values, read_yaml, values
from .git_state import Git, Place

_STAGES = b"\nstages:\n"
_STAGE = re.compile(rb"(?m)^(?=  \S)")
_PATTERNS = ("*.dvc", "dvc.lock")
_ESCAPES = (b"\\", b"''")
"""How YAML writes what it cannot write plainly; names with spaces it may break over lines."""


@dataclass(frozen=True, kw_only=True)
class Owned:
    """A path and the output that it is, or lies in."""

    output: TrackedOutput
    part: str | None
    """The path inside the output; None for the output itself."""
    content: bytes
    """Of the tracking file."""

    @property
    def unified_ends(self) -> bool:
        """Whether DVC 2 recorded it, whose md5 takes CRLF for LF in text files."""
        return _DVC_3 not in _outs_with(read_yaml(self.content), self.output.md5)


_DVC_3 = "md5"
"""What DVC 3 writes as the `hash` of an output."""


def owned(place: Place, path: str, git: Git | None) -> Owned:
    """The output in the workspace that `path` (relative to the place's top) is, or lies in.

    Raises:
        LineageError: DVC does not track it, or keeps no md5 of it.
        StoreError: a tracking file that may name it is in conflict or not YAML; git does not list the others.
    """
    search = _Search(place.top, path)
    for file in _files(place, path, git):
        found = search.inside(file)
        if found is not None:
            return found
    raise search.failure()


def output_in(top: Path, file: str, content: bytes, path: str) -> Owned | None:
    """The output that a tracking file with these bytes names for `path`, among the others it names; None where it names none.

    Raises:
        StoreError: it is in conflict or not YAML.
    """
    readings = (_reading(top, file, content, names) for names in _narrowing(file, path, content))
    return next((found for reading in readings if (found := _owner(reading, path, content)) is not None), None)


class _Search:
    """One look through tracking files, and what a failure can say afterwards."""

    def __init__(self, top: Path, path: str) -> None:
        self.top, self.path = top, path
        self.broken: dict[str, str] = {}
        self.seen: set[str] = set()

    def inside(self, file: str) -> Owned | None:
        """What one file says; one that cannot be read may still turn out not to matter."""
        try:
            content = (self.top / file).read_bytes()
            self.seen.add(file)
            return output_in(self.top, file, content, self.path)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None
        except StoreError as error:
            self.broken[file] = str(error)
        except OSError as error:
            self.broken[file] = f"cannot be read ({error.strerror}); restore it from git"
        return None

    def failure(self) -> LineageError | StoreError:
        """Why there is no output."""
        if self.broken:
            file, problem = next(iter(self.broken.items()))
            return StoreError(f"{file}: {problem}")
        contents = {file: (self.top / file).read_bytes() for file in sorted(self.seen)}
        readings = [_reading(self.top, file, content, next(_narrowing(file, self.path, content))) for file, content in contents.items()]
        below = sorted(each for reading in readings for each in reading.outputs if self.path == "." or each.startswith(f"{self.path}/"))
        if below:
            return LineageError(f"{self.path}: no DVC output itself, but holds {', '.join(below[:4])}; name each of them")
        if any(each == self.path for reading in readings for each in reading.undigested):
            return LineageError(f"{self.path}: DVC keeps no md5 of it here; run `dvc repro`, `dvc commit` or `dvc pull` first")
        return LineageError(f"{self.path}: not a DVC output here; run `dvc add {self.path}` or name the output of a stage (data.path in params.yaml)")


def _owner(reading: Reading, path: str, content: bytes) -> Owned | None:
    for candidate in (path, *map(str, PurePosixPath(path).parents)):
        if candidate in reading.outputs:
            part = posixpath.relpath(path, candidate) if candidate != path else None
            return Owned(output=reading.outputs[candidate], part=part, content=content)
    return None


def _narrowing(file: str, path: str, content: bytes) -> Iterator[tuple[str, ...] | None]:
    """Names of which a stage of a dvc.lock must mention one: the last part of the path, then any part; all stages where YAML may hide a name."""
    parts = PurePosixPath(path).parts
    if not file.endswith("dvc.lock") or not parts or any(hidden in content for hidden in _ESCAPES) or " " in path:
        yield None
        return
    yield parts[-1:]
    yield parts


def _reading(top: Path, file: str, content: bytes, names: Iterable[str] | None) -> Reading:
    parsed = parse(file, content if names is None else _mentioning(content, [name.encode(errors="surrogateescape") for name in names]))
    if not file.endswith("dvc.lock"):
        return read(file, parsed, {}, {})
    folder = posixpath.dirname(file)
    pipeline = _pipeline(top, posixpath.join(folder, "dvc.yaml"), parsed)
    return read(file, parsed, pipeline, values(pipeline, folder, lambda path: _values(top, path)))


def _mentioning(content: bytes, names: list[bytes]) -> bytes:
    """A dvc.lock as DVC writes it without the stages that mention none of the names: to parse YAML takes ms a stage. Any other file as it is."""
    if _STAGES not in content or b"<<<<<<<" in content:
        return content
    head, _, stages = content.partition(_STAGES)
    kept = [stage for stage in _STAGE.split(stages) if any(name in stage for name in names)]
    return head + (_STAGES + b"".join(kept) if kept else b"\nstages: {}\n")


def _pipeline(top: Path, file: str, parsed: Parsed) -> Parsed:
    """Folders of the stages; a dvc.yaml that says `wdir` nowhere need not be parsed."""
    try:
        content = (top / file).read_bytes()
    except FileNotFoundError:
        return {}
    if b"wdir" in content:
        return parse(file, content)
    return {"wdirs": {stage.rpartition("@")[0] or stage: {} for stage in parsed["stages"]}}


def _values(top: Path, path: str) -> Values | None:
    try:
        return read_values(path, (top / path).read_bytes())
    except (OSError, StoreError):
        return None


def _files(place: Place, path: str, git: Git | None) -> Iterator[str]:
    """Tracking files in the order in which they probably name the path, each once."""
    near = list(dict.fromkeys(_near(place, path)))
    yield from near
    known = set(near)
    yield from (file for file in _all(place, git) if file not in known)


def _near(place: Place, path: str) -> Iterator[str]:
    folders = [str(each) for each in PurePosixPath(path).parents]
    yield from (f"{each}.dvc" for each in (path, *folders) if each != ".")
    yield from (posixpath.normpath(posixpath.join(folder, "dvc.lock")) for folder in folders)
    for folder in folders:
        if (place.top / folder).is_dir():
            names = sorted(each.name for each in (place.top / folder).iterdir() if each.name.endswith(".dvc") and is_tracking_file(each.name))
            yield from (posixpath.normpath(posixpath.join(folder, name)) for name in names)


def _all(place: Place, git: Git | None) -> Iterator[str]:
    if git is not None:
        globs = [f":(glob)**/{pattern}" for pattern in _PATTERNS]
        listed = git.ask("ls-files", "-z", "-co", "--exclude-standard", "--", *globs).decode(errors="surrogateescape").split("\0")
        yield from (file for file in dict.fromkeys(listed) if file and is_tracking_file(file))
        return
    for base, folders, names in os.walk(place.top):
        folders[:] = sorted(each for each in folders if each not in (".dvc", ".git"))
        yield from (Path(base, name).relative_to(place.top).as_posix() for name in sorted(names) if is_tracking_file(name) and name != "dvc.yaml")


def _outs_with(value: Any, md5: str) -> set[str | None]:
    """The `hash` of every entry with this md5, wherever it stands in a tracking file."""
    if isinstance(value, Mapping):
        own = {value.get("hash")} if value.get("md5") == md5 else set()
        return own.union(*(_outs_with(each, md5) for each in value.values()))
    return set().union(*(_outs_with(each, md5) for each in value)) if isinstance(value, list) else set()
