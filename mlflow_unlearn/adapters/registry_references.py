"""What names a base model, and which registered versions such a name means.

A name is a version (`models:/NAME/VERSION`), a logged model (`m-...`, alone or inside a path), a run, a local path or URI, or the id of a public
model on a hub. The last is no registered version and saw none of our records; everything else either resolves or is a problem.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ..lineage import ModelVersion, Relation
from .registry_files import local_folder
from .registry_rows import VersionRow

LOGGED = re.compile(r"(?<![0-9A-Za-z])m-[0-9a-f]{32}(?![0-9A-Za-z])")
_RUN = re.compile(r"(?:^runs:/+|/)([0-9a-f]{32})(?=/|$)")
_VERSION = re.compile(r"^models:/+([^/@]+)/+(\d+)/?$")
_MOVING = re.compile(r"^models:/+([^/@]+)(?:@|/+)([^/@]+)/?$")
_HUB = re.compile(r"^(?:hf://|https?://huggingface\.co/|huggingface\.co/)|^[\w.\-]+(?:/[\w.\-]+)?$")
_CHECKPOINT = re.compile(r"(?:^|/)checkpoint-\d+/?$")  # what a trainer calls its folders
_DIGITS = 20
"""No version has more; Python makes no number of some thousands."""
_PATH = 4096
"""Characters; no path is longer on Linux."""
_PARTS = 64
"""Folders of a path that are looked up, from the first."""
_SHOWN = 200
NOTHING = frozenset({"", "none", "null", "true", "false"})
UNREGISTERED = "it was made from a model at a local path or address that is no registered version, and nobody knows what that one saw"


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """One record that says what a model was made from."""

    text: str
    relation: Relation
    evidence: str
    certain: bool = True
    """False when it is no problem that it leads nowhere."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """What a name means: versions, or a logged model or run that no version stands for, or nothing (a hub's id)."""

    versions: tuple[ModelVersion, ...] = ()
    logged_model: str | None = None
    run: str | None = None
    problem: str | None = None


@dataclass(frozen=True, kw_only=True)
class Registered:
    """Every registered version, by each name it may be called."""

    rows: Mapping[ModelVersion, VersionRow]
    logged: Mapping[str, tuple[ModelVersion, ...]]
    runs: Mapping[str, tuple[ModelVersion, ...]]
    paths: Mapping[str, tuple[ModelVersion, ...]]
    aliases: Mapping[tuple[str, str], ModelVersion]
    held: Mapping[ModelVersion, tuple[str, ...]]
    """Version -> its aliases."""
    known: dict[str, Target] = field(default_factory=dict)
    files: dict[str, str | None] = field(default_factory=dict)

    def target(self, text: str) -> Target:
        """What a name means."""
        if text not in self.known:
            self.known[text] = self._target(text.strip())
        return self.known[text]

    def logged_model(self, row: VersionRow) -> str | None:
        """The logged model whose files a version has, through copies."""
        if row.source not in self.files:
            self.files[row.source] = self._logged_model(row)
        return self.files[row.source]

    def _logged_model(self, row: VersionRow) -> str | None:
        seen: set[ModelVersion] = set()
        while (found := LOGGED.search(row.source)) is None:
            parent = copied_from(row)
            if parent is None or parent in seen or parent not in self.rows:
                return None
            seen.add(parent)
            row = self.rows[parent]
        return found.group()

    def _target(self, text: str) -> Target:
        if text.lower() in NOTHING:
            return Target()
        if (logged := LOGGED.search(text)) is not None:
            return Target(versions=self.logged.get(logged.group(), ()), logged_model=logged.group())
        if text.startswith("models:/"):
            return self._registered(text)
        if (run := _RUN.search(text)) is not None:
            return Target(versions=self.runs.get(run.group(1), ()), run=run.group(1))
        if text.startswith(("runs:/", ".")) or not _HUB.match(text) or _CHECKPOINT.search(text) or os.path.isdir(text):  # noqa: PTH112 - Path raises where a name is too long
            return self._path(text)
        return Target()

    def _registered(self, text: str) -> Target:
        if (exact := _VERSION.match(text)) is not None:
            version = _numbered(exact)
            return Target(versions=(version,)) if version in self.rows else Target(problem=f"it was made from {_shown(text)}, which no longer exists")
        moving = _MOVING.match(text)
        holder = self.aliases.get((moving.group(1), moving.group(2))) if moving is not None else None
        why = "which version that was at the time nobody knows: tag it unlearn.base_model = models:/NAME/VERSION"
        problem = f"it was made from {_shown(text)}, and {why}"
        return Target(versions=(holder,) if holder else (), problem=problem)

    def _path(self, text: str) -> Target:
        parts = _normal(text).split("/")[:_PARTS] if len(text) <= _PATH else []
        for end in range(len(parts), 1, -1):
            if versions := self.paths.get("/".join(parts[:end])):
                return Target(versions=versions)
        return Target(problem=UNREGISTERED)


def registered(rows: Iterable[VersionRow], aliases: Mapping[tuple[str, str], tuple[str, ...]]) -> Registered:
    """Index the versions of a registry, by name and number."""
    ordered = sorted(rows, key=lambda row: (row.name, int(row.version)))
    by_model = {ModelVersion(name=row.name, version=row.version): row for row in ordered}
    logged: dict[str, tuple[ModelVersion, ...]] = {}
    runs: dict[str, tuple[ModelVersion, ...]] = {}
    paths: dict[str, tuple[ModelVersion, ...]] = {}
    for model, row in by_model.items():
        if (found := LOGGED.search(row.source)) is not None:
            _add(logged, found.group(), model)
        elif row.source and not row.source.startswith(("models:", "runs:")):
            _add(paths, _normal(row.source), model)
        if row.run_id:
            _add(runs, row.run_id, model)
    held = {ModelVersion(name=name, version=version): names for (name, version), names in aliases.items()}
    named = {(model.name, alias): model for model, names in held.items() for alias in names}
    return Registered(rows=by_model, logged=logged, runs=runs, paths=paths, aliases=named, held=held)


def copied_from(row: VersionRow) -> ModelVersion | None:
    """The version a row is a copy of (`copy_model_version`), which may no longer exist."""
    found = _VERSION.match(row.source)
    return _numbered(found) if found else None


def _numbered(found: re.Match[str]) -> ModelVersion:
    """The version that a match of `_VERSION` names; one that no registry can have keeps its digits."""
    name, digits = found.groups()
    return ModelVersion(name=name, version=str(int(digits)) if len(digits) <= _DIGITS else digits)


def _shown(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _add(index: dict[str, tuple[ModelVersion, ...]], key: str, model: ModelVersion) -> None:
    index[key] = (*index.get(key, ()), model)


def _normal(location: str) -> str:
    folder = local_folder(location)
    return location.rstrip("/") if folder is None else posixpath.normpath(folder)
