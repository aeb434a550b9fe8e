"""Dependencies that are a file or folder inside an output: DVC's graph joins them by path, this one by the output's list of files.

A stage that reads `data/train/a.csv` of the output `data/train` has an md5 of its own in dvc.lock. Only a list that holds that very md5 under that
name proves that the one is part of the other; a list that is not on this machine proves nothing, and the dependency stays one that nobody knows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator

from ..lineage import Derivation
from .dvc_history import Snapshot
from .dvc_locks import TrackedOutput

Listing = Callable[[str], tuple[tuple[str, str], ...]]
"""md5 of a directory -> (relative path, md5) of its files; nothing where the list is not at hand."""


def parts(snapshots: Iterable[Snapshot], listing: Listing) -> set[Derivation]:
    """An edge from every output to each dependency that is proved to be part of it."""
    asked = {pair for snapshot in snapshots for pair in _inside(snapshot)}
    found = set()
    for output, path, md5 in asked:
        if md5 in _digests(listing(output.md5), path.removeprefix(f"{output.path}/"), md5):
            found.add(Derivation(source=output.md5, source_path=output.path, target=md5, target_path=path, stage=_owner(output)))
    return found


def _inside(snapshot: Snapshot) -> Iterator[tuple[TrackedOutput, str, str]]:
    """(directory, path and md5 of a dependency below it) by path alone."""
    outputs = {path: output for reading in snapshot.readings for path, output in reading.outputs.items() if output.md5.endswith(".dir")}
    sources = {(edge.source_path, edge.source) for reading in snapshot.readings for edge in reading.derivations if edge.source}
    for path, md5 in sources:
        yield from ((outputs[above], path, md5) for above in _above(path) if above in outputs)


def _above(path: str) -> Iterator[str]:
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def _digests(listed: Iterable[tuple[str, str]], inner: str, wanted: str) -> Iterator[str]:
    """md5 of the file of this name, or of the folder as DVC counts it."""
    if not wanted.endswith(".dir"):
        yield from (md5 for relpath, md5 in listed if relpath == inner)
        return
    below = sorted((relpath.removeprefix(f"{inner}/"), md5) for relpath, md5 in listed if relpath.startswith(f"{inner}/"))
    content = json.dumps([{"md5": md5, "relpath": relpath} for relpath, md5 in below]).encode()
    yield hashlib.md5(content, usedforsecurity=False).hexdigest() + ".dir"


def _owner(output: TrackedOutput) -> str:
    return f"{output.owner.removesuffix('dvc.lock')}dvc.yaml:{output.stage}" if output.stage else output.owner
