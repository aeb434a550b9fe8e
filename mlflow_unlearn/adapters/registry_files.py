"""What a logged model's own files say about its base: MLmodel, and the adapter_config.json of an adapter. Read once, then kept by location."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from ..digests import canonical_json, write_atomically
from .registry_apart import apart
from .registry_rows import names_base

_MLMODEL, _ADAPTER = "MLmodel", "adapter_config.json"
_THREADS = 16
_LARGEST = 4 * 2**20
"""Bytes; MLflow's own are some kilobytes, and a signature with ten thousand columns makes one of a megabyte."""
_DEEPEST = 100
"""Levels of an MLmodel; MLflow's own have five."""
_MOST = 20_000
"""Characters that the bases of one model may take up in all: they are kept, and read whenever a lineage is."""
_logger = logging.getLogger(__name__)
UNREADABLE_FILES = "its files, which may name a base model, cannot be read"

Repositories = Callable[[str], Any]
"""Location -> MLflow's repository of the files there."""


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


@dataclass
class KeptAnswers:
    """Answers of an expensive question, by key, in one file; an answer counts as long as its stamp is the same. A broken file is begun anew."""

    path: Path | None
    answers: dict[str, list[Any]] = field(default_factory=dict)
    changed: bool = False

    def __post_init__(self) -> None:
        if self.path is not None and self.path.is_file():
            try:
                found = json.loads(self.path.read_bytes())
            except ValueError:
                return
            pairs = found.items() if isinstance(found, dict) else ()
            self.answers = {key: value for key, value in pairs if isinstance(value, list) and len(value) == 2}

    def get(self, key: str, stamp: Any) -> Any:
        """The answer, or None."""
        kept = self.answers.get(key)
        return kept[1] if kept is not None and kept[0] == stamp else None

    def keep(self, key: str, stamp: Any, answer: Any) -> None:
        """Remember an answer, in memory until `save`."""
        self.answers[key] = [stamp, answer]
        self.changed = True

    def save(self) -> None:
        """Write what is new."""
        if self.changed and self.path is not None:
            try:
                write_atomically(self.path, canonical_json(self.answers))
            except OSError as error:
                _logger.warning("%s: cannot be written (%s); the next look asks again", self.path, type(error).__name__)
            self.changed = False


def file_hints(locations: Iterable[str], kept: KeptAnswers, repositories: Repositories | None = None) -> dict[str, FileHints]:
    """Location of a model's files -> what they say. Local files are looked at every time, remote ones (immutable once logged) once.

    Args:
        locations: where to look.
        kept: what was seen before.
        repositories: reads the remote ones; MLflow's own look-up where None.
    """
    found: dict[str, FileHints] = {}
    remote: list[str] = []
    for location in dict.fromkeys(locations):
        folder = local_folder(location)
        if folder is not None:
            with apart(f"{location}: its MLmodel cannot be read") as tried:
                found[location] = _local(location, folder, kept)
            if tried.error is not None:
                found[location] = FileHints(problem=UNREADABLE_FILES)
        elif (answer := kept.get(location, None)) is not None:
            found[location] = _decoded(answer)
        else:
            remote.append(location)
    found |= _remote(remote, kept, repositories or _repository)
    kept.save()
    return found


def local_folder(location: str) -> str | None:
    """The folder of a local location; None for one elsewhere."""
    if location.startswith("/"):
        return location
    try:
        parsed = urlparse(location)
    except ValueError:
        return None
    return unquote(parsed.path) if parsed.scheme == "file" else None if parsed.scheme else location


def _local(location: str, folder: str, kept: KeptAnswers) -> FileHints:
    stamp = _stamp(f"{folder}/{_MLMODEL}") or _stamp(f"{folder}/{_ADAPTER}")
    if stamp is None:
        return FileHints()  # nothing was logged there, or it is gone: no word about a base
    answer = kept.get(location, stamp)
    if answer is None:
        answer = _encoded(_hints({path.relative_to(folder).as_posix(): _read(path) for path in _texts(Path(folder))}))
        kept.keep(location, stamp, answer)
    return _decoded(answer)


