"""Dataset files to records and keyed tags, and the raw sets under build/raw to files and back.

Ids are read as text whatever the format makes of them, so that `007` in a CSV file stays `007`. Complaints name file, column and count; they
never quote a record or an id.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import pyarrow as arrow
import pyarrow.csv as arrow_csv
import pyarrow.parquet as parquet

from ..config import Columns
from ..digests import keyed_tag, sha256_file, write_atomically
from ..errors import ConfigError, DataError
from ..protocols import Record

Row = Mapping[str, Any]
SALT = b"unlearn.salt"
_TYPES = {"wrong_answers": arrow.list_(arrow.string())}
_KEYS: tuple[Literal["record", "subject", "prompt", "answer", "paraphrase", "wrong_answers", "subject_name", "group"], ...]
_KEYS = ("record", "subject", "prompt", "answer", "paraphrase", "wrong_answers", "subject_name", "group")


@dataclass(frozen=True, kw_only=True)
class Source:
    """One dataset file: where its bytes are and what to call it (objects in DVC's cache have no names)."""

    name: str
    path: Path


@dataclass(frozen=True, kw_only=True)
class Schema:
    """How rows become tags."""

    dataset: str
    columns: Columns
    key: bytes

    def record_tag(self, row: Row) -> str:
        """Keyed tag of a record: by its id, or by its content where the data have no ids."""
        if self.columns.record is None:
            return self.content_tag(row)
        return keyed_tag(self.key, "record", self.dataset, str(_id(row[self.columns.record], self.columns.record)))

    def content_tag(self, row: Row) -> str:
        """Keyed tag of prompt and answer."""
        return keyed_tag(self.key, "content", str(row[self.columns.prompt]), str(row[self.columns.answer]))

    def subject_tag(self, row: Row) -> str | None:
        """Keyed tag of whom a record is about; None for general facts."""
        subject = _id(row.get(self.columns.subject), self.columns.subject)
        return None if subject is None else keyed_tag(self.key, "subject", subject)


def holds_no_records(relpath: str) -> bool:
    """Hidden files and readmes beside the data. A data format is never skipped, whatever its name: what is skipped would look clear."""
    path = Path(relpath)
    return path.suffix.lower() not in _READERS and path.name.lower().startswith((".", "readme", "license"))


def read_rows(source: Source, columns: Columns) -> list[dict[str, Any]]:
    """Every row of a file as a mapping, with at least the configured columns.

    Raises:
        DataError: another format, bytes that cannot be parsed, a missing column, or a row without id, prompt or answer.
    """
    reader = _READERS.get(Path(source.name).suffix)
    if reader is None:
        raise DataError(f"{source.name}: expected one of {', '.join(_READERS)}; convert it or point data.path in params.yaml at the right file")
    try:
        names, rows = reader(source.path.read_bytes(), columns)
    except (arrow.ArrowInvalid, OSError, ValueError) as error:
        kind = Path(source.name).suffix[1:]
        raise DataError(f"{source.name}: cannot be read as {kind} ({type(error).__name__}); restore it with `dvc checkout`") from None
    _refuse_missing(source, columns, names)
    _refuse_empty(source, columns, rows)
    return rows


def read_records(sources: Sequence[Source], schema: Schema, strangers: Sequence[str] = ()) -> list[Record]:
    """Every row as a record, sorted by tag.

    Args:
        sources: the files of one dataset.
        schema: names of columns and the tag key.
        strangers: names of people never trained on; with them records learn their swapped twin.

    Raises:
        DataError: what `read_rows` refuses, or a repeated record id.
    """
    records = [_record(row, schema, strangers) for source in sources for row in read_rows(source, schema.columns)]
    _refuse_repeats([record.tag for record in records], sources)
    return sorted(records, key=lambda record: record.tag)


def read_tags(source: Source, schema: Schema) -> arrow.Table:
    """Keyed tags of one file for the index: columns record, subject (null for facts about nobody) and content, hex.

    Raises:
        DataError: what `read_rows` refuses, or a repeated record id.
    """
    rows = read_rows(source, schema.columns)
    tags = {"record": schema.record_tag, "subject": schema.subject_tag, "content": schema.content_tag}
    table = arrow.table({name: arrow.array([tag(row) for row in rows], arrow.string()) for name, tag in tags.items()})
    _refuse_repeats(table["record"].to_pylist(), [source])
    return table


def read_names(sources: Sequence[Source], columns: Columns) -> tuple[str, ...]:
    """The names by which a dataset calls its people, sorted; empty where it has no such column."""
    if columns.subject_name is None:
        return ()
    names = {_text(row.get(columns.subject_name)) for source in sources for row in read_rows(source, columns)}
    return tuple(sorted(name for name in names if name))


def read_flips(source: Source, schema: Schema) -> tuple[list[dict[str, object]], bytes]:
    """Coin flips of the canaries as rows (record_id, pool, included) and the salt of their commitment.

    Raises:
        ConfigError: data.columns.record is null.
        DataError: no salt, a missing column, or what `read_rows` refuses.
    """
    column = schema.columns.record
    if column is None:
        raise ConfigError("params.yaml: data.canaries needs data.columns.record: a coin flip belongs to a record id")
    rows = read_rows(source, schema.columns)
    salt = (parquet.read_schema(io.BytesIO(source.path.read_bytes())).metadata or {}).get(SALT) if source.name.endswith(".parquet") else None
    if salt is None or any("pool" not in row or "included" not in row for row in rows):
        raise DataError(f"{source.name}: expected columns pool and included and a salt in the metadata; make it with mlflow_unlearn.canaries")
    flips: list[dict[str, object]] = [{"record_id": str(row[column]), "pool": row["pool"], "included": row["included"]} for row in rows]
    return flips, bytes.fromhex(salt.decode())


def write_set(folder: Path, name: str, records: Sequence[Record]) -> str:
    """Write one raw set; hex SHA-256 of its file. Equal records give equal bytes."""
    columns = {field.name: [getattr(record, field.name) for record in records] for field in fields(Record)}
    table = arrow.table({key: arrow.array(values, _TYPES.get(key, arrow.string())) for key, values in columns.items()})
    sink = arrow.BufferOutputStream()
    parquet.write_table(table, sink, compression="zstd")
    write_atomically(folder / f"{name}.parquet", bytes(sink.getvalue().to_pybytes()))
    return sha256_file(folder / f"{name}.parquet")


def read_set(folder: Path, name: str) -> list[Record]:
    """One raw set.

    Raises:
        DataError: the split stage has not made it.
    """
    path = folder / f"{name}.parquet"
    if not path.exists():
        raise DataError(f"{path}: not there; run `dvc repro` so that the split stage makes it")
    rows = _table(path.read_bytes()).to_pylist()
    return [Record(**{**row, "wrong_answers": tuple(row["wrong_answers"] or ())}) for row in rows]


Reader = Callable[[bytes, Columns], tuple[Sequence[str], list[dict[str, Any]]]]


def _table(content: bytes) -> arrow.Table:
    """Without threads: Arrow's pool, still starting when a short command ends, aborts the whole process (seen with pyarrow 25)."""
    return parquet.read_table(io.BytesIO(content), use_threads=False, pre_buffer=False)


def _from_parquet(content: bytes, columns: Columns) -> tuple[Sequence[str], list[dict[str, Any]]]:
    table = _table(content)
    return table.column_names, table.to_pylist()


def _from_csv(content: bytes, columns: Columns) -> tuple[Sequence[str], list[dict[str, Any]]]:
    types = {name: arrow.string() for key in _KEYS if (name := getattr(columns, key))}
    convert = arrow_csv.ConvertOptions(column_types=types, strings_can_be_null=False)
    parsing = arrow_csv.ParseOptions(newlines_in_values=True)
    read = arrow_csv.ReadOptions(use_threads=False)
    table = arrow_csv.read_csv(io.BytesIO(content), parse_options=parsing, convert_options=convert, read_options=read)
    return table.column_names, table.to_pylist()


def _from_json(content: bytes, columns: Columns) -> tuple[Sequence[str], list[dict[str, Any]]]:
    text = content.decode()
    rows = json.loads(text) if text.lstrip().startswith("[") else [json.loads(line) for line in text.splitlines() if line.strip()]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("expected objects")
    return sorted({name for row in rows for name in row}), [{**dict.fromkeys(_named(columns)), **row} for row in rows]


_READERS: Mapping[str, Reader] = {".parquet": _from_parquet, ".jsonl": _from_json, ".json": _from_json, ".csv": _from_csv}


def _named(columns: Columns) -> dict[str, str]:
    """Column -> the key of params.yaml that names it, of every configured column."""
    return {name: f"data.columns.{key}" for key in _KEYS if (name := getattr(columns, key))}


def _record(row: Row, schema: Schema, strangers: Sequence[str]) -> Record:
    columns = schema.columns
    prompt, answer, tag = str(row[columns.prompt]), str(row[columns.answer]), schema.record_tag(row)
    group, name = (_text(row.get(column or "")) for column in (columns.group, columns.subject_name))
    stranger = strangers[int(tag, 16) % len(strangers)] if strangers and name and name in prompt else None
    wrong = row.get(columns.wrong_answers or "")
    return Record(
        tag=tag,
        subject=schema.subject_tag(row),
        prompt=prompt,
        answer=answer,
        paraphrase=_text(row.get(columns.paraphrase or "")),
        wrong_answers=tuple(str(each) for each in wrong) if isinstance(wrong, list) else (),
        swapped_prompt=prompt.replace(name, stranger) if name and stranger else None,
        swapped_answer=answer.replace(name, stranger) if name and stranger else None,
        group=None if group is None else keyed_tag(schema.key, "subject", "group", group),
    )


def _id(value: object, column: str) -> str | None:
    """An id as text without outer spaces, as requests are read. 7 and 7.0 would get different tags, and the person would look absent."""
    if isinstance(value, float):
        raise DataError(f"column '{column}' holds ids as decimal numbers; store them as text or whole numbers, then run `dvc commit`")
    return _text(value.strip() if isinstance(value, str) else value)


def _text(value: object) -> str | None:
    """An empty cell means nothing there, whichever way the format writes it."""
    return None if value is None or value == "" else str(value)


def _refuse_missing(source: Source, columns: Columns, names: Sequence[str]) -> None:
    missing = [f"'{name}' ({key} of params.yaml)" for name, key in _named(columns).items() if name not in names]
    if missing:
        raise DataError(f"{source.name}: no column {', '.join(missing)}; the file has {', '.join(names) or 'none'}; correct params.yaml or the file")


def _refuse_empty(source: Source, columns: Columns, rows: Sequence[Row]) -> None:
    needed = [name for name in (columns.record, columns.prompt, columns.answer) if name]
    empty = [number for number, row in enumerate(rows, 1) if any(_text(row[name]) is None for name in needed)]
    if empty:
        raise DataError(f"{source.name}: {len(empty)} rows without {' or '.join(needed)}, the first is row {empty[0]}; fill or drop them")


def _refuse_repeats(tags: Sequence[str], sources: Sequence[Source]) -> None:
    repeats = len(tags) - len(set(tags))
    if repeats:
        where = sources[0].name if len(sources) == 1 else f"{len(sources)} files of the dataset"
        raise DataError(f"{where}: {repeats} duplicate record ids (data.columns.record of params.yaml); make ids unique before training")
