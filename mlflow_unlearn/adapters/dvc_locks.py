"""What DVC's own files say: which output has which md5 and what it was made from, without importing DVC.

`dvc.lock` gives paths relative to the stage's `wdir`, which only the `dvc.yaml` beside it knows; a `.dvc` file brings its own `wdir`. Each file is
parsed to plain JSON values that depend on its bytes alone, so that a parse may be kept under the digest of those bytes.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import StoreError
from ..lineage import Derivation
from .dvc_templates import Values, folder_of, read_yaml, stage_folders

Parsed = dict[str, Any]
MD5 = re.compile(r"[0-9a-f]{32}(\.dir)?")
"""DVC's digest. Anything else in its place is no name of an object, and as a path it could lead anywhere."""


@dataclass(frozen=True, kw_only=True)
class TrackedOutput:
    """One output under DVC."""

    path: str
    """Relative to the git root, POSIX."""
    md5: str
    owner: str
    """The file that tracks it: `path/to/dvc.lock` or `data.dvc`."""
    stage: str | None = None
    """Stage name inside dvc.yaml; None for a `.dvc` file."""


@dataclass(frozen=True, kw_only=True)
class Import:
    """An output that `dvc import` took from another repository."""

    md5: str
    url: str
    """Of the repository: a git URL or a local path."""
    path: str
    """Inside that repository."""
    revision: str
    owner: str
    """The `.dvc` file."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What one tracking file says at one revision."""

    outputs: Mapping[str, TrackedOutput] = field(default_factory=dict)
    """By path."""
    derivations: tuple[Derivation, ...] = ()
    imports: tuple[Import, ...] = ()
    unplaced: tuple[TrackedOutput, ...] = ()
    """Outputs of stages whose folder cannot be told; their paths are relative to that."""
    undigested: tuple[str, ...] = ()
    """Paths of outputs without an md5."""
    cloud: tuple[str, ...] = ()
    """md5s of outputs whose bytes lie in a cloud-versioned remote."""


def is_tracking_file(path: str) -> bool:
    """Whether DVC keeps digests or working directories in a file of this name."""
    name = posixpath.basename(path)
    return name in ("dvc.lock", "dvc.yaml") or (name.endswith(".dvc") and name != ".dvc")


def parse(path: str, content: bytes) -> Parsed:
    """A tracking file as plain values: `stages` of a dvc.lock or `.dvc` file, folders of a dvc.yaml.

    Raises:
        StoreError: not YAML, for example because of conflict markers, or not of the shape of DVC's files. The message does not name the file.
    """
    document = _document(content)
    name = posixpath.basename(path)
    if name == "dvc.yaml":
        return stage_folders(document)
    if name == "dvc.lock":
        stages = document.get("stages") if "stages" in document or "schema" in document else document  # DVC 1 wrote no schema
        return {"stages": {str(stage): _entry(_checked(entry)) for stage, entry in (_checked(stages) if stages else {}).items()}}
    if not document:
        raise StoreError("empty; restore it from git")
    return {"stages": {"": _entry(document)}, "wdir": str(document.get("wdir") or ".")}


def read(path: str, parsed: Parsed, pipeline: Parsed, given: Values) -> Reading:
    """A parsed dvc.lock or `.dvc` file, its paths relative to the git root.

    Args:
        path: the file, relative to the git root.
        parsed: what `parse` made of it.
        pipeline: what `parse` made of the dvc.yaml beside a dvc.lock.
        given: the values that its templates are filled from.
    """
    readings = []
    for stage, entry in parsed.get("stages", {}).items():
        folder = folder_of(stage, pipeline, given) if stage else parsed["wdir"]
        readings.append(_unplaced(path, stage, entry) if folder is None else _placed(path, stage, entry, folder))
    return Reading(
        outputs={key: output for reading in readings for key, output in reading.outputs.items()},
        derivations=tuple(each for reading in readings for each in reading.derivations),
        imports=tuple(each for reading in readings for each in reading.imports),
        unplaced=tuple(each for reading in readings for each in reading.unplaced),
        undigested=tuple(each for reading in readings for each in reading.undigested),
        cloud=tuple(each for reading in readings for each in reading.cloud),
    )


