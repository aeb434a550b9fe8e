"""Building the record index: reads the files that changed from state to state and turns them into intervals.

States come in batches of bounded size. Within a batch a shard's file is a *run* of states; a run that reaches the last state is open. Where a shard
changes, its open intervals end, and those whose record is also in the new file go on: merging what touches says which.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import ibis
import numpy as np
import polars as pl

from ..errors import DataError, StoreError
from ..lineage import DatasetRevision
from .dvc_objects import is_sound
from .dvc_project import DvcProject
from .formats import Source, holds_no_records
from .index_parts import SORTED_BY, Catalog, IndexedState, IndexParts
from .index_queries import merged, settled
from .keyed import words
from .schemas import Schema
from .tables import keyed_digests, read_columns
from .tag_words import OPEN, WORDS

if TYPE_CHECKING:
    from ibis.expr.types import Table

BATCH_ROWS = 4_000_000
TAGS = ("record", "subject", "content")


@dataclass(frozen=True, kw_only=True)
class Run:
    """A file in one shard over consecutive states."""

    shard: int
    file: str
    first: int
    last: int


@dataclass
class IndexBuilder:
    """One update of an index; `catalog` is what it has become so far."""

    parts: IndexParts
    project: DvcProject
    schema: Schema
    catalog: Catalog
    unreadable: dict[str, StoreError | DataError] = field(default_factory=dict)
    _frames: dict[str, pl.DataFrame] = field(default_factory=dict)
    _pending: list[IndexedState] = field(default_factory=list)

    def build(self, states: Sequence[DatasetRevision]) -> int:
        """Index the states that are new.

        Returns:
            How many files were read.
        """
        read: set[str] = set()
        for state in states:
            if state.md5 not in self.catalog.ordinals:
                read |= self._take(state)
                if sum(frame.height for frame in self._frames.values()) >= BATCH_ROWS:
                    self._flush()
        self._flush()
        return len(read)

    def _take(self, state: DatasetRevision) -> set[str]:
        """Read what a state has and the one before it has not; a state that cannot be read whole is left out, with the reason."""
        try:
            files = {relpath: (_file_key(relpath, md5), md5) for relpath, md5 in self.project.files(state.md5)}
            before = self._last_files()
            new = {key: (relpath, md5) for relpath, (key, md5) in files.items() if before.get(relpath) != key and key not in self._frames}
            self.project.prefetch(md5 for relpath, md5 in new.values() if not holds_no_records(relpath))
            read = {key: self._read(state, relpath, md5) for key, (relpath, md5) in new.items()}
        except (StoreError, DataError) as error:
            self.unreadable[state.md5] = error
            return set()
        self._frames |= read
        named = {relpath: key for relpath, (key, _) in files.items()}
        self._pending.append(IndexedState(md5=state.md5, files=named))
        return set(read)

    def _read(self, state: DatasetRevision, relpath: str, md5: str) -> pl.DataFrame:
        if holds_no_records(relpath):
            return words_of(pl.DataFrame(schema=dict.fromkeys(TAGS, pl.String)))
        source = Source(name=f"{state.path}/{relpath}" if relpath else state.path, path=self.project.local_path(md5))
        if not is_sound(source.path, md5):
            raise StoreError(f"{source.name}: its copy in DVC's cache has other bytes than its md5 says; delete it and run `dvc fetch`")
        table = read_columns(source, self.schema.columns, self.schema.earlier)
        return words_of(keyed_digests(table, self.schema))

    def _last_files(self) -> Mapping[str, str]:
        states = (*self.catalog.states, *self._pending)
        return states[-1].files if states else {}

    def _flush(self) -> None:
        """Turn the pending states into a part and make the catalog that knows them the one that counts."""
        if not self._pending:
            return
        base = self.catalog.states[-1].files if self.catalog.states else {}
        shards = tuple(dict.fromkeys([*self.catalog.shards, *(path for state in self._pending for path in state.files)]))
        runs, ends = self._runs(base, {path: number for number, path in enumerate(shards)})
        rows = {by: self._rows(by, runs, ends) for by in SORTED_BY}
        catalog = self.parts.add(self._grown(shards), rows)
        self.catalog = self.parts.compacted(catalog)
        self.parts.save(self.catalog)
        self._pending.clear()
        self._frames.clear()

    def _grown(self, shards: tuple[str, ...]) -> Catalog:
        heights = {key: frame.height for key, frame in self._frames.items()}
        states = (*self.catalog.states, *self._pending)
        return replace(self.catalog, states=states, shards=shards, heights={**self.catalog.heights, **heights})

    def _runs(self, base: Mapping[str, str], shards: Mapping[str, int]) -> tuple[list[Run], dict[int, int]]:
        """The new runs, and shard -> last state of the intervals that were open before this batch, where they end within it."""
        start = len(self.catalog.states)
        runs: list[Run] = []
        ends: dict[int, int] = {}
        for path, shard in shards.items():
            pieces = list(_pieces([state.files.get(path) for state in self._pending]))
            if path in base:
                pieces = pieces[1:] if pieces[0][0] == base[path] else pieces
                ends |= {shard: start + pieces[0][1] - 1} if pieces else {}
            for file, left, right in pieces:
                last = OPEN if right == len(self._pending) else start + right - 1
                runs += [Run(shard=shard, file=file, first=start + left, last=last)] if file is not None else []
        return runs, ends

    def _rows(self, by: str, runs: Sequence[Run], ends: Mapping[int, int]) -> Table:
        """The rows that a part must add to sort a batch in."""
        new = self.parts.table(self._intervals(by, runs))
        if not ends and len({run.shard for run in runs}) == len(runs):
            return new
        if not ends:
            return merged(new)
        rows = self.parts.rows(self.catalog, by)
        rows = settled(rows.filter(rows["shard"].isin(sorted(ends))))
        still_open = rows.filter(rows["last"] == OPEN)
        cut = self.parts.table({"shard": np.array(list(ends), dtype=np.int32), "end": np.array(list(ends.values()), dtype=np.int32)})
        ended = still_open.join(cut, "shard").mutate(last=ibis._.end).select(*SORTED_BY[by])
        return merged(new.union(ended)).anti_join(still_open, SORTED_BY[by])

    def _intervals(self, by: str, runs: Sequence[Run]) -> pl.DataFrame:
        """Every row of every run with its interval, each once."""
        names = SORTED_BY[by]
        tags = [name for name in names if name.endswith(WORDS)]
        frames = [
            self._frames[run.file]
            .select(tags)
            .drop_nulls([name for name in tags if name.startswith("subject")])
            .with_columns(
                dataset=pl.lit(self.schema.dataset),
                shard=pl.lit(run.shard, pl.Int32),
                first=pl.lit(run.first, pl.Int32),
                last=pl.lit(run.last, pl.Int32),
            )
            for run in runs
        ]
        empty = pl.DataFrame(schema={name: pl.Int64 if name in tags else pl.String if name == "dataset" else pl.Int32 for name in names})
        return pl.concat([empty, *(frame.select(names) for frame in frames)]).unique()


def _pieces(timeline: Sequence[str | None]) -> Iterator[tuple[str | None, int, int]]:
    """(value, first place, place after the last) of each run of equal values."""
    for value, places in itertools.groupby(range(len(timeline)), key=timeline.__getitem__):
        inside = list(places)
        yield value, inside[0], inside[-1] + 1


def _file_key(relpath: str, md5: str) -> str:
    """Content and format: the same bytes can be data under one name and a readme under another."""
    kind = "none" if holds_no_records(relpath) else Path(relpath).suffix.lower().lstrip(".") or "file"
    return f"{md5}-{kind}"


def words_of(digests: pl.DataFrame) -> pl.DataFrame:
    """64-character digests as two 64-bit words each; null stays null."""
    columns: dict[str, pl.Series] = {}
    for name in digests.columns:
        missing = digests[name].is_null()
        for word, values in zip(WORDS, words(digests[name].fill_null("0" * 64)).T, strict=True):
            whole = pl.Series(np.ascontiguousarray(values), dtype=pl.Int64)
            columns[f"{name}_{word}"] = whole.set(missing, None) if missing.any() else whole
    return pl.DataFrame(columns)
