"""What the text of an MLmodel, or of an adapter's configuration, says about a base model: anybody may have written it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from .registry_apart import apart
from .registry_rows import names_base

MLMODEL, ADAPTER = "MLmodel", "adapter_config.json"
LARGEST = 2**20
"""Bytes of one model's files together; MLflow's own are some kilobytes, a signature with ten thousand columns takes two thirds of this."""
_EVENTS = 20_000
"""Of the YAML parser, which are what its time goes by; MLflow's own MLmodel has some hundreds, its signature being text."""
_DEEPEST = 100
"""Levels of an MLmodel; MLflow's own have five."""
_MOST = 20_000
"""Characters that the bases of one model may take up in all: they are kept, and read whenever a lineage is."""
UNREADABLE_FILES = "its files, which may name a base model, cannot be read"
TOO_LARGE = (
    f"its files, which may name a base model, are larger than {LARGEST // 2**20} MB or have more than {_EVENTS} parts, and are not looked at: "
    "say what it was made from in the tag unlearn.base_model"
)


@dataclass(frozen=True, kw_only=True, order=True)
class Hint:
    """A base model that a file names, by whatever name."""

    text: str
    evidence: str
    adapter: bool = False
    certain: bool = True
    """False where the name may also be that of the folder these very weights were read from."""


@dataclass(frozen=True, kw_only=True)
class FileHints:
    """What the files of one model say."""

    hints: tuple[Hint, ...] = ()
    problem: str | None = None


class _TooLargeError(ValueError):
    """More parts than are looked at."""


def hints_in(contents: Mapping[str, bytes]) -> FileHints:
    """What MLmodel (`flavors`, `metadata`) and adapter configurations say; one that cannot be parsed is a problem, whatever the parser raises."""
    if sum(map(len, contents.values())) > LARGEST:
        return FileHints(problem=TOO_LARGE)
    hints: set[Hint] = set()
    with apart("the MLmodel or adapter_config.json of a model cannot be parsed") as tried:
        for name, content in contents.items():
            text = content.decode()
            hints.update(_adapter(json.loads(text)) if name.endswith(ADAPTER) else _mlmodel(_yaml(text)))
        if len("".join(hint.text + hint.evidence for hint in hints).encode()) > _MOST:  # half a letter is no text
            raise ValueError("too many words")
    if tried.error is None:
        return FileHints(hints=tuple(sorted(hints)))
    return FileHints(problem=TOO_LARGE if isinstance(tried.error, _TooLargeError) else UNREADABLE_FILES)


def _yaml(text: str) -> Any:
    """MLmodel, of which names alone count.

    Raises:
        ValueError: it has more parts than are looked at, or is so deep that the parser in C would take the process with it.
    """
    import yaml  # type: ignore[import-untyped]

    loader, depth = _loader(), 0
    for count, event in enumerate(yaml.parse(text, Loader=loader)):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise ValueError("too deep")
        if count >= _EVENTS:
            raise _TooLargeError
    return yaml.load(text, Loader=loader)  # noqa: S506 - derived from a safe loader


@cache
def _loader() -> Any:
    """MLflow's own, less what is dear in a few bytes: numbers (in base 60), and merged mappings, each of which may double the one before."""
    import yaml

    made: Any = type("Names", (getattr(yaml, "CSafeLoader", yaml.SafeLoader),), {"flatten_mapping": _unmerged})
    for kind in ("int", "float"):
        made.add_constructor(f"tag:yaml.org,2002:{kind}", lambda *_: 1)
    return made


def _unmerged(_loader: Any, node: Any) -> None:
    if any(key.tag.endswith(":merge") for key, _ in node.value):
        raise ValueError("a merged mapping, which MLflow never writes")


def _adapter(document: Any) -> list[Hint]:
    base = _mapping(document).get("base_model_name_or_path")
    return [Hint(text=base, evidence="base_model_name_or_path of the adapter", adapter=True)] if isinstance(base, str) and base else []


def _mlmodel(document: Any) -> list[Hint]:
    flavors = _mapping(_mapping(document).get("flavors"))
    found = _transformers(_mapping(flavors.get("transformers")))
    for artifact in _mapping(_mapping(flavors.get("python_function")).get("artifacts")).values():
        if isinstance(uri := _mapping(artifact).get("uri"), str):
            found.append(Hint(text=uri, evidence="artifact in MLmodel", certain=False))
    for key, value in _mapping(_mapping(document).get("metadata")).items():
        if isinstance(value, str) and value and names_base(str(key), value):
            found.append(Hint(text=value, evidence=f"metadata {key} of MLmodel"))
    return found


def _mapping(value: Any) -> Mapping[str, Any]:
    """What should be a mapping, or is not there.

    Raises:
        ValueError: it is something else.
    """
    if value is not None and not isinstance(value, dict):
        raise ValueError(f"expected a mapping, found {type(value).__name__}")
    return value or {}


def _transformers(flavor: Mapping[str, Any]) -> list[Hint]:
    """`source_model_name` is the folder the weights were read from: with weights saved that may be where training left them."""
    adapter = bool(flavor.get("peft_adaptor"))
    names = {key: flavor.get(key) for key in ("local_base_model_path", "source_model_name")}
    return [
        Hint(text=name, evidence=f"{key} of MLmodel", adapter=adapter, certain=adapter or not flavor.get("model_binary"))
        for key, name in names.items()
        if isinstance(name, str) and name
    ]
