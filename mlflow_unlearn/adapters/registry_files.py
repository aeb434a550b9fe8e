"""What a logged model's own files say about its base: MLmodel, and the adapter_config.json of an adapter. Read once, then kept by location."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from ..digests import canonical_json, write_atomically
from .registry_apart import apart
from .registry_texts import ADAPTER, LARGEST, MLMODEL, TOO_LARGE, UNREADABLE_FILES, FileHints, Hint, hints_in

_THREADS = 16
_logger = logging.getLogger(__name__)
Repositories = Callable[[str], Any]
"""Location -> MLflow's repository of the files there."""


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
    stamp = _stamp(f"{folder}/{MLMODEL}") or _stamp(f"{folder}/{ADAPTER}")
    if stamp is None:
        return FileHints()  # nothing was logged there, or it is gone: no word about a base
    answer = kept.get(location, stamp)
    if answer is None:
        answer = _encoded(hints_in(_contents(Path(folder))))
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
    if (folder / MLMODEL).is_file():
        yield folder / MLMODEL
    yield from sorted(folder.rglob(ADAPTER))


def _contents(folder: Path) -> dict[str, bytes]:
    """What is in the files, by name; of all together no more than shows that it is too much.

    Raises:
        OSError: one cannot be read.
    """
    found: dict[str, bytes] = {}
    left = LARGEST + 1
    for path in _texts(folder):
        if not path.is_file():  # a pipe would be waited for
            raise OSError(f"{path.name} is no file")
        with path.open("rb") as file:
            content = file.read(left)
        found[path.relative_to(folder).as_posix()] = content
        left -= len(content)
    return found


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
    wanted = [name for name in (MLMODEL, ADAPTER, f"peft/{ADAPTER}") if name in sizes]
    if any((sizes[name] or 0) > LARGEST for name in wanted):
        return FileHints(problem=TOO_LARGE)
    return hints_in({name: Path(store.download_artifacts(name)).read_bytes() for name in wanted})


def _encoded(found: FileHints) -> Any:
    return [found.problem, [[hint.text, hint.evidence, hint.adapter, hint.certain] for hint in found.hints]]


def _decoded(answer: Any) -> FileHints:
    problem, hints = answer
    return FileHints(
        problem=problem,
        hints=tuple(Hint(text=text, evidence=evidence, adapter=adapter, certain=certain) for text, evidence, adapter, certain in hints),
    )
