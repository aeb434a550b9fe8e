"""The record index: keyed tags of every dataset file, as Parquet, joined with requests by DuckDB.

One index file a dataset file, named after its md5: a new revision costs only the files that changed. The folder is named after the key, so that
an index made with another key is never asked.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as arrow
import pyarrow.parquet as parquet

from ..digests import canonical_json, sha256_json, write_atomically
from ..documents import encode
from ..errors import DataError
from ..lineage import DatasetRevision
from .dvc_project import DvcProject
from .tables import Schema, Source, holds_no_records, read_tags

ROWS_PER_GROUP = 20_480
_EMPTY = arrow.table({name: arrow.array([], arrow.string()) for name in ("record", "subject", "content")})


@dataclass(frozen=True)
class RecordIndex:
    """Tags of one dataset under one key and one choice of columns."""

    folder: Path
    project: DvcProject
    schema: Schema

    def ensure(self, state: DatasetRevision) -> int:
        """Index what is new in a dataset revision.

        Returns:
            How many files were newly indexed.

        Raises:
            StoreError: its bytes are nowhere.
            DataError: a file does not have the shape params.yaml promises.
        """
        new = [(relpath, md5) for relpath, md5 in self._files(state.md5) if not self._file(relpath, md5).exists()]
        self.project.prefetch(md5 for relpath, md5 in new if not holds_no_records(relpath))
        for relpath, md5 in new:
            name = f"{state.path}/{relpath}" if relpath else state.path
            tags = _EMPTY if holds_no_records(relpath) else read_tags(Source(name=name, path=self.project.local_path(md5)), self.schema)
            sink = arrow.BufferOutputStream()
            parquet.write_table(tags.sort_by("record"), sink, row_group_size=ROWS_PER_GROUP)
            write_atomically(self._file(relpath, md5), bytes(sink.getvalue().to_pybytes()))
        return len(new)

    def matches(self, states: Sequence[DatasetRevision], *, subjects: Sequence[str], records: Sequence[str]) -> Mapping[str, int]:
        """DVC md5 -> number of its records that belong to one of `subjects` or are one of `records`; revisions without any are left out."""
        rows = self._ask(
            states,
            subjects,
            records,
            "SELECT s.md5, count(DISTINCT t.record) FROM tags t JOIN states s USING (filename) "
            "WHERE t.subject IN (SELECT tag FROM subjects) OR t.record IN (SELECT tag FROM records) GROUP BY s.md5",
        )
        return {str(md5): int(count) for md5, count in rows}

    def unknown(self, states: Sequence[DatasetRevision], *, subjects: Sequence[str], records: Sequence[str]) -> tuple[list[int], list[int]]:
        """Positions in `subjects` and in `records` that no state holds."""
        found_subjects = self._ask(states, subjects, records, "SELECT DISTINCT subject FROM tags WHERE subject IN (SELECT tag FROM subjects)")
        found_records = self._ask(states, subjects, records, "SELECT DISTINCT record FROM tags WHERE record IN (SELECT tag FROM records)")
        known = {str(row[0]) for row in (*found_subjects, *found_records)}
        return [i for i, tag in enumerate(subjects) if tag not in known], [i for i, tag in enumerate(records) if tag not in known]

    def rows(self, states: Sequence[DatasetRevision]) -> list[tuple[str, str]]:
        """(record tag, content tag) of everything in the union of `states`, each wording of a record once."""
        return [(str(record), str(content)) for record, content in self._ask(states, [], [], "SELECT DISTINCT record, content FROM tags")]

    def summary(self, state: DatasetRevision) -> dict[str, int]:
        """`records` and `subjects` (people) of one revision.

        Raises:
            DataError: a record id occurs in more than one file.
        """
        question = "SELECT count(*), count(DISTINCT record), count(DISTINCT subject) FROM tags"
        ((rows, records, subjects),) = self._ask([state], [], [], question) or [(0, 0, 0)]
        if rows != records:
            repeated = rows - records
            raise DataError(f"{state.path}: {repeated} duplicate record ids across its files; make ids unique (data.columns.record in params.yaml)")
        return {"records": records, "subjects": subjects}

    def _ask(self, states: Sequence[DatasetRevision], subjects: Sequence[str], records: Sequence[str], question: str) -> list[Any]:
        files = [(state.md5, str(self._file(relpath, md5))) for state in states for relpath, md5 in self._files(state.md5)]
        if not files:
            return []
        with duckdb.connect(config={"threads": 2}) as connection:
            connection.register("states", arrow.table({"md5": [md5 for md5, _ in files], "filename": [path for _, path in files]}))
            connection.register("subjects", arrow.table({"tag": arrow.array(subjects, arrow.string())}))
            connection.register("records", arrow.table({"tag": arrow.array(records, arrow.string())}))
            listed = _quoted({path for _, path in files})  # table functions take no bound parameters inside a view
            connection.execute(f"CREATE TEMP VIEW tags AS SELECT * FROM read_parquet({listed}, filename = true)")  # noqa: S608 - our own paths
            return list(connection.execute(question).fetchall())

    def _files(self, md5: str) -> list[tuple[str, str]]:
        """The file list of a state, kept: what was indexed stays traceable after its bytes were purged, and costs no look at the remote."""
        kept = self.folder / "states" / f"{md5}.json"
        if not kept.exists():
            write_atomically(kept, canonical_json(self.project.files(md5)))
        return [(relpath, file) for relpath, file in json.loads(kept.read_bytes())]

    def _file(self, relpath: str, md5: str) -> Path:
        """One index file for each content and format: the same bytes can be data under one name and a readme under another."""
        kind = "none" if holds_no_records(relpath) else Path(relpath).suffix.lstrip(".") or "file"
        return self.folder / self._fingerprint / f"{md5}-{kind}.parquet"

    @property
    def _fingerprint(self) -> str:
        """Names key and columns without revealing the key."""
        key = hashlib.sha256(b"mlflow-unlearn index" + self.schema.key).hexdigest()
        return sha256_json([key, self.schema.dataset, encode(self.schema.columns)])[:16]


def _quoted(paths: set[str]) -> str:
    return "[" + ", ".join("'" + path.replace("'", "''") + "'" for path in sorted(paths)) + "]"