def _placed(path: str, stage: str, entry: Parsed, folder: str) -> Reading:
    base = posixpath.join(posixpath.dirname(path), folder)
    made = [(_at(base, out), md5) for out, md5 in entry["outs"]]
    digested = [(out, md5) for out, md5 in made if md5]
    sources = [(_at(base, dep) if not repository else f"{repository[0]}:{dep}@{repository[1]}", md5) for dep, md5, repository in entry["deps"]]
    address = _address(path, stage)
    return Reading(
        outputs={out: TrackedOutput(path=out, md5=md5, owner=path, stage=stage or None) for out, md5 in digested},
        derivations=tuple(
            Derivation(source=source, source_path=source_path, target=md5, target_path=out, stage=address)
            for source_path, source in sources
            for out, md5 in digested
        ),
        imports=tuple(
            Import(md5=md5, url=repository[0], path=dep, revision=repository[1], owner=path)
            for dep, _, repository in entry["deps"]
            if repository
            for _, md5 in digested
        ),
        undigested=tuple(out for out, md5 in made if not md5),
        cloud=tuple(entry["cloud"]),
    )


def _unplaced(path: str, stage: str, entry: Parsed) -> Reading:
    return Reading(unplaced=tuple(TrackedOutput(path=out, md5=md5, owner=path, stage=stage) for out, md5 in entry["outs"]))


def _address(path: str, stage: str) -> str:
    return f"{path.removesuffix('dvc.lock')}dvc.yaml:{stage}" if stage else path


def _entry(entry: Mapping[str, Any]) -> Parsed:
    """One stage: outputs as [path, md5], dependencies as [path, md5, repository], digests that are missing as the empty text."""
    outs = _several(entry.get("outs"))
    digested = [[_path(out), _digest(out)] for out in outs]
    return {
        "outs": digested,
        "deps": [_dependency(dep) for dep in _several(entry.get("deps"))],
        "cloud": sorted(md5 for (_, md5), out in zip(digested, outs, strict=True) if md5 and _is_cloud(out)),
    }


def _dependency(dep: Mapping[str, Any]) -> list[Any]:
    repository = dep.get("repo")
    if isinstance(repository, Mapping):
        return [str(dep.get("path", "")), "", [str(repository.get("url", "")), str(repository.get("rev_lock") or repository.get("rev") or "HEAD")]]
    return [str(dep.get("path") or "a database"), _digest(dep), None]  # `dvc import-db` names a query, which is not for showing


def _digest(entry: Mapping[str, Any]) -> str:
    """md5 of an output or dependency; a directory whose files are listed one by one (cloud versioning) has the digest of that list."""
    md5 = entry.get("md5")
    if md5 is None and entry.get("files"):
        files = sorted(_several(entry["files"]), key=lambda each: str(each.get("relpath")))
        listing = json.dumps([{"md5": each.get("md5"), "relpath": each.get("relpath")} for each in files])
        md5 = hashlib.md5(listing.encode(), usedforsecurity=False).hexdigest() + ".dir" if all(each.get("md5") for each in files) else None
    if md5 is not None and not MD5.fullmatch(str(md5)):
        raise StoreError("an md5 in it is not 32 hexadecimal digits; restore it from git")
    return "" if md5 is None else str(md5)


def _is_cloud(out: Mapping[str, Any]) -> bool:
    return any("cloud" in each or "version_id" in each for each in (out, *_several(out.get("files"))))


def _at(base: str, path: str) -> str:
    return path if "://" in path else posixpath.normpath(posixpath.join(base, path))


def _several(value: Any) -> list[Mapping[str, Any]]:
    return [_checked(each) for each in (value if isinstance(value, list) else [] if value is None else [value])]


def _path(out: Mapping[str, Any]) -> str:
    if not out.get("path"):
        raise StoreError("an output in it has no path; restore it from git")
    return str(out["path"])


def _checked(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise StoreError("not of the shape of DVC's files; restore it from git")
    return value


def _document(content: bytes) -> Mapping[str, Any]:
    try:
        document = read_yaml(content)
    except ValueError:
        hint = "it has conflict markers: run `git checkout --ours` on it, then `dvc repro`" if b"<<<<<<<" in content else "restore it from git"
        raise StoreError(f"not YAML; {hint}") from None
    return {} if document is None else _checked(document)
