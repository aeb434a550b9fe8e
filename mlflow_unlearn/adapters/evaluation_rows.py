"""Rows of a pandas frame, each with the name of its set, as the records that the audit asks. Nothing of a row is logged, quoted or kept."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas
import polars as pl

from ..errors import DataError
from ..params import Columns
from ..protocols import Record
from .formats import ROLES, Source, holds_no_records, named
from .schemas import Schema
from .tables import columns_of, records_of

WHERE = "evaluation data"
PREPARED = ("tag", "prompt", "answer")
"""Columns that the sets of the stage `split` have: their rows are records already."""
_KEY = bytes(32)
"""Tags made here are neither kept nor shown, so that no secret is needed; with the same key the same rows give the same order and samples."""
_FIELDS = {field.name: field.default for field in fields(Record)}

_READERS: Mapping[str, Callable[[Path], pandas.DataFrame]] = {
    ".parquet": pandas.read_parquet,
    ".csv": partial(pandas.read_csv, dtype=str),
    ".jsonl": partial(pandas.read_json, lines=True, dtype=False),
}

Sets = Mapping[str, Sequence[Record]]


def read_frame(folder: Path) -> pandas.DataFrame:
    """The rows of every Parquet, CSV and JSONL file below a folder; CSV cells are text, so that ids stay as they are written.

    Raises:
        DataError: there is no such file, or one that cannot be read; a file of another kind must not look as if it had no rows.
    """
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not holds_no_records(path.relative_to(folder).as_posix())]
    unknown = [path for path in files if path.suffix.lower() not in _READERS]
    if unknown or not files:
        raise DataError(f"{WHERE}: {len(unknown)} of {len(files)} files are none of {', '.join(_READERS)}; convert them or name another output")
    try:
        return pandas.concat([_READERS[path.suffix.lower()](path) for path in files], ignore_index=True)
    except (ValueError, OSError) as error:
        raise DataError(f"{WHERE}: a file cannot be read ({type(error).__name__}); restore it with `dvc checkout`") from None


def is_prepared(frame: pandas.DataFrame) -> bool:
    """Whether the rows are those of build/raw/sets, with the project's own keyed tags."""
    return set(PREPARED) <= set(frame.columns)


def sets_of(frame: pandas.DataFrame, set_column: str, known: Sequence[str], columns: Columns | None = None) -> Sets:
    """Set name -> its records. A record may be in several sets, in each once.

    Args:
        frame: one row a record and set; either the columns of build/raw/sets, or those of a dataset.
        set_column: the column that names the set.
        known: names that a set may have.
        columns: names of a dataset's columns; None takes the default ones, and every other role under its own name where there is such a column.

    Raises:
        DataError: no such column, a set of another name, rows without prompt or answer, or a record twice in a set.
    """
    if set_column not in frame.columns:
        raise DataError(f"{WHERE}: no column '{set_column}' that names the set of a row ({', '.join(known)}); add it, or name it in `set_column`")
    names = [name if isinstance(name, str) else "" for name in frame[set_column].tolist()]
    if wrong := [name for name in dict.fromkeys(names) if name not in known]:
        # Not quoted: the column may be another one, and then it holds somebody's words.
        near = difflib.get_close_matches(wrong[0], known, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(known)}"
        raise DataError(f"{WHERE}: {sum(name in wrong for name in names)} rows of column '{set_column}' name no set that is known; {hint}")
    records = _prepared(frame) if is_prepared(frame) and columns is None else _of_dataset(frame.drop(columns=[set_column]), names, columns)
    found: dict[str, list[Record]] = {}
    for name, record in zip(names, records, strict=True):
        found.setdefault(name, []).append(record)
    for name, those in found.items():
        _refuse_repeats(name, those)
    return found if is_prepared(frame) and columns is None else {name: sorted(those, key=lambda each: each.tag) for name, those in found.items()}


def _prepared(frame: pandas.DataFrame) -> list[Record]:
    rows = frame[[name for name in frame.columns if name in _FIELDS]].to_dict("records")
    missing = sum(not isinstance(row[name], str) for row in rows for name in PREPARED)
    if missing:
        raise DataError(f"{WHERE}: {missing} cells of {', '.join(PREPARED)} are empty; fill or drop these rows")
    return [Record(**{name: _cell(name, value) for name, value in row.items()}) for row in [{"subject": None} | row for row in rows]]


def _cell(name: str, value: Any) -> Any:
    if name == "wrong_answers":
        return () if value is None or isinstance(value, float) else tuple(value)
    default = None if _FIELDS[name] is MISSING else _FIELDS[name]
    return value if isinstance(value, str) else default


def _of_dataset(frame: pandas.DataFrame, names: Sequence[str], columns: Columns | None) -> list[Record]:
    used = columns or _default(frame)
    source = Source(name=WHERE, path=Path())
    table = _polars(frame)
    if columns is None and used.subject not in table.columns:
        table = table.with_columns(pl.lit(None, pl.String).alias(used.subject))
    if missing := [name for name in named(used) if name not in table.columns]:
        raise DataError(f"{WHERE}: no column {', '.join(missing)}; rename the frame's columns, or name them in `columns`")
    found = columns_of(table, source, used)
    return records_of(found, Schema(dataset="evaluation", columns=used, key=_KEY), _strangers(found, names))


def _default(frame: pandas.DataFrame) -> Columns:
    """The default names; without ids a record is known by its content, and what has the name of its role is used."""
    base = Columns()
    optional = {role: role for role in ROLES if getattr(base, role) is None and role in frame.columns}
    return replace(base, **optional, record=base.record if base.record in frame.columns else None)


def _polars(frame: pandas.DataFrame) -> pl.DataFrame:
    try:
        return pl.from_pandas(frame.reset_index(drop=True))
    except (pl.exceptions.PolarsError, TypeError, ValueError, OSError) as error:
        raise DataError(f"{WHERE}: a column mixes types ({type(error).__name__}); make each of them text, numbers or lists of text") from None


def _strangers(table: pl.DataFrame, names: Sequence[str]) -> tuple[str, ...]:
    """Names of held-out people, sorted."""
    held = {name for name, of in zip(table["subject_name"], names, strict=True) if name and of == "holdout"}
    return tuple(sorted(held))


def _refuse_repeats(name: str, records: Sequence[Record]) -> None:
    repeats = len(records) - len({record.tag for record in records})
    if repeats:
        raise DataError(f"{WHERE}: {repeats} records are more than once in {name}; drop the copies, which would make every interval too narrow")
