"""What the guard works on, put together from the adapters: which files, which keys, which tombstones, and rows as each key sees them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..digests import key_id, keyed_tag, read_retired_keys, retired_key_file
from ..errors import DataError
from ..fingerprints import normalised, sketches
from ..guard import Found, Graves, GuardedFile, KeyedRows, Thresholds
from ..lineage import DatasetRevision
from ..protocols import Record
from ..records import Tombstones
from .workbench import Workbench

if TYPE_CHECKING:
    from ..adapters.schemas import Schema


@dataclass(frozen=True, kw_only=True)
class Watch:
    """The tombstones of every key that is here, and why others cannot be looked for."""

    tombstones: Mapping[str, Tombstones]
    keys: Mapping[str, bytes]
    graves: Mapping[str, Graves]
    """By key id."""
    thresholds: Thresholds
    problems: tuple[str, ...]

    @cached_property
    def sketched(self) -> bool:
        """Whether any text was buried, so that texts have to be compared at all."""
        return any(graves.sketched for graves in self.graves.values())


def watch(bench: Workbench) -> Watch:
    """Everything buried, under the tag key in use and under every retired one.

    Raises:
        ConfigError: no tag key, a key file that is not what its name says, or thresholds that contradict one another.
        LedgerError: the ledger does not answer or is not as it was written.
    """
    path = bench.settings.tag_key_file
    here = {key_id(bench.key): bench.key, **read_retired_keys(path)}
    buried = bench.ledger.tombstones()
    policy = bench.policy
    thresholds = Thresholds(warn=policy.near_duplicate_jaccard, refuse=policy.near_duplicate_refuse)
    graves, problems = (
        {},
        [
            f"{retired_key_file(path, identity)}: not there, and tombstones were made with this key; restore it"
            for identity in buried
            if identity not in here
        ],
    )
    for identity in sorted(buried.keys() & here.keys()):
        try:
            graves[identity] = Graves(buried[identity], thresholds)
        except DataError as error:
            problems.append(f"tombstones of key {identity}: {error}")
    keys = {identity: here[identity] for identity in graves}
    return Watch(tombstones=buried, keys=keys, graves=graves, thresholds=thresholds, problems=tuple(problems))


def data_paths(bench: Workbench) -> list[tuple[Path, Schema]]:
    """Every configured dataset and the files beside the main one, in the workspace, with what makes tags of their rows."""
    data, schemas = bench.params.data, bench.schemas
    datasets = [(data.path, schemas[data.name]), *((also.path, schemas[also.name]) for also in data.also)]
    beside = [(path, bench.schema) for path in (data.canaries, data.holdout, data.general) if path]
    return [(bench.folder / path, schema) for path, schema in (*datasets, *beside)]


def data_files(path: Path) -> Sequence[Path]:
    """The files below a path that hold records; none where nothing is there."""
    from ..adapters.formats import holds_no_records

    if not path.is_dir():
        return [path] if path.exists() else []
    return sorted(p for p in path.rglob("*") if p.is_file() and not holds_no_records(p.name))


def guarded(watched: Watch, name: str, path: Path, schema: Schema) -> GuardedFile:
    """One file as every key sees it.

    Raises:
        DataError: it cannot be read as the index reads it.
    """
    from ..adapters.formats import Source
    from ..adapters.tables import read_columns, tagged

    table = read_columns(Source(name=name, path=path), schema.columns, schema.earlier)
    texts = [normalised(*row) for row in table.select("prompt", "answer").iter_rows()] if watched.sketched else []

    def under(identity: str) -> KeyedRows:
        tags = tagged(table, replace(schema, key=watched.keys[identity]))
        subjects, records, contents = (tags[f"{kind}_tag"].to_list() for kind in ("subject", "record", "content"))
        return KeyedRows(subjects=subjects, records=records, contents=contents, sketches=_sketched(watched, identity, texts))

    return GuardedFile(name=name, rows=len(table), under={identity: under(identity) for identity in watched.graves})


def found_in(bench: Workbench, watched: Watch, records: Sequence[Record], states: Sequence[DatasetRevision]) -> list[Found]:
    """What each key finds in records of the split, which carry tags of the key in use only.

    Under a retired key the dataset is read again, and a record counts as found where its text is that of a row found there.
    """
    texts = [normalised(record.prompt, record.answer) for record in records] if watched.sketched else []
    return [
        watched.graves[identity].found(
            KeyedRows(
                subjects=[record.subject for record in tags],
                records=[record.tag for record in tags],
                contents=[keyed_tag(key, "content", record.prompt, record.answer) for record in records],
                sketches=_sketched(watched, identity, texts),
            )
        )
        for identity, key in watched.keys.items()
        for tags in [records if key == bench.key else _tagged_anew(bench, watched.tombstones[identity], key, (records, states))]
    ]


def _sketched(watched: Watch, identity: str, texts: Sequence[str]) -> Any:
    return sketches(texts, watched.keys[identity]) if watched.graves[identity].sketched else None


def _tagged_anew(bench: Workbench, buried: Tombstones, key: bytes, of: tuple[Sequence[Record], Sequence[DatasetRevision]]) -> Sequence[Record]:
    """The records with tags of another key; of several rows with one text, one that was buried if there is any."""
    records, states = of
    others = {name: replace(schema, key=key) for name, schema in bench.schemas.items()}
    reader = replace(bench.reader, schema=replace(bench.schema, key=key), others=others)
    by_text: dict[tuple[str, str], Record] = {}
    for record in (each for state in states for each in reader.records(state)):
        if record.subject in buried.subjects or record.tag in buried.records:
            by_text[record.prompt, record.answer] = record
        else:
            by_text.setdefault((record.prompt, record.answer), record)
    return [by_text[record.prompt, record.answer] for record in records]


def returned(found: Sequence[Found], rows: int) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """(rows,) each: whether any key found the person, record or text, and the largest resemblance to an erased text."""
    flags, near = np.zeros(rows, dtype=np.bool_), np.zeros(rows)
    for each in found:
        flags = np.logical_or.reduce([flags, *each.returned.values()])
        near = np.maximum(near, each.resemblance)
    return flags, near
