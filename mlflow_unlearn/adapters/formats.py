"""Dataset files as tables, strictly: what could be read in two ways is refused, since the wrong way would make a person look absent.

Complaints name file and column. Names that params.yaml does not know are never quoted: a file without a header line has a record there.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from ..errors import DataError
from ..params import Columns

NO_RECORDS = frozenset(
    {"readme", "readme.md", "readme.rst", "readme.txt", "license", "license.md", "license.txt", "copying"}
    | {".gitignore", ".gitattributes", ".gitkeep", ".ds_store", "_success"}
)
"""Names of files that lie beside data in a directory. Any other file must be read, since what is skipped would look clear."""
ROLES = ("record", "subject", "prompt", "answer", "paraphrase", "paraphrased_answer", "wrong_answers", "subject_name", "group")
_PLAIN = (pl.String, pl.Categorical, pl.Enum, pl.Boolean, pl.Date, pl.Datetime, pl.Time, pl.Null)
_HEAD = 1 << 16  # bytes in which a header line must end


@dataclass(frozen=True, kw_only=True)
class Source:
    """One dataset file: where its bytes are and what to call it (objects in DVC's cache have no names)."""

    name: str
    path: Path


def holds_no_records(relpath: str) -> bool:
    """Whether a file of this name lies beside the data and is none: readmes, licences, git's own files. Decided by the whole name only."""
    return Path(relpath).name.lower() in NO_RECORDS


def named(columns: Columns) -> dict[str, str]:
    """Column -> the key of params.yaml that names it, of every configured column."""
    return {name: f"data.columns.{role}" for role in ROLES if (name := getattr(columns, role))}


def read_file(source: Source, columns: Sequence[Columns]) -> pl.DataFrame:
    """The configured columns that a file has; without any column when it is empty.

    Raises:
        DataError: another format, bytes that cannot be parsed, or contents that could be read in two ways.
    """
    reader = _READERS.get(Path(source.name).suffix.lower())
    if source.path.is_file() and source.path.stat().st_size == 0:
        return pl.DataFrame()
    if reader is None:
        raise DataError(f"{source.name}: expected one of {', '.join(_READERS)}; convert it or point data.path in params.yaml at the right file")
    try:
        return reader(source, {name for each in columns for name in named(each)})
    except DataError:
        raise
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, RecursionError, MemoryError, OSError, ValueError) as error:
        kind = Path(source.name).suffix[1:]
        raise DataError(f"{source.name}: cannot be read as {kind} ({type(error).__name__}); restore it with `dvc checkout`") from None


def refuse_structures(source: Source, table: pl.DataFrame, names: Collection[str]) -> None:
    """Lists and nested objects have no text that a request could name."""
    kinds = {name: table.schema[name] for name in names}
    wrong = sorted(name for name, kind in kinds.items() if not (kind.is_numeric() or kind in _PLAIN))
    if wrong:
        hint = "store text or numbers, or name another column in params.yaml"
        raise DataError(f"{source.name}: column {', '.join(wrong)} holds {kinds[wrong[0]].base_type().__name__.lower()} values; {hint}")


def _from_parquet(source: Source, wanted: AbstractSet[str]) -> pl.DataFrame:
    names = pl.read_parquet_schema(source.path)
    return pl.read_parquet(source.path, columns=[name for name in names if name in wanted] or [next(iter(names))])


def _from_csv(source: Source, wanted: AbstractSet[str]) -> pl.DataFrame:
    _refuse_odd_header(source, wanted)
    table = pl.read_csv(source.path, infer_schema=False)
    rows = table.filter(~pl.all_horizontal(pl.all().is_null()))  # blank lines
    if rows.is_empty() and len([line for line in source.path.read_bytes().splitlines() if line.strip()]) > 1:
        raise DataError(f"{source.name}: no row was found after the header line; write it with one record a line")
    return rows


def _refuse_odd_header(source: Source, wanted: AbstractSet[str]) -> None:
    with source.path.open("rb") as stream:
        head = stream.read(_HEAD).split(b"\n", 1)[0].removesuffix(b"\r")
    if b"\r" in head:
        raise DataError(f"{source.name}: lines end in bare carriage returns; convert them to line feeds")
    cells = Counter(cell.strip().strip('"') for cell in head.decode("utf-8-sig", errors="replace").split(","))
    twice = sorted(name for name, count in cells.items() if count > 1 and name in wanted)
    if twice:
        raise DataError(f"{source.name}: {len(twice)} configured columns occur twice in the header ({', '.join(twice)}); rename one")


def _from_lines(source: Source, wanted: AbstractSet[str]) -> pl.DataFrame:
    content = source.path.read_bytes()
    if not content.strip():
        return pl.DataFrame()
    table = pl.read_ndjson(content, infer_schema_length=None)
    _refuse_uneven_keys(source, content, table, wanted)
    return table


def _refuse_uneven_keys(source: Source, content: bytes, table: pl.DataFrame, wanted: AbstractSet[str]) -> None:
    """A key that some rows lack may have another name there, and one that a row has twice hides a value: both would make somebody look absent."""
    for name in sorted(wanted & set(table.columns)):
        found = len(re.findall(rb'"' + re.escape(json.dumps(name, ensure_ascii=False)[1:-1].encode()) + rb'"\s*:', content))
        if found != table.height:
            said = f"{found} times in {table.height} rows"
            raise DataError(f"{source.name}: key '{name}' occurs {said}; write it once in every row, null where there is nothing")


def _from_json(source: Source, wanted: AbstractSet[str]) -> pl.DataFrame:
    content = source.path.read_bytes()
    if not content.lstrip().startswith(b"["):
        return _from_lines(source, wanted)
    rows = json.loads(content.decode())
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("expected objects")
    table = pl.from_dicts(rows, infer_schema_length=None, strict=False) if rows else pl.DataFrame()
    _refuse_uneven_keys(source, content, table, wanted)
    return table


Reader = Callable[[Source, AbstractSet[str]], pl.DataFrame]
_READERS: Mapping[str, Reader] = {".parquet": _from_parquet, ".jsonl": _from_lines, ".json": _from_json, ".csv": _from_csv}
