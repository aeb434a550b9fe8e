"""Rewriting dataset files without erased records, in their own format; files that hold none keep their bytes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as arrow
import pyarrow.csv as arrow_csv
import pyarrow.parquet as parquet

from ..digests import write_atomically
from .formats import Source
from .schemas import Schema
from .tables import read_tags


@dataclass(frozen=True, kw_only=True)
class Erased:
    """What must leave a dataset, as keyed tags."""

    schema: Schema
    subjects: frozenset[str]
    records: frozenset[str]


def erase(files: Sequence[Path], erased: Erased) -> int:
    """Rewrite each file without the erased records; repeating it changes nothing.

    Returns:
        How many records left.

    Raises:
        DataError: a file cannot be read as the index reads it, so that nobody could say who is in it.
    """
    return sum(_erase_from(path, erased) for path in files)


def _erase_from(path: Path, erased: Erased) -> int:
    tags = read_tags(Source(name=path.name, path=path), erased.schema).select("record", "subject").to_dicts()
    keep = [row["record"] not in erased.records and row["subject"] not in erased.subjects for row in tags]
    if all(keep):
        return 0
    path.chmod(0o644)  # DVC's cache links are read-only
    write_atomically(path, _KEPT[path.suffix.lower()](path, keep))
    return keep.count(False)


def _kept_parquet(path: Path, keep: Sequence[bool]) -> bytes:
    sink = arrow.BufferOutputStream()
    parquet.write_table(parquet.read_table(path, use_threads=False, pre_buffer=False).filter(arrow.array(keep)), sink)
    return bytes(sink.getvalue().to_pybytes())


def _kept_csv(path: Path, keep: Sequence[bool]) -> bytes:
    """CSV has no types; guessing them would make 7 of 007."""
    parse, read = arrow_csv.ParseOptions(newlines_in_values=True), arrow_csv.ReadOptions(use_threads=False)
    names = arrow_csv.read_csv(path, parse_options=parse, read_options=read).column_names
    convert = arrow_csv.ConvertOptions(column_types=dict.fromkeys(names, arrow.string()), strings_can_be_null=False)
    table = arrow_csv.read_csv(path, parse_options=parse, read_options=read, convert_options=convert)
    sink = arrow.BufferOutputStream()
    arrow_csv.write_csv(table.filter(arrow.array(keep)), sink)
    return bytes(sink.getvalue().to_pybytes())


def _kept_json(path: Path, keep: Sequence[bool]) -> bytes:
    content = path.read_bytes()
    if content.lstrip().startswith(b"["):
        rows = [row for row, kept in zip(json.loads(content), keep, strict=True) if kept]
        return json.dumps(rows, ensure_ascii=False, indent=1).encode()
    lines = [line for line in content.splitlines(keepends=True) if line.strip()]
    return b"".join(line for line, kept in zip(lines, keep, strict=True) if kept)


_KEPT = {".parquet": _kept_parquet, ".csv": _kept_csv, ".jsonl": _kept_json, ".json": _kept_json}
