"""Leaves of whole dataset files at once: what `commitments.leaf` says value by value, as frames and as the bytes that a tree is built of."""

from __future__ import annotations

import binascii
from collections.abc import Iterable
from pathlib import Path

import polars as pl

from ..digests import sha256_json
from ..documents import encode
from ..errors import TamperedError
from ..verifier.merkle import WIDTH
from .formats import Source
from .keyed import keyed_column
from .schemas import Schema
from .tables import keyed_digests, read_columns

_LEAVES = ("record", "subject", "content")
_ROW = ("record_tag", "subject_tag", "content")
"""What tells the rows of a parent's dataset apart: its revisions may hold a record in several wordings, and of several people."""


def tree_name(md5: str, schema: Schema) -> str:
    """Name of a revision's tree: other columns make other leaves of the same bytes."""
    return f"{md5}-{sha256_json([encode(schema.columns), encode(schema.earlier)])[:16]}"


def leaf_table(source: Source, schema: Schema, key: bytes) -> pl.DataFrame:
    """One file row by row: tags of record and subject, and the leaves of record, subject and content (64 hex characters; null where none).

    Raises:
        DataError: what `tables.read_columns` refuses.
    """
    rows = read_columns(source, schema.columns, schema.earlier)
    tags = keyed_digests(rows, schema).select(record_tag=pl.col("record").str.slice(0, 32), subject_tag=pl.col("subject").str.slice(0, 32))
    leaves = {name: keyed_column(key, name, pl.col(name)) for name in ("record", "subject")}
    return rows.select(*tags, **leaves, content=_content(key))


def packed(tables: Iterable[pl.DataFrame]) -> bytes:
    """Every leaf of some rows, sorted, each once, 32 bytes each."""
    columns = [table[name].drop_nulls().unique() for table in tables for name in _LEAVES]
    digests = pl.concat([pl.Series(dtype=pl.String), *(column.rename("") for column in columns)]).unique().sort()
    if digests.is_empty():
        return b""
    characters = digests.rechunk().to_arrow().buffers()[-1]
    return binascii.unhexlify(memoryview(characters)[: 2 * WIDTH * len(digests)])


class Retained:
    """The rows of a dataset that a split retained, gathered file by file: the raw set has keyed tags, the leaves need the ids of the dataset."""

    def __init__(self, retain: Path, key: bytes) -> None:
        rows = pl.read_parquet(retain, columns=["tag", "subject", "prompt", "answer"])
        self._wanted = rows.select(record_tag="tag", subject_tag="subject", content=_content(key)).unique()
        self._found = pl.DataFrame(schema=dict.fromkeys((*_ROW, *_LEAVES[:2]), pl.String))

    def add(self, table: pl.DataFrame) -> None:
        """Take those rows of a `leaf_table` that were retained and are new."""
        new = table.join(self._wanted, on=_ROW, how="semi", nulls_equal=True).join(self._found, on=_ROW, how="anti", nulls_equal=True)
        self._found = pl.concat([self._found, new.select(self._found.columns).unique(_ROW)])

    def packed(self) -> bytes:
        """The leaves of all that was retained.

        Raises:
            TamperedError: some of it was in no file.
        """
        missing = len(self._wanted) - len(self._found)
        if missing:
            raise TamperedError(f"{missing} retained records are not in the dataset revisions they came from; run `dvc repro -f split`")
        return packed([self._found])


def _content(key: bytes) -> pl.Expr:
    return keyed_column(key, "content", pl.col("prompt"), pl.col("answer"))
