"""The record index on disk: parts that are only ever added, and the catalog that says which of them count.

A part holds two Parquet files, one sorted by record and one by subject, with row groups small enough that a look-up reads a handful, and the sorted
sets of their tags. Parts are compacted when they grow many. The catalog is replaced in one step, so that a kill leaves the old index or the new one.
"""

from __future__ import annotations

import json
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as arrow
from numpy.typing import NDArray

from ..digests import canonical_json, sha256_file, write_atomically
from ..documents import decode, encode
from ..errors import ConfigError, StoreError
from .tag_set import TagSet
from .tag_words import BY_RECORD, BY_SUBJECT

if TYPE_CHECKING:
    import polars as pl
    from ibis.backends.duckdb import Backend
    from ibis.expr.types import Table

ROWS_PER_GROUP = 20_480
MOST_PARTS = 8
GRACE_SECONDS = 600
"""How long a part stays that no longer counts: another process may be reading it."""
SCHEMA = "mlflow-unlearn.index/3"
SORTED_BY = {"record": BY_RECORD, "subject": BY_SUBJECT}
"""File name -> its columns, the first two of which it is sorted by."""


@dataclass(frozen=True, kw_only=True)
class IndexedState:
    """One dataset state of the index; its place in the catalog is its ordinal."""

    md5: str
    files: Mapping[str, str]
    """Relative path -> what names the file's content and format."""


@dataclass(frozen=True, kw_only=True)
class PartFile:
    """One file of a part as it was written."""

    size: int
    sha256: str
    changed_ns: int
    """The file system's change time; while it stays, the bytes are not read again to compare them."""

    @classmethod
    def of(cls, path: Path) -> PartFile:
        """A file as it is now."""
        found = path.stat()
        return cls(size=found.st_size, sha256=sha256_file(path), changed_ns=found.st_ctime_ns)

    def is_whole(self, path: Path) -> bool:
        """Whether the file is still what was written."""
        try:
            found = path.stat()
        except OSError:
            return False
        return found.st_size == self.size and (found.st_ctime_ns == self.changed_ns or sha256_file(path) == self.sha256)


@dataclass(frozen=True, kw_only=True)
class Catalog:
    """What the index holds."""

    states: tuple[IndexedState, ...] = ()
    shards: tuple[str, ...] = ()
    """Relative paths; the place is the shard's number."""
    heights: Mapping[str, int] = field(default_factory=dict)
    """What names a file's content -> its rows, repeated ids included."""
    parts: Mapping[str, Mapping[str, PartFile]] = field(default_factory=dict)
    """Part -> file -> what it was when written, by which a damaged one is found."""

    @cached_property
    def ordinals(self) -> dict[str, int]:
        """md5 -> ordinal."""
        return {state.md5: ordinal for ordinal, state in enumerate(self.states)}


@dataclass(frozen=True)
class IndexParts:
    """The files of one index and the engine that reads them."""

    folder: Path

    def load(self) -> Catalog:
        """The catalog; an empty one where there is none, or where it or a file of it is damaged, so that everything is indexed anew."""
        try:
            document = json.loads((self.folder / "catalog.json").read_bytes())
            if document.pop("schema") != SCHEMA:
                return Catalog()
            catalog = decode(Catalog, document, "catalog.json")
        except (OSError, ValueError, KeyError, ConfigError):
            return Catalog()
        whole = all(file.is_whole(self.folder / part / name) for part, files in catalog.parts.items() for name, file in files.items())
        return catalog if whole else Catalog()

    def save(self, catalog: Catalog) -> None:
        """Make a catalog the one that counts, and remove the parts that no longer do."""
        write_atomically(self.folder / "catalog.json", canonical_json({"schema": SCHEMA, **encode(catalog)}))
        for part in self.folder.glob("part-*"):
            if part.name not in catalog.parts and time.time() - part.stat().st_mtime > GRACE_SECONDS:
                shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(self.folder / "spill", ignore_errors=True)

    def rows(self, catalog: Catalog, by: str) -> Table:
        """Every row of every part, sorted by `record` or `subject` within each."""
        files = [str(self.folder / part / f"{by}.parquet") for part in catalog.parts]
        with self._readable():
            return self.engine.read_parquet(files).select(*SORTED_BY[by])

    def known(self, catalog: Catalog, by: str, high: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(tags,) whether any part has a `record` or `subject` of this first word."""
        found = np.zeros(len(high), dtype=np.bool_)
        for part in catalog.parts:
            found |= TagSet(self.folder / part / f"{by}.words").contains(high)
        return found

    def add(self, catalog: Catalog, rows: Mapping[str, Table]) -> Catalog:
        """Write a part: for `record` and for `subject`, the rows to add."""
        part = f"part-{uuid.uuid4().hex[:12]}"
        (self.folder / part).mkdir(parents=True)
        for by, table in rows.items():
            self._write(self.folder / part, by, table)
        files = {path.name: PartFile.of(path) for path in sorted((self.folder / part).iterdir())}
        return replace(catalog, parts={**catalog.parts, part: files})

    def compacted(self, catalog: Catalog) -> Catalog:
        """The same index in one part, once there are many."""
        if len(catalog.parts) <= MOST_PARTS:
            return catalog
        from .index_queries import settled

        return self.add(replace(catalog, parts={}), {by: settled(self.rows(catalog, by)) for by in SORTED_BY})

    @cached_property
    def engine(self) -> Backend:
        """DuckDB in this process."""
        import ibis

        backend = ibis.duckdb.connect(threads=2)
        backend.raw_sql(f"SET temp_directory = '{str(self.folder / 'spill').replace(chr(39), chr(39) * 2)}'")
        return backend

    def table(self, columns: Mapping[str, Any] | pl.DataFrame) -> Table:
        """A table of ours, such as what is asked for."""
        import ibis

        return ibis.memtable(arrow.table(columns) if isinstance(columns, Mapping) else columns.to_arrow())

    def answer(self, question: Table) -> arrow.Table:
        """What the engine says.

        Raises:
            StoreError: a file of the index is damaged, or the disk is full.
        """
        with self._readable():
            return self.engine.to_pyarrow(question)

    @contextmanager
    def _readable(self) -> Iterator[None]:
        import duckdb

        try:
            yield
        except duckdb.Error as error:
            said = str(error).splitlines()[0][:120]
            hint = "free some space, or delete the folder and run `mlflow-unlearn index`"
            raise StoreError(f"{self.folder}: the record index cannot be read or written ({said}); {hint}") from None

    def _write(self, folder: Path, by: str, table: Table) -> None:
        path = folder / f"{by}.parquet"
        in_order = table.order_by([*SORTED_BY[by][:2], "first"])
        with self._readable():
            self.engine.to_parquet(in_order, path, row_group_size=ROWS_PER_GROUP, compression="zstd", parquet_version="v2")
            words = self.engine.read_parquet(str(path)).select(SORTED_BY[by][0])
        TagSet.write(folder / f"{by}.words", self.answer(words).column(0).to_numpy())
