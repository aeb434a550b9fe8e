"""Records of a dataset revision and of the files beside it (hold-out, general facts, canaries), as of the same git revision, without checkout."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from ..canaries import Flip, commitment
from ..errors import LineageError
from ..lineage import DatasetRevision
from ..protocols import Record
from .dvc_project import DvcProject
from .formats import Source, holds_no_records
from .schemas import Schema
from .tables import read_flips, read_names, read_records


@dataclass(frozen=True, kw_only=True)
class CanaryFile:
    """The canaries of one revision."""

    records: tuple[Record, ...]
    flips: tuple[Flip, ...]
    """Keyed by record tag, not by id."""
    commitment: str
    committed: bool
    """Whether the commit that the model was trained at holds this very commitment."""


@dataclass(frozen=True, kw_only=True)
class DatasetReader:
    """Reads what DVC kept."""

    project: DvcProject
    schema: Schema
    """Of the main dataset and of the files beside it."""
    others: Mapping[str, Schema] = field(default_factory=dict)
    """Of the further datasets, by name."""

    def records(self, state: DatasetRevision, strangers: Sequence[str] = ()) -> list[Record]:
        """Every record of one revision, sorted by tag."""
        return read_records(self._sources(state.path, state.md5), self.others.get(state.name, self.schema), strangers)

    def beside(self, path: str | None, states: Sequence[DatasetRevision], strangers: Sequence[str] = ()) -> list[Record]:
        """Records of another DVC output in the git revision of the training data; none where params.yaml names no such file."""
        source = self._beside(path, states)
        return read_records(source, self.schema, strangers) if source else []

    def strangers(self, path: str | None, states: Sequence[DatasetRevision]) -> tuple[str, ...]:
        """Names of the people in a hold-out file."""
        return read_names(self._beside(path, states), self.schema.columns)

    def canaries(
        self, path: str | None, states: Sequence[DatasetRevision], trained_at: str | None, strangers: Sequence[str] = ()
    ) -> CanaryFile | None:
        """The canaries and whether they were committed before training; None where params.yaml names no file.

        Args:
            path: the canary file, relative to the git root.
            states: the training data.
            trained_at: git commit that was checked out when the model was trained; a commitment counts only if that commit holds it.
            strangers: names of people never trained on.
        """
        sources = self._beside(path, states)
        if not sources or path is None:
            return None
        rows, salt = read_flips(sources[0], self.schema)
        flips = [Flip(record_id=str(row["record_id"]), pool=row["pool"], included=bool(row["included"])) for row in rows]  # type: ignore[arg-type]
        digest = commitment(flips, salt)
        recorded = self.project.git_show(trained_at, str(PurePosixPath(path).with_name("commitment.json"))) if trained_at else None
        return CanaryFile(
            records=tuple(read_records(sources, self.schema, strangers)),
            flips=tuple(Flip(record_id=self._tag(flip.record_id), pool=flip.pool, included=flip.included) for flip in flips),
            commitment=digest,
            committed=recorded is not None and json.loads(recorded).get("commitment") == digest,
        )

    def _tag(self, record_id: str) -> str:
        return self.schema.record_tag(record_id)

    def _beside(self, path: str | None, states: Sequence[DatasetRevision]) -> list[Source]:
        if path is None:
            return []
        found = next((md5 for state in states if (md5 := self.project.beside(path, state))), None)
        if found is None:
            revisions = ", ".join(revision for state in states for revision in state.revisions)
            raise LineageError(f"{path}: DVC does not track it in {revisions}, where the training data lie; see params.yaml: data")
        return self._sources(path, found)

    def _sources(self, path: str, md5: str) -> list[Source]:
        files = [
            (f"{path}/{relpath}" if relpath else path, file_md5) for relpath, file_md5 in self.project.files(md5) if not holds_no_records(relpath)
        ]
        return [Source(name=name, path=self.project.local_path(file_md5)) for name, file_md5 in files]
