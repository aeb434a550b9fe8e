"""Tombstones of what a closing request erases: keyed tags and fingerprints, one grave a person, so that one person can lawfully return."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from ..digests import keyed_tag
from ..fingerprints import normalised, sketches, written
from ..records import ErasureRequest, State, Tombstones
from .guarding import data_files, data_paths
from .workbench import Workbench

CANARIES = "canaries"


@dataclass
class _Grave:
    subject: str | None = None
    records: set[str] = field(default_factory=set)
    texts: set[tuple[str, str]] = field(default_factory=set)


def bury(bench: Workbench, request: ErasureRequest, canaries: frozenset[str], *, unlearned: bool) -> None:
    """Bury what leaves the dataset and the files beside it with this request, and what was forgotten for it; repeating it adds nothing.

    A row that an earlier request erased and that has come back since is buried for that request. Canaries are nobody's request: they leave record
    and text, and no person.

    Args:
        bench: the project, its data not yet erased.
        request: the one that closes.
        canaries: record tags of the canaries that go with it.
        unlearned: whether a model forgot it in the last run, whose forget set then counts too.
    """
    graves = {(request.request_id, tag): _Grave(subject=tag) for tag in request.subjects}
    owners = _owners(bench, request, canaries)
    for subject, tag, *text in _rows(bench, unlearned):
        whose = owners.get(subject or "") or owners.get(tag or "")
        if whose:
            person = subject if subject in owners else None
            grave = graves.setdefault((whose, person or (CANARIES if tag in canaries else str(tag))), _Grave(subject=person))
            grave.records.add(str(tag))
            grave.texts.add((str(text[0]), str(text[1])))
    for name in sorted({name for name, _ in graves}):
        bench.ledger.bury(name, [_tombstones(grave, bench.key) for (own, _), grave in graves.items() if own == name], datetime.now(UTC))


def _owners(bench: Workbench, request: ErasureRequest, canaries: Collection[str]) -> dict[str, str]:
    """Tag of a person or a record -> the request that erases it."""
    requests = [*bench.ledger.requests(State.CLOSED), request]
    return dict.fromkeys(canaries, request.request_id) | {tag: each.request_id for each in requests for tag in (*each.subjects, *each.records)}


def _rows(bench: Workbench, unlearned: bool) -> Iterator[tuple[str | None, ...]]:
    """Subject tag, record tag, prompt and answer of every row in the workspace and, after unlearning, of the forget set."""
    from ..adapters.formats import Source
    from ..adapters.tables import read_columns, read_set, tagged

    for path, schema in data_paths(bench):
        for file in data_files(path):
            table = tagged(read_columns(Source(name=file.name, path=file), schema.columns, schema.earlier), schema)
            yield from table.select("subject_tag", "record_tag", "prompt", "answer").iter_rows()
    if unlearned:
        yield from ((record.subject, record.tag, record.prompt, record.answer) for record in read_set(bench.sets, "forget"))


def _tombstones(grave: _Grave, key: bytes) -> Tombstones:
    texts = sorted(grave.texts)
    return Tombstones(
        subjects=frozenset({grave.subject} if grave.subject else ()),
        records=frozenset(grave.records),
        contents=frozenset(keyed_tag(key, "content", prompt, answer) for prompt, answer in texts),
        sketches=tuple(sorted(set(written(sketches([normalised(*text) for text in texts], key))))),
    )
