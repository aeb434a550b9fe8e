"""Dataset files to records and keyed tags, and the raw sets under build/raw to files and back.

Complaints name file, column and count; they never quote a record or an id.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import pyarrow as arrow
import pyarrow.csv as arrow_csv
import pyarrow.json as arrow_json
import pyarrow.parquet as parquet

from ..config import Columns
from ..digests import keyed_tag, sha256_file, write_atomically
from ..errors import ConfigError, DataError
from ..protocols import Record

FORMATS = (".parquet", ".jsonl", ".json", ".csv")


@dataclass(frozen=True, kw_only=True)
class Source:
    """One dataset file: where its bytes are and what to call it (cache objects have no names)."""

    name: str
    path: Path


@dataclass(frozen=True, kw_only=True)
class Schema:
    """How rows become tags."""

    dataset: str
    columns: Columns
    key: bytes


def read_table(source: Source) -> arrow.Table:
    """One file as an arrow table.

    Raises:
        DataError: another format, or bytes that cannot be parsed.
    """
    suffix = Path(source.name).suffix
    readers = {".parquet": parquet.read_table, ".jsonl": arrow_json.read_json, ".json": arrow_json.read_json, ".csv": arrow_csv.read_csv}
    if suffix not in readers:
        raise DataError(f"{source.name}: expected one of {', '.join(FORMATS)}; convert it or point data.path in params.yaml at the right file")
    try:
        return readers[suffix](io.BytesIO(source.path.read_bytes()))
    except arrow.ArrowInvalid as error:
        raise DataError(f"{source.name}: cannot be read as {suffix[1:]} ({type(error).__name__}); restore it with `dvc checkout`") from None


def read_records(sources: Sequence[Source], schema: Schema, strangers: Sequence[str] = ()) -> list[Record]:
    """Every row as a record, sorted by tag.

    Args:
        sources: the files of one dataset.
        schema: names of columns and the tag key.
        strangers: names of people never trained on; with them records learn their swapped twin.

    Raises:
        DataError: a missing column, an empty prompt or answer, or a repeated record id.
    """
    records = [_record(row, schema, strangers) for source in sources for row in _rows(source, schema.columns)]
    _refuse_repeats([record.tag for record in records], sources)
    return sorted(records, key=lambda record: record.tag)


def read_tags(source: Source, schema: Schema) -> arrow.Table:
    """Keyed tags of one file for the index: columns record, subject (null for facts about nobody) and content, hex."""
    columns, rows = schema.columns, _rows(source, schema.columns)
    record = [_tag(row, schema) for row in rows]
    _refuse_repeats(record, [source])
    subject = [None if row.get(columns.subject) is None else keyed_tag(schema.key, "subject", str(row[columns.subject])) for row in rows]
    content = [keyed_tag(schema.key, "content", str(row[columns.prompt]), str(row[columns.answer])) for row in rows]
    return arrow.table({"record": record, "subject": arrow.array(subject, arrow.string()), "content": content})


def read_names(sources: Sequence[Source], columns: Columns) -> tuple[str, ...]:
    """The names by which a dataset calls its people, sorted; empty where it has no such column."""
    if columns.subject_name is None:
        return ()
    names = {row.get(columns.subject_name) for source in sources for row in read_table(source).to_pylist()}
    return tuple(sorted(name for name in names if name))


def read_flips(source: Source, schema: Schema) -> tuple[list[dict[str, object]], bytes]:
    """Coin flips of the canaries as rows (record_id, pool, included) and the salt of their commitment.

    Raises:
        DataError: no salt, or a missing column.
    """
    table = read_table(source)
    salt = (table.schema.metadata or {}).get(b"unlearn.salt")
    wanted = [schema.columns.record or "", "pool", "included"]
    missing = [name for name in wanted if name not in table.column_names]
    if missing or salt is None:
        raise DataError(f"{source.name}: expected columns {', '.join(wanted)} and a salt in the metadata; make it with mlflow_unlearn.canaries")
    rows = table.select(wanted).rename_columns(["record_id", "pool", "included"]).to_pylist()
    return rows, bytes.fromhex(salt.decode())


def write_set(folder: Path, name: str, records: Sequence[Record]) -> str:
    """Write one raw set; sha256 of its file. Equal records give equal bytes."""
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
    return [Record(**{**row, "wrong_answers": tuple(row["wrong_answers"] or ())}) for row in parquet.read_table(path).to_pylist()]


_TYPES = {"wrong_answers": arrow.list_(arrow.string())}


def _rows(source: Source, columns: Columns) -> list[dict[str, object]]:
    table = read_table(source)
    needed = {"record": columns.record, "subject": columns.subject, "prompt": columns.prompt, "answer": columns.answer}
    optional = {key: getattr(columns, key) for key in ("paraphrase", "wrong_answers", "subject_name", "group")}
    missing = [f"data.columns.{key}: '{name}'" for key, name in (needed | optional).items() if name and name not in table.column_names]
    if missing:
        found = ", ".join(table.column_names)
        raise DataError(f"{source.name}: no column for {'; '.join(missing)} of params.yaml; the file has {found}")
    rows: list[dict[str, object]] = table.to_pylist()
    empty = [number for number, row in enumerate(rows, 1) if not row[columns.prompt] or not row[columns.answer]]
    if empty:
        raise DataError(f"{source.name}: {len(empty)} rows without prompt or answer, the first is row {empty[0]}; fill or drop them")
    return rows


def _record(row: Mapping[str, object], schema: Schema, strangers: Sequence[str]) -> Record:
    columns, key = schema.columns, schema.key
    prompt, answer = str(row[columns.prompt]), str(row[columns.answer])
    subject, group = row.get(columns.subject), row.get(columns.group or "")
    tag = _tag(row, schema)
    stranger = strangers[int(tag, 16) % len(strangers)] if strangers else None
    name = row.get(columns.subject_name or "")
    swappable = bool(stranger and name and str(name) in prompt)
    wrong = row.get(columns.wrong_answers or "")
    return Record(
        tag=tag,
        subject=None if subject is None else keyed_tag(key, "subject", str(subject)),
        prompt=prompt,
        answer=answer,
        paraphrase=_text(row.get(columns.paraphrase or "")),
        wrong_answers=tuple(wrong) if isinstance(wrong, list) else (),
        swapped_prompt=prompt.replace(str(name), str(stranger)) if swappable else None,
        swapped_answer=answer.replace(str(name), str(stranger)) if swappable else None,
        group=None if group is None else keyed_tag(key, "subject", "group", str(group)),
    )


def _tag(row: Mapping[str, object], schema: Schema) -> str:
    columns = schema.columns
    if columns.record is None:
        return keyed_tag(schema.key, "content", str(row[columns.prompt]), str(row[columns.answer]))
    return keyed_tag(schema.key, "record", schema.dataset, str(row[columns.record]))


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _refuse_repeats(tags: Sequence[str], sources: Sequence[Source]) -> None:
    repeats = len(tags) - len(set(tags))
    if repeats:
        where = sources[0].name if len(sources) == 1 else f"{len(sources)} files of the dataset"
        raise DataError(f"{where}: {repeats} duplicate record ids (data.columns.record in params.yaml); make ids unique before training")


def require_columns(columns: Columns) -> None:
    """Canaries need record ids.

    Raises:
        ConfigError: data.columns.record is null.
    """
    if columns.record is None:
        raise ConfigError("params.yaml: data.canaries needs data.columns.record: a coin flip belongs to a record id")
