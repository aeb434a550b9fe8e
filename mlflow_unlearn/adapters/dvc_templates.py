"""Where a stage of dvc.yaml runs: `wdir` with its `${...}` filled in from `vars`, params.yaml, `foreach` and `matrix`, as DVC fills them.

DVC resolves every field of a stage; dvc.lock holds the results of all but `wdir`, so that is all that has to be resolved here. Without DVC.
"""

from __future__ import annotations

import json
import posixpath
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import product
from typing import Any

from ..errors import StoreError

Values = Mapping[str, Any]
_TEMPLATE = re.compile(r"(?<!\\)\$\{([^}]*)\}")
_OWN = {"item", "key"}
"""Names that a foreach or matrix stage brings itself."""
_DEFAULT = "params.yaml"


class UnresolvedError(LookupError):
    """A template that nothing here fills."""


def stage_folders(document: Mapping[str, Any]) -> dict[str, Any]:
    """dvc.yaml as plain values: `wdirs`, stage name -> what decides its folder, and `vars`, the sources of values, where a template needs them."""
    stages: dict[str, Any] = _plain({name: dict(_deciding(_mapping(stage))) for name, stage in _mapping(document.get("stages")).items()})
    if not any(_TEMPLATE.search(text) and not _own(text) for stage in stages.values() for text in _texts(stage)):
        return {"wdirs": stages}
    given = document.get("vars") or []
    return {"wdirs": stages, "vars": [_DEFAULT, *(_plain(given) if isinstance(given, list) else [])]}


def value_files(pipeline: Mapping[str, Any], folder: str) -> list[str]:
    """Paths, relative to the git root, of the files that dvc.yaml in this folder draws values from."""
    return [_inside(folder, item) for item in pipeline.get("vars", ()) if isinstance(item, str)]


def values(pipeline: Mapping[str, Any], folder: str, read: Callable[[str], Values | None]) -> Values:
    """What templates are filled from: params.yaml, then each item of `vars`; keys that two of them share are merged.

    Args:
        pipeline: what `stage_folders` made of dvc.yaml.
        folder: where that lies, relative to the git root.
        read: a file of values at the same revision; None when it is not there or cannot be read.
    """
    merged: dict[str, Any] = {}
    for item in pipeline.get("vars", ()):
        found = read(_inside(folder, item)) if isinstance(item, str) else _mapping(item)
        keys = [key for key in item.partition(":")[2].split(",") if key] if isinstance(item, str) else []
        _merge(merged, {key: value for key, value in (found or {}).items() if not keys or key in keys})
    return merged


def read_values(path: str, content: bytes) -> Values:
    """A file of values: YAML, JSON or TOML.

    Raises:
        StoreError: it is none of these, or not a mapping.
    """
    kind = posixpath.splitext(path)[1]
    try:
        if kind == ".json":
            found = json.loads(content)
        elif kind == ".toml":
            found = tomllib.loads(content.decode())
        else:
            found = read_yaml(content)
    except ValueError:
        raise StoreError(f"{path}: not a file of values that can be read; write YAML, JSON or TOML") from None
    if not isinstance(found, Mapping):
        raise StoreError(f"{path}: expected a mapping of names to values")
    return dict(_plain(found))


def read_yaml(content: bytes) -> Any:
    """YAML 1.2 as plain values.

    Raises:
        ValueError: not YAML.
    """
    from ruamel.yaml import YAML  # local: a run-context provider leads here, and a kept parse needs no YAML
    from ruamel.yaml.error import YAMLError

    try:
        return YAML(typ="safe", pure=True).load(content.decode())
    except YAMLError:
        raise ValueError("not YAML") from None


