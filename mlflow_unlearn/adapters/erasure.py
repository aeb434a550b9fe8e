"""Rewriting dataset files without erased records, in their own format; files that hold none keep their bytes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as arrow
import pyarrow.csv as arrow_csv
import pyarrow.json as arrow_json
import pyarrow.parquet as parquet

from ..config import Columns
from ..digests import keyed_tag, write_atomically
from ..errors import DataError

_LINES = (".jsonl", ".json")


@dataclass(frozen=True, kw_only=True)
class Erased:
    """What must leave a dataset, as keyed tags."""

    key: bytes
    dataset: str
    columns: Columns
    subjects: frozenset[str]
    records: frozenset[str]


def erase(files: Sequence[Path], erased: Erased) -> int:
    """Rewrite each file without the erased records; repeating it changes nothing.

    Returns:
        How many records left.

    Raises:
        DataError: a file is neither Parquet, JSONL nor CSV.
    """
    return sum(_erase_from(path, erased) for path in files)


def _erase_from(path: Path, erased: Erased) -> int:
    table = _read(path)
    keep = [not gone for gone in _gone(table, erased)]
    if all(keep):
        return 0
    path.chmod(0o644)  # DVC's cache links are read-only
    write_atomically(path, _kept_lines(path, keep) if path.suffix in _LINES else _kept_table(path, table.filter(arrow.array(keep))))
    return keep.count(False)


def _gone(table: arrow.Table, erased: Erased) -> list[bool]:
    columns, key = erased.columns, erased.key
    subjects = table[columns.subject].to_pylist() if columns.subject in table.column_names else [None] * len(table)
    if columns.record:
        records = [keyed_tag(key, "record", erased.dataset, str(value)) for value in table[columns.record].to_pylist()]
    else:
        texts = zip(table[columns.prompt].to_pylist(), table[columns.answer].to_pylist(), strict=True)
        records = [keyed_tag(key, "content", prompt, answer) for prompt, answer in texts]
    return [_is_in(erased.subjects, subject, key) or record in erased.records for subject, record in zip(subjects, records, strict=True)]


def _is_in(tags: Collection[str], subject: object, key: bytes) -> bool:
    return subject is not None and keyed_tag(key, "subject", str(subject)) in tags


def _read(path: Path) -> arrow.Table:
    if path.suffix == ".parquet":
        return parquet.read_table(path)
    if path.suffix in _LINES:
        return arrow_json.read_json(path)
    if path.suffix == ".csv":
        return _csv_as_text(path)
    raise DataError(f"{path.name}: expected .parquet, .jsonl or .csv; erase the records with your own tool, then run `dvc commit`")


def _csv_as_text(path: Path) -> arrow.Table:
    """CSV has no types; guessing would make 7 of 007, and then the person would not be found."""
    parse = arrow_csv.ParseOptions(newlines_in_values=True)
    names = arrow_csv.read_csv(path, parse_options=parse).column_names
    convert = arrow_csv.ConvertOptions(column_types=dict.fromkeys(names, arrow.string()), strings_can_be_null=False)
    return arrow_csv.read_csv(path, parse_options=parse, convert_options=convert)


def _kept_table(path: Path, kept: arrow.Table) -> bytes:
    sink = arrow.BufferOutputStream()
    (parquet.write_table if path.suffix == ".parquet" else arrow_csv.write_csv)(kept, sink)
    return bytes(sink.getvalue().to_pybytes())


def _kept_lines(path: Path, keep: Sequence[bool]) -> bytes:
    lines = [line for line in path.read_bytes().splitlines(keepends=True) if line.strip()]
    return b"".join(line for line, kept in zip(lines, keep, strict=True) if kept)
