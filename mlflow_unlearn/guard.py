"""The verb `guard`: does a dataset bring back what was erased? Counts and row numbers only: no person, no text, no request."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .errors import ConfigError
from .fingerprints import Neighbours, Sketches, band_for, read, standard_error
from .records import Tombstones

Answer = Literal["clean", "refused", "undecided"]


class Kind(StrEnum):
    """How a row comes back: its person, its record, its very text, or nearly its text."""

    SUBJECT = "subject"
    RECORD = "record"
    CONTENT = "content"
    NEAR_DUPLICATE = "near_duplicate"


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """Estimated Jaccard similarity of character 5-shingles from which a near duplicate is warned about, and refused."""

    warn: float
    refuse: float

    def __post_init__(self) -> None:
        if not 0 < self.warn <= self.refuse <= 1:
            raise ConfigError(
                f"policy.yaml: expected 0 < near_duplicate_jaccard <= near_duplicate_refuse <= 1, found {self.warn:g} and {self.refuse:g}"
            )


@dataclass(frozen=True, kw_only=True)
class KeyedRows:
    """Rows of a file as one tag key sees them, in the file's order."""

    subjects: Sequence[str | None]
    records: Sequence[str]
    contents: Sequence[str]
    """Keyed tags; the subject is None for facts about nobody."""
    sketches: Sketches | None
    """(rows, 256), or None where nothing was erased that could be compared."""


@dataclass(frozen=True, kw_only=True)
class GuardedFile:
    """One file under every key that made tombstones."""

    name: str
    """Relative to the repository."""
    rows: int
    under: Mapping[str, KeyedRows]
    """By key id."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """What one key finds in rows."""

    returned: Mapping[Kind, NDArray[np.bool_]]
    """(rows,) each: the person, the record, the text is under a tombstone."""
    resemblance: NDArray[np.float64]
    """(rows,) the largest estimated Jaccard similarity with an erased text, 0 where none is near."""


class Graves:
    """The tombstones of one key, ready to be searched.

    Raises:
        DataError: a sketch is of a version that this release does not know.
    """

    def __init__(self, tombstones: Tombstones, thresholds: Thresholds) -> None:
        self._tombstones = tombstones
        self._sketches = read(tombstones.sketches) if tombstones.sketches else None
        self._band = band_for(thresholds.warn, thresholds.refuse)

    @property
    def sketched(self) -> bool:
        """Whether there are texts to compare with."""
        return self._sketches is not None

    @cached_property
    def _neighbours(self) -> Neighbours | None:
        return None if self._sketches is None else Neighbours(self._sketches, self._band)

    def found(self, rows: KeyedRows) -> Found:
        """Look every row up."""
        buried = self._tombstones
        tags = {
            Kind.SUBJECT: (rows.subjects, buried.subjects),
            Kind.RECORD: (rows.records, buried.records),
            Kind.CONTENT: (rows.contents, buried.contents),
        }
        near = self._neighbours.nearest(rows.sketches) if self._neighbours and rows.sketches is not None else np.zeros(len(rows.records))
        return Found(returned={kind: _under(own, known) for kind, (own, known) in tags.items()}, resemblance=near)


@dataclass(frozen=True, kw_only=True)
class FileReport:
    """Offenders of one file, as row numbers from 1 in the file's order; a header and blank lines are no rows."""

    file: str
    records: int
    refused: Mapping[str, tuple[int, ...]]
    """Kind -> rows; a row may be refused for several reasons."""
    warned: tuple[int, ...]
    """Near duplicates below the similarity that is refused."""
    borderline: tuple[int, ...]
    """Near duplicates within two standard errors of the similarity that is refused: the estimate could have fallen on its other side."""


@dataclass(frozen=True, kw_only=True)
class GuardReport:
    """Whether these files may be used, and what could not be decided."""

    records: int
    tombstones: int
    """Erased people, records and texts that were looked for."""
    refused: Mapping[str, int]
    """Kind -> rows."""
    warned: int
    borderline: int
    files: tuple[FileReport, ...]
    problems: tuple[str, ...]
    """Why something could not be decided; unknown is not clean."""

    @property
    def complete(self) -> bool:
        """Whether everything could be decided."""
        return not self.problems

    @property
    def answer(self) -> Answer:
        """What was found counts even if something else could not be decided."""
        if any(self.refused.values()):
            return "refused"
        return "clean" if self.complete else "undecided"


def guard(files: Iterable[GuardedFile], graves: Mapping[str, Graves], thresholds: Thresholds) -> tuple[FileReport, ...]:
    """Look for everything buried, under any key, in each file.

    Args:
        files: one after the other, so that only one has to lie in memory.
        graves: key id -> tombstones made with that key.
        thresholds: when a near duplicate is refused.
    """
    return tuple(_reported(file, [graves[identity].found(rows) for identity, rows in file.under.items()], thresholds) for file in files)


def summed(files: Sequence[FileReport], tombstones: Iterable[Tombstones], problems: Sequence[str]) -> GuardReport:
    """The report over all files."""
    return GuardReport(
        records=sum(file.records for file in files),
        tombstones=sum(len(each.subjects) + len(each.records) + max(len(each.contents), len(each.sketches)) for each in tombstones),
        refused={kind.value: sum(len(file.refused[kind.value]) for file in files) for kind in Kind},
        warned=sum(len(file.warned) for file in files),
        borderline=sum(len(file.borderline) for file in files),
        files=tuple(files),
        problems=tuple(problems),
    )


def _reported(file: GuardedFile, found: Sequence[Found], thresholds: Thresholds) -> FileReport:
    returned = {kind: _any([each.returned[kind] for each in found], file.rows) for kind in (Kind.SUBJECT, Kind.RECORD, Kind.CONTENT)}
    near = np.max([each.resemblance for each in found], axis=0) if found else np.zeros(file.rows)
    near = np.where(returned[Kind.CONTENT], 0.0, near)  # the very text is no near duplicate
    refused = near >= thresholds.refuse
    unsure = (near > 0) & (np.abs(near - thresholds.refuse) <= 2 * standard_error(thresholds.refuse)) & (near < 1)
    kinds = returned | {Kind.NEAR_DUPLICATE: refused}
    return FileReport(
        file=file.name,
        records=file.rows,
        refused={kind.value: _numbers(kinds[kind]) for kind in Kind},
        warned=_numbers((near >= thresholds.warn) & ~refused),
        borderline=_numbers(unsure),
    )


def _under(tags: Sequence[str | None], buried: frozenset[str]) -> NDArray[np.bool_]:
    return np.fromiter((tag in buried for tag in tags), dtype=np.bool_, count=len(tags))


def _any(flags: Sequence[NDArray[np.bool_]], rows: int) -> NDArray[np.bool_]:
    return np.logical_or.reduce(flags, axis=0) if flags else np.zeros(rows, dtype=np.bool_)


def _numbers(flags: NDArray[np.bool_]) -> tuple[int, ...]:
    return tuple((np.flatnonzero(flags) + 1).tolist())