def folder_of(stage: str, pipeline: Mapping[str, Any], given: Values) -> str | None:
    """The folder a stage of dvc.lock runs in, relative to its dvc.yaml; None where that cannot be told.

    Args:
        stage: its name, `name@suffix` for one of a `foreach` or `matrix`.
        pipeline: what `stage_folders` made of dvc.yaml.
        given: what `values` found.
    """
    name, _, suffix = stage.rpartition("@")
    spec = pipeline.get("wdirs", {}).get(name or stage)
    if spec is None:
        return None
    wdir = spec.get("wdir", ".")
    try:
        own = _members(spec, given)[suffix] if name and _TEMPLATE.search(wdir) else {}
        return _text(_interpolated(wdir, {**given, **own}))
    except (UnresolvedError, KeyError):
        return None


def _deciding(stage: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """What of a stage its folder hangs on; items only where its `wdir` is a template."""
    wdir = _mapping(stage.get("do") or stage).get("wdir")
    if wdir is None:
        return
    yield "wdir", str(wdir)
    if _TEMPLATE.search(str(wdir)):
        yield from ((kind, stage[kind]) for kind in ("foreach", "matrix") if kind in stage)


def _members(spec: Mapping[str, Any], given: Values) -> dict[str, Values]:
    """Suffix of each generated stage -> the names it brings."""
    if "matrix" in spec:
        axes = _mapping(_resolved(spec["matrix"], given))
        cells = (dict(zip(axes, cell, strict=True)) for cell in product(*(enumerate(_several(values)) for values in axes.values())))
        named = (("-".join(_fragment(axis, *each) for axis, each in cell.items()), cell) for cell in cells)
        return {suffix: {"item": {axis: value for axis, (_, value) in cell.items()}, "key": suffix} for suffix, cell in named}
    items = _resolved(spec.get("foreach"), given)
    if isinstance(items, Mapping):
        return {_text(key): {"item": value, "key": _text(key)} for key, value in items.items()}
    numbered = any(isinstance(item, Mapping | list) for item in _several(items))
    return {str(number) if numbered else _text(item): {"item": item} for number, item in enumerate(_several(items))}


def _fragment(axis: str, number: int, value: Any) -> str:
    return f"{axis}{number}" if isinstance(value, Mapping | list) else _text(value)


def _resolved(value: Any, given: Values) -> Any:
    """A value with every template in it filled."""
    if isinstance(value, Mapping):
        return {key: _resolved(each, given) for key, each in value.items()}
    if isinstance(value, list):
        return [_resolved(each, given) for each in value]
    return _interpolated(value, given) if isinstance(value, str) else value


def _interpolated(text: str, given: Values) -> Any:
    """The value that a text which is one template names, else the text with its templates replaced."""
    whole = _TEMPLATE.fullmatch(text)
    if whole:
        return _looked_up(whole[1], given)
    return _TEMPLATE.sub(lambda match: _text(_looked_up(match[1], given)), text).replace("\\${", "${")


def _looked_up(expression: str, given: Values) -> Any:
    value: Any = given
    for step in _steps(expression):
        if isinstance(value, Mapping) and step in value:
            value = value[step]
        elif isinstance(value, list) and step.isdecimal() and int(step) < len(value):
            value = value[int(step)]
        else:
            raise UnresolvedError(expression)
    return value


def _steps(expression: str) -> list[str]:
    return [step.strip() for step in expression.replace("[", ".").replace("]", "").split(".")]


def _text(value: Any) -> str:
    """As DVC writes a value into a text."""
    if isinstance(value, Mapping | list):
        raise UnresolvedError
    return str(value).lower() if isinstance(value, bool) else str(value)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(each)


def _own(text: str) -> bool:
    return all(_steps(inner)[0] in _OWN for inner in _TEMPLATE.findall(text))


def _several(value: Any) -> Iterable[Any]:
    if not isinstance(value, list):
        raise UnresolvedError
    return value


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _plain(value: Any) -> Any:
    """A value as JSON keeps it, so that a kept parse equals a fresh one; dates become texts, as in a template."""
    return json.loads(json.dumps(value, default=str))


def _inside(folder: str, item: str) -> str:
    return posixpath.normpath(posixpath.join(folder, item.partition(":")[0]))


def _merge(into: dict[str, Any], more: Mapping[str, Any]) -> None:
    for key, value in more.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = dict(value) if isinstance(value, Mapping) else value
