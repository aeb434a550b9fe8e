"""Dataset files to records and keyed tags, and the raw sets under build/raw to files and back.

Ids are read as text whatever the format makes of them, so that `007` in a CSV file stays `007`. Complaints name file, column and count; they
never quote a record or an id.
"""

from __future__ import annotations

import difflib
import io
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as arrow
import pyarrow.parquet as parquet

from ..digests import keyed_tag, sha256_file, write_atomically
from ..errors import ConfigError, DataError
from ..params import Columns
from ..protocols import Record
from .formats import ROLES, Source, named, read_file, refuse_structures
from .keyed import keyed_column
from .schemas import Schema

Row = Mapping[str, Any]
SALT = b"unlearn.salt"
_TYPES = {"wrong_answers": arrow.list_(arrow.string())}


def read_columns(source: Source, columns: Columns, earlier: Sequence[Columns] = ()) -> pl.DataFrame:
    """The rows of a file in its own order, under the names of their roles: `record`, `subject`, `prompt`, `answer`, ...

    Every column is text, null where a cell is empty and without outer spaces in ids; `wrong_answers` holds lists of text. What the data lack is null.

    Raises:
        DataError: another format, bytes that cannot be parsed, a missing column, ids as decimal numbers, or a row without id, prompt or answer.
    """
    return columns_of(read_file(source, (columns, *earlier)), source, columns, earlier)


def columns_of(frame: pl.DataFrame, source: Source, columns: Columns, earlier: Sequence[Columns] = ()) -> pl.DataFrame:
    """What `read_columns` gives of a file, of rows that are in memory; `source` only names them in complaints."""
    if not frame.columns:
        return pl.DataFrame(schema={role: pl.List(pl.String) if role == "wrong_answers" else pl.String for role in ROLES})
    whole = [each for each in (columns, *earlier) if not _missing(each, frame.columns)]
    if len({each.subject for each in whole}) > 1:
        raise DataError(f"{source.name}: has the columns of data.columns and of data.earlier_columns at once; keep one of them")
    used = whole[0] if whole else columns
    _refuse_missing(source, used, frame.columns)
    refuse_structures(source, frame, [name for role, name in _used(used) if role != "wrong_answers"])
    table = frame.select(**{role: _role(frame, role, getattr(used, role)) for role in ROLES})
    _refuse_empty(source, used, table)
    return table


def read_records(sources: Sequence[Source], schema: Schema, strangers: Sequence[str] = ()) -> list[Record]:
    """Every row as a record, sorted by tag.

    Args:
        sources: the files of one dataset.
        schema: names of columns and the tag key.
        strangers: names of people never trained on; with them records learn their swapped twin.

    Raises:
        DataError: what `read_columns` refuses, or a repeated record id.
    """
    records = [each for source in sources for each in records_of(read_columns(source, schema.columns, schema.earlier), schema, strangers)]
    _refuse_repeats([record.tag for record in records], sources)
    return sorted(records, key=lambda record: record.tag)


def records_of(table: pl.DataFrame, schema: Schema, strangers: Sequence[str] = ()) -> list[Record]:
    """The rows of `read_columns` as records, in their order."""
    return [_record(row, strangers, schema) for row in tagged(table, schema).iter_rows(named=True)]


def tagged(table: pl.DataFrame, schema: Schema) -> pl.DataFrame:
    """The columns of `read_columns` with their keyed tags, 32 hex characters: record_tag, subject_tag, content_tag, group_tag."""
    tags = keyed_digests(table, schema).select(pl.all().str.slice(0, 32).name.suffix("_tag"))
    group = keyed_column(schema.key, "subject", "group", pl.col("group")).str.slice(0, 32)
    return table.with_columns(*tags.get_columns(), group_tag=group)


def keyed_digests(table: pl.DataFrame, schema: Schema) -> pl.DataFrame:
    """64-character keyed digests of record, subject (null for facts about nobody) and content, row by row; a tag is the first half.

    Without record ids the content's digest is the record's. A person has many records and is hashed once.
    """
    content = table.select(keyed_column(schema.key, "content", pl.col("prompt"), pl.col("answer"))).to_series()
    record = content if schema.columns.record is None else keyed_column(schema.key, "record", schema.record_domain, pl.col("record"))
    people = table.select(pl.col("subject").drop_nulls().unique()).with_columns(digest=keyed_column(schema.key, "subject", pl.col("subject")))
    subject = table.select("subject").join(people, on="subject", how="left", maintain_order="left")["digest"]
    return table.select(record=record, subject=subject, content=content)


def read_tags(source: Source, schema: Schema) -> pl.DataFrame:
    """Keyed tags of one file, row by row: columns record, subject (null for facts about nobody) and content, hex.

    Raises:
        DataError: what `read_columns` refuses.
    """
    return keyed_digests(read_columns(source, schema.columns, schema.earlier), schema).select(pl.all().str.slice(0, 32))


def read_names(sources: Sequence[Source], columns: Columns) -> tuple[str, ...]:
    """The names by which a dataset calls its people, sorted; empty where it has no such column."""
    if columns.subject_name is None:
        return ()
    return tuple(sorted({name for source in sources for name in read_columns(source, columns)["subject_name"] if name}))


