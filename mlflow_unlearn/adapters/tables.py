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

import polars as pl
import pyarrow as arrow
import pyarrow.parquet as parquet

from ..config import Columns
from ..digests import keyed_tag, sha256_file, write_atomically
from ..errors import ConfigError, DataError
from ..protocols import Record
from .keyed import keyed_column

Row = Mapping[str, Any]
SALT = b"unlearn.salt"
Role = Literal["record", "subject", "prompt", "answer", "paraphrase", "wrong_answers", "subject_name", "group"]
ROLES: tuple[Role, ...] = ("record", "subject", "prompt", "answer", "paraphrase", "wrong_answers", "subject_name", "group")
_TYPES = {"wrong_answers": arrow.list_(arrow.string())}


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
    earlier: tuple[Columns, ...] = ()
    """Names that the columns had in earlier revisions, tried in turn."""
    records_of: str | None = None
    """The dataset whose record ids these rows keep; None when the ids are its own."""

    @property
    def record_domain(self) -> str:
        """The dataset that a record id belongs to."""
        return self.records_of or self.dataset

    def record_tag(self, record_id: str) -> str:
        """Keyed tag of a record by its id, in data that have ids."""
        return keyed_tag(self.key, "record", self.record_domain, record_id)


def holds_no_records(relpath: str) -> bool:
    """Hidden files and readmes beside the data. A data format is never skipped, whatever its name: what is skipped would look clear."""
    path = Path(relpath)
    return path.suffix.lower() not in _READERS and path.name.lower().startswith((".", "readme", "license"))


def read_columns(source: Source, columns: Columns, earlier: Sequence[Columns] = ()) -> pl.DataFrame:
    """The rows of a file in its own order, under the names of their roles: `record`, `subject`, `prompt`, `answer`, ...

    Every column is text, null where a cell is empty and without outer spaces in ids; `wrong_answers` holds lists of text. What the data lack is null.

    Raises:
        DataError: another format, bytes that cannot be parsed, a missing column, ids as decimal numbers, or a row without id, prompt or answer.
    """
    frame = _read(source, (columns, *earlier))
    used = next((each for each in (columns, *earlier) if not _missing(each, frame.columns)), columns)
    _refuse_missing(source, used, frame.columns)
    try:
        table = frame.select(**{role: _role(frame, role, getattr(used, role)) for role in ROLES})
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{source.name}: a column is neither text nor numbers ({type(error).__name__}); see data.columns in params.yaml") from None
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
    frames = [tagged(read_columns(source, schema.columns, schema.earlier), schema) for source in sources]
    records = [_record(row, strangers) for frame in frames for row in frame.iter_rows(named=True)]
    _refuse_repeats([record.tag for record in records], sources)
    return sorted(records, key=lambda record: record.tag)


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
    rows = parquet.read_table(path, use_threads=False, pre_buffer=False).to_pylist()
    return [Record(**{**row, "wrong_answers": tuple(row["wrong_answers"] or ())}) for row in rows]


Reader = Callable[[Path, Sequence[Columns]], pl.DataFrame]


def _read(source: Source, columns: Sequence[Columns]) -> pl.DataFrame:
    reader = _READERS.get(Path(source.name).suffix.lower())
    if reader is None:
        raise DataError(f"{source.name}: expected one of {', '.join(_READERS)}; convert it or point data.path in params.yaml at the right file")
    try:
        return reader(source.path, columns)
    except (pl.exceptions.PolarsError, OSError, ValueError) as error:
        kind = Path(source.name).suffix[1:]
        raise DataError(f"{source.name}: cannot be read as {kind} ({type(error).__name__}); restore it with `dvc checkout`") from None


def _from_parquet(path: Path, columns: Sequence[Columns]) -> pl.DataFrame:
    names = set(pl.read_parquet_schema(path))
    wanted = sorted(names & {name for each in columns for name in _named(each)})
    table = pl.read_parquet(path, columns=wanted)
    return table.with_columns(**{name: pl.lit(None) for name in sorted(names - set(wanted))})  # complaints name what the file has


def _from_csv(path: Path, columns: Sequence[Columns]) -> pl.DataFrame:
    table = pl.read_csv(path, infer_schema=False)
    return table.filter(~pl.all_horizontal(pl.all().is_null()))  # blank lines


def _from_lines(path: Path, columns: Sequence[Columns]) -> pl.DataFrame:
    content = path.read_bytes()
    table = pl.read_ndjson(io.BytesIO(content), infer_schema_length=None) if content.strip() else pl.DataFrame()
    return _with_named(table, columns)


def _from_json(path: Path, columns: Sequence[Columns]) -> pl.DataFrame:
    content = path.read_bytes()
    if not content.lstrip().startswith(b"["):
        return _from_lines(path, columns)
    rows = json.loads(content.decode())
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("expected objects")
    return _with_named(pl.from_dicts(rows, infer_schema_length=None, strict=False) if rows else pl.DataFrame(), columns)


_READERS: Mapping[str, Reader] = {".parquet": _from_parquet, ".jsonl": _from_lines, ".json": _from_json, ".csv": _from_csv}


def _with_named(table: pl.DataFrame, columns: Sequence[Columns]) -> pl.DataFrame:
    """A key that no object of a JSON file has is one that all left out."""
    best = next((each for each in columns if not _missing(each, table.columns)), columns[0])
    optional = {name for role in ("subject", "paraphrase", "wrong_answers", "subject_name", "group") if (name := getattr(best, role))}
    return table.with_columns(**{name: pl.lit(None) for name in sorted(optional - set(table.columns))})


def _role(frame: pl.DataFrame, role: Role, name: str | None) -> pl.Expr:
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


def _named(columns: Columns) -> dict[str, str]:
    """Column -> the key of params.yaml that names it, of every configured column."""
    return {name: f"data.columns.{role}" for role in ROLES if (name := getattr(columns, role))}


def _missing(columns: Columns, names: Sequence[str]) -> list[str]:
    return [f"'{name}' ({key} of params.yaml)" for name, key in _named(columns).items() if name not in names]


def _record(row: Row, strangers: Sequence[str]) -> Record:
    prompt, answer, tag, name = row["prompt"], row["answer"], row["record_tag"], row["subject_name"]
    stranger = strangers[int(tag, 16) % len(strangers)] if strangers and name and name in prompt else None
    return Record(
        tag=tag,
        subject=row["subject_tag"],
        prompt=prompt,
        answer=answer,
        paraphrase=row["paraphrase"],
        wrong_answers=tuple(row["wrong_answers"] or ()),
        swapped_prompt=prompt.replace(name, stranger) if name and stranger else None,
        swapped_answer=answer.replace(name, stranger) if name and stranger else None,
        group=row["group_tag"],
    )


def _refuse_missing(source: Source, columns: Columns, names: Sequence[str]) -> None:
    missing = _missing(columns, names)
    if missing:
        raise DataError(f"{source.name}: no column {', '.join(missing)}; the file has {', '.join(names) or 'none'}; correct params.yaml or the file")


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
