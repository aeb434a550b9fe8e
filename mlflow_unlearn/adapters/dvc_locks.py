"""What DVC's own files say: which output has which md5, without importing DVC.

`dvc.lock` gives paths relative to the stage's `wdir`, which only the `dvc.yaml` beside it knows; a `.dvc` file brings its own `wdir`. Each file is
parsed to plain JSON values that depend on its bytes alone, so that a parse may be kept under the digest of those bytes.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import StoreError

Parsed = dict[str, Any]
_TEMPLATE = re.compile(r"\$\{\s*([\w.]+)\s*\}")


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


def is_tracking_file(path: str) -> bool:
    """Whether DVC keeps digests or working directories in a file of this name."""
    name = posixpath.basename(path)
    return name in ("dvc.lock", "dvc.yaml") or (name.endswith(".dvc") and name != ".dvc")


def parse(path: str, content: bytes, where: str) -> Parsed:
    """A tracking file as `outs` ([stage, path, md5] each) or, for dvc.yaml, `wdirs` (stage name -> folder).

    Raises:
        StoreError: not YAML, for example because of conflict markers.
    """
    document = _yaml(content, where)
    name = posixpath.basename(path)
    if name == "dvc.yaml":
        return {"wdirs": dict(_wdirs(_mapping(document.get("stages"))))}
    if name == "dvc.lock":
        stages = _mapping(document.get("stages"))
        return {"outs": [out for stage, entry in stages.items() for out in _outs(_mapping(entry), ".", str(stage))]}
    return {"outs": list(_outs(document, str(document.get("wdir") or "."), None))}


def outputs(parsed: Mapping[str, Parsed]) -> Iterator[TrackedOutput]:
    """Every output that the tracking files of one revision name; a stage whose folder cannot be told is left out.

    Args:
        parsed: path relative to the git root -> what `parse` made of the file.
    """
    for path, document in parsed.items():
        folder = posixpath.dirname(path)
        wdirs = parsed.get(posixpath.join(folder, "dvc.yaml"), {}).get("wdirs", {})
        for stage, out, md5 in document.get("outs", ()):
            wdir = "." if stage is None else _wdir_of(stage, wdirs)
            if wdir is not None:
                yield TrackedOutput(path=posixpath.normpath(posixpath.join(folder, wdir, out)), md5=md5, owner=path, stage=stage)


def _outs(entry: Mapping[str, Any], folder: str, stage: str | None) -> Iterator[list[str | None]]:
    for out in entry.get("outs") or ():
        if isinstance(out, Mapping) and out.get("md5") and out.get("path"):
            yield [stage, posixpath.join(folder, str(out["path"])), str(out["md5"])]


def _wdirs(stages: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, stage in stages.items():
        body = _mapping(_mapping(stage).get("do") or stage)
        wdir = str(body.get("wdir") or ".")
        yield str(name), wdir
        for suffix, item in _items(_mapping(stage)).items():
            yield f"{name}@{suffix}", _filled(wdir, {"item": item, "key": suffix})


def _items(stage: Mapping[str, Any]) -> dict[str, Any]:
    """Suffix of each foreach stage -> its item, where dvc.yaml writes the items out."""
    foreach = stage.get("foreach")
    if isinstance(foreach, Mapping):
        return {str(key): value for key, value in foreach.items()}
    if isinstance(foreach, list):
        return {str(number if isinstance(value, Mapping) else value): value for number, value in enumerate(foreach)}
    return {}


def _filled(text: str, values: Mapping[str, Any]) -> str:
    """The text with every template it can fill filled; what it cannot stays as it is."""
    return _TEMPLATE.sub(lambda match: _looked_up(match, values), text)


def _looked_up(match: re.Match[str], values: Mapping[str, Any]) -> str:
    value: Any = values
    for step in match[1].split("."):
        value = value.get(step) if isinstance(value, Mapping) else None
    return match[0] if value is None or isinstance(value, (Mapping, list)) else str(value)


def _wdir_of(stage: str, wdirs: Mapping[str, str]) -> str | None:
    base, _, suffix = stage.partition("@")
    wdir = wdirs.get(stage) or _filled(wdirs.get(base, "."), {"item": suffix or None, "key": suffix or None})
    return None if "${" in wdir else wdir


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _yaml(content: bytes, where: str) -> Mapping[str, Any]:
    from ruamel.yaml import YAML  # local: a run-context provider leads here, and a kept parse needs no YAML
    from ruamel.yaml.error import YAMLError

    try:
        return _mapping(YAML(typ="safe", pure=True).load(content.decode()))
    except (YAMLError, UnicodeDecodeError):
        hint = "it has conflict markers: run `git checkout --ours` on it, then `dvc repro`" if b"<<<<<<<" in content else "restore it from git"
        raise StoreError(f"{where}: not YAML; {hint}") from None
