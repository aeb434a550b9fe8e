"""The verb `split`: what to forget, what to keep, and what was never there.

Law: forget and retain are disjoint and together the dataset, exactly; hold-out and excluded canaries are not in it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Literal

from .digests import sha256_json
from .errors import DataError
from .protocols import Record


@dataclass(frozen=True, kw_only=True)
class Canary:
    """A record whose presence in the training data was decided by a committed coin flip."""

    record: Record
    pool: Literal["audit", "tuning"]
    included: bool


@dataclass(frozen=True, kw_only=True)
class SplitJob:
    """What the split is made of."""

    dataset: Sequence[Record]
    """Everything the parent was trained on."""
    subjects: Collection[str]
    """Keyed tags of people whose every record goes."""
    records: Collection[str]
    """Keyed tags of single records that go."""
    canaries: Sequence[Canary] = ()
    holdout: Sequence[Record] = ()
    general: Sequence[Record] = ()


@dataclass(frozen=True, kw_only=True)
class SplitSets:
    """The sets, each sorted by tag."""

    forget: tuple[Record, ...]
    """The requested records and every included canary: forgotten in one run by one method."""
    requested: tuple[Record, ...]
    """The requested records alone."""
    retain: tuple[Record, ...]
    holdout: tuple[Record, ...]
    neighbours: tuple[Record, ...]
    """Retained records of people who belong with a requested person."""
    general: tuple[Record, ...]
    audit_included: tuple[Record, ...]
    audit_excluded: tuple[Record, ...]
    tuning_included: tuple[Record, ...]
    tuning_excluded: tuple[Record, ...]


SETS = tuple(field.name for field in fields(SplitSets))


def split(job: SplitJob) -> SplitSets:
    """Make the sets.

    Raises:
        DataError: the flips contradict the dataset, or hold-out records are in it; counts only.
    """
    present = {record.tag for record in job.dataset}
    _refuse_contradictions(job, present)
    requested = [record for record in job.dataset if record.subject in job.subjects or record.tag in job.records]
    included = {canary.record.tag for canary in job.canaries if canary.included}
    gone = {record.tag for record in requested} | included
    retain = [record for record in job.dataset if record.tag not in gone]
    groups = {record.group for record in requested} - {None}
    people = {record.subject for record in requested}
    return SplitSets(
        forget=_sorted(record for record in job.dataset if record.tag in gone),
        requested=_sorted(requested),
        retain=_sorted(retain),
        holdout=_sorted(job.holdout),
        neighbours=_sorted(record for record in retain if record.group in groups and record.subject not in people),
        general=_sorted(job.general),
        audit_included=_pool(job, "audit", True),
        audit_excluded=_pool(job, "audit", False),
        tuning_included=_pool(job, "tuning", True),
        tuning_excluded=_pool(job, "tuning", False),
    )


def union(revisions: Iterable[Iterable[Record]]) -> list[Record]:
    """The dataset behind a parent with several training revisions: every distinct record, and every distinct wording of it, once, sorted."""
    distinct = {(record.tag, record.prompt, record.answer): record for records in revisions for record in records}
    return [distinct[key] for key in sorted(distinct)]


def digest(*sets: Iterable[Record]) -> str:
    """Hex SHA-256 over sets in this order, each by tag and text; the order of records inside a set does not matter."""
    return sha256_json([sorted([record.tag, record.prompt, record.answer] for record in records) for records in sets])


def _pool(job: SplitJob, pool: str, included: bool) -> tuple[Record, ...]:
    return _sorted(canary.record for canary in job.canaries if canary.pool == pool and canary.included == included)


def _sorted(records: Iterable[Record]) -> tuple[Record, ...]:
    return tuple(sorted(records, key=lambda record: (record.tag, record.prompt, record.answer)))


def _refuse_contradictions(job: SplitJob, present: Collection[str]) -> None:
    leaked = sum(record.tag in present for record in job.holdout)
    smuggled = sum(canary.record.tag in present for canary in job.canaries if not canary.included)
    absent = sum(canary.record.tag not in present for canary in job.canaries if canary.included)
    complaints = [
        f"split: {count} {what}; {remedy}"
        for count, what, remedy in (
            (leaked, "hold-out records are in the training data", "choose people who were never trained on (data.holdout in params.yaml)"),
            (
                smuggled,
                "excluded canaries are in the training data",
                "the coin flips do not describe this dataset; restore data.canaries of its revision",
            ),
            (
                absent,
                "included canaries are missing from the training data",
                "the coin flips do not describe this dataset; restore data.canaries of its revision",
            ),
        )
        if count
    ]
    if complaints:
        raise DataError("\n".join(complaints))