def _stamp(path: str) -> list[int] | None:
    """What changes whenever a file does; plain `os`, since twenty thousand are looked at."""
    try:
        stat = os.stat(path)  # noqa: PTH116
    except (OSError, ValueError):  # the latter: a zero in a name
        return None
    return [stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino]


def _texts(folder: Path) -> Iterator[Path]:
    if (folder / _MLMODEL).is_file():
        yield folder / _MLMODEL
    yield from sorted(folder.rglob(_ADAPTER))


def _read(path: Path) -> str:
    """The text of a small file.

    Raises:
        OSError, ValueError: it cannot be read, or is too large to be one.
    """
    if path.stat().st_size > _LARGEST:
        raise ValueError("too large")
    return path.read_text()


def _remote(locations: list[str], kept: KeptAnswers, repositories: Repositories) -> dict[str, FileHints]:
    ask = partial(_downloaded, repositories)
    with ThreadPoolExecutor(_THREADS) as pool:
        asked: dict[str, Future[FileHints]] = {location: pool.submit(copy_context().run, ask, location) for location in locations}
    found: dict[str, FileHints] = {}
    for location, answer in asked.items():
        if answer.exception() is not None:  # each store's client has errors of its own
            found[location] = FileHints(problem=UNREADABLE_FILES)
            continue
        found[location] = answer.result()
        kept.keep(location, None, _encoded(found[location]))
    return found


def _repository(location: str) -> Any:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    return get_artifact_repository(location)


def _downloaded(repositories: Repositories, location: str) -> FileHints:
    store = repositories(location)
    sizes = {each.path: each.file_size for each in store.list_artifacts()}
    if "peft" in sizes:
        sizes |= {each.path: each.file_size for each in store.list_artifacts("peft")}
    wanted = [name for name in (_MLMODEL, _ADAPTER, f"peft/{_ADAPTER}") if name in sizes]
    if any((sizes[name] or 0) > _LARGEST for name in wanted):
        return FileHints(problem=UNREADABLE_FILES)
    return _hints({name: Path(store.download_artifacts(name)).read_text() for name in wanted})


def _hints(texts: Mapping[str, str]) -> FileHints:
    """What MLmodel (`flavors`, `metadata`) and adapter configurations say; one that cannot be parsed is a problem."""
    hints: set[Hint] = set()
    try:
        for name, text in texts.items():
            hints.update(_adapter(json.loads(text)) if name.endswith(_ADAPTER) else _mlmodel(_yaml(text)))
        words = "".join(hint.text + hint.evidence for hint in hints).encode()  # half a letter is no text
    except (ValueError, RecursionError):
        return FileHints(problem=UNREADABLE_FILES)
    return FileHints(hints=tuple(sorted(hints))) if len(words) <= _MOST else FileHints(problem=UNREADABLE_FILES)


def _yaml(text: str) -> Any:
    """MLmodel as MLflow itself reads it.

    Raises:
        ValueError: it is not YAML, or so deep that the parser in C would take the process with it.
    """
    import yaml  # type: ignore[import-untyped]

    loader, depth = getattr(yaml, "CSafeLoader", yaml.SafeLoader), 0
    try:
        for event in yaml.parse(text, Loader=loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _DEEPEST:
                raise ValueError("too deep")
        return yaml.load(text, Loader=loader)  # noqa: S506 - both are safe loaders
    except yaml.YAMLError as error:
        raise ValueError("not YAML") from error


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


def _encoded(found: FileHints) -> Any:
    return [found.problem, [[hint.text, hint.evidence, hint.adapter, hint.certain] for hint in found.hints]]


def _decoded(answer: Any) -> FileHints:
    problem, hints = answer
    return FileHints(
        problem=problem,
        hints=tuple(Hint(text=text, evidence=evidence, adapter=adapter, certain=certain) for text, evidence, adapter, certain in hints),
    )