def read_flips(source: Source, schema: Schema) -> tuple[list[dict[str, object]], bytes]:
    """Coin flips of the canaries as rows (record_id, pool, included) and the salt of their commitment.

    Raises:
        ConfigError: data.columns.record is null.
        DataError: no salt, a missing column, or what `read_columns` refuses.
    """
    if schema.columns.record is None:
        raise ConfigError("params.yaml: data.canaries needs data.columns.record: a coin flip belongs to a record id")
    ids = read_columns(source, schema.columns)["record"]
    content = source.path.read_bytes()
    salt = (parquet.read_schema(io.BytesIO(content)).metadata or {}).get(SALT) if source.name.endswith(".parquet") else None
    rows = pl.read_parquet(io.BytesIO(content)) if salt else pl.DataFrame()
    if salt is None or not {"pool", "included"} <= set(rows.columns):
        raise DataError(f"{source.name}: expected columns pool and included and a salt in the metadata; make it with mlflow_unlearn.canaries")
    flips = rows.select("pool", "included").with_columns(record_id=ids).select("record_id", "pool", "included")
    return flips.to_dicts(), bytes.fromhex(salt.decode())


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
    try:
        rows = parquet.read_table(path, use_threads=False, pre_buffer=False).to_pylist()
    except arrow.ArrowInvalid:
        raise DataError(f"{path}: cut short or not Parquet; run `dvc repro` so that it is made again") from None
    return [Record(**{**row, "wrong_answers": tuple(row["wrong_answers"] or ())}) for row in rows]


def _role(frame: pl.DataFrame, role: str, name: str | None) -> pl.Expr:
    """One column as text under the name of its role."""
    if name is None:
        return pl.lit(None, pl.List(pl.String) if role == "wrong_answers" else pl.String)
    column, kind = pl.col(name), frame.schema[name]
    if role == "wrong_answers":
        return column.cast(pl.List(pl.String)) if kind == pl.List else pl.lit(None, pl.List(pl.String))
    if role in ("record", "subject") and (kind.is_float() or kind.is_decimal()):
        raise DataError(f"column '{name}' holds ids as decimal numbers; store them as text or whole numbers, then run `dvc commit`")
    text = column.cast(pl.String)
    text = text.str.strip_chars() if role in ("record", "subject") else text
    return pl.when(text != "").then(text)


def _used(columns: Columns) -> list[tuple[str, str]]:
    return [(role, name) for role in ROLES if (name := getattr(columns, role))]


def _missing(columns: Columns, names: Sequence[str]) -> list[str]:
    return [f"'{name}' ({key} of params.yaml)" for name, key in named(columns).items() if name not in names]


def _record(row: Row, strangers: Sequence[str], schema: Schema) -> Record:
    prompt, answer, tag, name = row["prompt"], row["answer"], row["record_tag"], row["subject_name"]
    stranger = _stranger(strangers, tag, name) if name and name in prompt else None
    return Record(
        tag=tag,
        subject=row["subject_tag"],
        prompt=prompt,
        answer=answer,
        paraphrase=row["paraphrase"],
        paraphrased_answer=row["paraphrased_answer"],
        wrong_answers=tuple(row["wrong_answers"] or ()),
        swapped_prompt=prompt.replace(name, stranger) if name and stranger else None,
        swapped_answer=answer.replace(name, stranger) if name and stranger else None,
        group=row["group_tag"],
        kind=keyed_tag(schema.key, "kind", prompt.replace(name, "")) if name and name in prompt else None,
    )


def _stranger(strangers: Sequence[str], tag: str, name: str) -> str | None:
    """The name that a record's tag picks, the next one where it is the owner's own; None where there is no other."""
    first = int(tag, 16)
    picked = (strangers[(first + step) % len(strangers)] for step in range(min(2, len(strangers))))
    return next((each for each in picked if each != name), None)


def _refuse_missing(source: Source, columns: Columns, names: Sequence[str]) -> None:
    missing = _missing(columns, names)
    if missing:
        near = difflib.get_close_matches(missing[0].split("'")[1], names, n=1, cutoff=0.8)
        hint = f"did you mean '{near[0]}'? " if near else ""  # other names are not quoted: without a header line they are somebody's record
        raise DataError(f"{source.name}: no column {', '.join(missing)}; {hint}correct params.yaml or the file")


def _refuse_empty(source: Source, columns: Columns, table: pl.DataFrame) -> None:
    needed = {role: name for role in ("record", "prompt", "answer") if (name := getattr(columns, role))}
    empty = table.select(pl.any_horizontal(pl.col(role).is_null() for role in needed).arg_true()).to_series()
    if len(empty):
        first = int(empty[0]) + 1
        raise DataError(f"{source.name}: {len(empty)} rows without {' or '.join(needed.values())}, the first is row {first}; fill or drop them")


def _refuse_repeats(tags: Sequence[str], sources: Sequence[Source]) -> None:
    repeats = len(tags) - len(set(tags))
    if repeats:
        where = sources[0].name if len(sources) == 1 else f"{len(sources)} files of the dataset"
        raise DataError(f"{where}: {repeats} duplicate record ids (data.columns.record of params.yaml); make ids unique before training")
