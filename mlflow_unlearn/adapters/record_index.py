"""The record index: which records and people each dataset state holds, as keyed tags, asked without reading the data again.

Built state by state from what DVC kept, incrementally: a new state costs the files that changed. The folder is named after the key and the columns,
so that an index made with another key is never asked. Once indexed, a state stays traceable when its bytes are purged.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..digests import canonical_json, sha256_json, write_atomically
from ..documents import encode
from ..errors import DataError, StoreError
from ..lineage import DatasetRevision
from .dvc_project import DvcProject
from .index_parts import Catalog, IndexedState, IndexParts
from .schemas import Schema
from .tag_words import RECORD, SUBJECT, tags_of_words, words_of_tags

_Columns = dict[str, NDArray[np.int64]]
MATCHED = ("record_high", "record_low", "first", "last")


@dataclass(frozen=True, kw_only=True)
class Updated:
    """What bringing the index up to date did."""

    new_files: int = 0
    unreadable: Mapping[str, StoreError | DataError] = field(default_factory=dict)
    """DVC md5 of a state -> why it cannot be indexed; what was trained on it is unknown."""


@dataclass(frozen=True)
class RecordIndex:
    """Tags of one dataset under one key and one choice of columns."""

    home: Path
    project: DvcProject
    schema: Schema

    def update(self, states: Sequence[DatasetRevision]) -> Updated:
        """Index what is new, in the order given; oldest first keeps the index small. Two that update at once take turns."""
        if all(state.md5 in self.catalog.ordinals for state in states):
            return Updated()
        from .index_builder import IndexBuilder  # Polars: only when there is something to read

        with self._locked():
            self.__dict__.pop("catalog", None)
            builder = IndexBuilder(self.parts, self.project, self.schema, self.catalog)
            updated = Updated(new_files=builder.build(states), unreadable=builder.unreadable)
            self.__dict__["catalog"] = builder.catalog
        return updated

    def holds(self, state: DatasetRevision) -> bool:
        """Whether a state is indexed."""
        return state.md5 in self.catalog.ordinals

    def matches(self, states: Sequence[DatasetRevision], *, subjects: Sequence[str], records: Sequence[str]) -> Mapping[str, int]:
        """DVC md5 -> number of its records that belong to one of `subjects` or are one of `records`; states without any are left out."""
        ordinals = self._ordinals(states)
        hits = [rows for by, tags in (("subject", subjects), ("record", records)) if (rows := self._hits(by, tags)) is not None]
        if not hits or not ordinals:
            return {}
        from .index_queries import records_by_state

        rows = hits[0] if len(hits) == 1 else hits[0].union(hits[1])
        asked = self.parts.table({"ordinal": np.array(ordinals, dtype=np.int32)})
        counts = self.parts.answer(records_by_state(rows, asked)).to_pylist()
        return {self.catalog.states[row["ordinal"]].md5: int(row["records"]) for row in counts}

    def held(
        self, states: Sequence[DatasetRevision], *, subjects: Sequence[str] = (), records: Sequence[str] = (), contents: Sequence[str] = ()
    ) -> Mapping[str, frozenset[str]]:
        """DVC md5 -> those of the tags that a state holds; states without any are left out. Texts (`contents`) cost a look at every row."""
        ordinals = self._ordinals(states)
        found: dict[str, set[str]] = {}
        for by, tags in (("subject", subjects), ("record", records), ("content", contents)):
            for ordinal, held in self._held(by, tags, ordinals).items():
                found.setdefault(self.catalog.states[ordinal].md5, set()).update(held)
        return {md5: frozenset(tags) for md5, tags in found.items()}

    def unknown(self, *, subjects: Sequence[str], records: Sequence[str]) -> tuple[list[int], list[int]]:
        """Positions in `subjects` and in `records` that no state ever held."""
        return self._absent("subject", subjects), self._absent("record", records)

    def rows(self, states: Sequence[DatasetRevision]) -> list[tuple[str, str]]:
        """(record tag, content tag) of everything in the union of `states`, each wording of a record once."""
        table = self._present(states, ("record_high", "record_low", "content_high", "content_low"))
        record, content = (tags_of_words(*(table[f"{name}_{word}"] for word in ("high", "low"))) for name in ("record", "content"))
        return list(zip(record, content, strict=True))

    def records_of_files(self, states: Sequence[DatasetRevision], paths: Sequence[str]) -> list[str]:
        """Record tags in files of the dataset, named relative to it, in any of `states`; sorted.

        Raises:
            DataError: no state has such a file.
        """
        missing = sorted({path for path in paths if path not in self.catalog.shards})
        if missing:
            raise DataError(f"{len(missing)} of the named files are in no revision of {self.schema.dataset}; name them relative to the dataset")
        shards = [self.catalog.shards.index(path) for path in paths]
        table = self._present(states, ("record_high", "record_low"), shards)
        return sorted(set(tags_of_words(table["record_high"], table["record_low"])))

    def removed_between(self, old: DatasetRevision, new: DatasetRevision) -> list[str]:
        """Tags of the records that `old` holds and `new` does not; sorted."""
        before, after = (self._present([state], ("record_high", "record_low")) for state in (old, new))
        return sorted(set(tags_of_words(before["record_high"], before["record_low"])) - set(tags_of_words(after["record_high"], after["record_low"])))

    def size(self, state: DatasetRevision) -> dict[str, int]:
        """`records` and `subjects` (people) of one state, each counted once; kept, since they never change."""
        kept = self.folder / "counts" / f"{state.md5}.json"
        if not kept.exists():
            write_atomically(kept, canonical_json(self._count(self._ordinals([state])[0])))
        return dict(json.loads(kept.read_bytes()))

    def summary(self, state: DatasetRevision) -> dict[str, int]:
        """The size of a state in which every record id occurs once.

        Raises:
            DataError: a record id occurs twice.
        """
        counted = self.size(state)
        repeated = sum(self.catalog.heights[key] for key in self._state(state).files.values()) - counted["records"]
        if repeated:
            raise DataError(f"{state.path}: {repeated} duplicate record ids across its files; make ids unique (data.columns.record in params.yaml)")
        return counted

    @cached_property
    def catalog(self) -> Catalog:
        """What is indexed."""
        return self.parts.load()

    @cached_property
    def parts(self) -> IndexParts:
        """The files."""
        return IndexParts(self.folder)

    @property
    def folder(self) -> Path:
        """Named after key, dataset and columns without revealing the key."""
        schema = self.schema
        key = hashlib.sha256(b"mlflow-unlearn index" + schema.key).hexdigest()
        return self.home / sha256_json([key, schema.dataset, schema.record_domain, encode(schema.columns), encode(schema.earlier)])[:16]

    def _ordinals(self, states: Sequence[DatasetRevision]) -> list[int]:
        missing = [state.md5[:8] for state in states if state.md5 not in self.catalog.ordinals]
        if missing:
            raise StoreError(f"dataset state {', '.join(missing)}: not indexed; run `mlflow-unlearn index`")
        return sorted({self.catalog.ordinals[state.md5] for state in states})

    def _state(self, state: DatasetRevision) -> IndexedState:
        return self.catalog.states[self._ordinals([state])[0]]

    def _count(self, ordinal: int) -> dict[str, int]:
        if not self.catalog.parts:
            return {"records": 0, "subjects": 0}
        from .index_queries import counts

        asked = {"records": ("record", RECORD), "subjects": ("subject", SUBJECT)}
        tables = {name: counts(self.parts.rows(self.catalog, by), ordinal, column) for name, (by, column) in asked.items()}
        return {name: int(self.parts.answer(table)["n"][0].as_py()) for name, table in tables.items()}

    def _asked(self, by: str, tags: Sequence[str]) -> NDArray[np.int64]:
        """(tags that may be here, 2) words, most of the absent ones dropped without opening the index."""
        wanted = words_of_tags(tuple(tags))
        return wanted[self.parts.known(self.catalog, by, wanted[:, 0])] if len(wanted) else wanted

    def _hits(self, by: str, tags: Sequence[str]) -> Any | None:
        wanted = self._asked(by, tags)
        if not len(wanted):
            return None
        from .index_queries import holding

        asked = self.parts.table({"high": wanted[:, 0], "low": wanted[:, 1]})
        return holding(self.parts.rows(self.catalog, by), asked, (f"{by}_high", f"{by}_low")).select(*MATCHED)

    def _held(self, by: str, tags: Sequence[str], ordinals: Sequence[int]) -> dict[int, list[str]]:
        """State -> which of the tags of one kind it holds."""
        wanted = words_of_tags(tuple(tags)) if by == "content" and tags else self._asked(by, tags)
        if not len(wanted) or not ordinals or not self.catalog.parts:
            return {}
        from .index_queries import holding

        column, asked = (f"{by}_high", f"{by}_low"), self.parts.table({"high": wanted[:, 0], "low": wanted[:, 1]})
        rows = holding(self.parts.rows(self.catalog, "record" if by == "content" else by), asked, column)
        table = self.parts.answer(rows.select(*column, "first", "last").distinct())
        high, low, first, last = (table[name].to_numpy() for name in (*column, "first", "last"))
        inside = {ordinal: (first <= ordinal) & (ordinal <= last) for ordinal in ordinals}
        return {ordinal: tags_of_words(high[rows_in], low[rows_in]) for ordinal, rows_in in inside.items() if rows_in.any()}

    def _absent(self, by: str, tags: Sequence[str]) -> list[int]:
        if not tags or not self.catalog.parts:
            return list(range(len(tags)))
        found = self.parts.known(self.catalog, by, words_of_tags(tuple(tags))[:, 0])
        return [int(place) for place in np.flatnonzero(~found)]

    def _present(self, states: Sequence[DatasetRevision], columns: Sequence[str], shards: Sequence[int] | None = None) -> _Columns:
        ordinals = self._ordinals(states)
        if not ordinals or not self.catalog.parts:
            return {name: np.empty(0, dtype=np.int64) for name in columns}
        from .index_queries import present_in

        rows = self.parts.rows(self.catalog, "record")
        rows = rows if shards is None else rows.filter(rows["shard"].isin(shards))
        table = self.parts.answer(present_in(rows, ordinals).select(*columns).distinct())
        return {name: table[name].to_numpy() for name in columns}

    @contextmanager
    def _locked(self) -> Iterator[None]:
        from filelock import FileLock

        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / "lock"):
            yield
