"""What the `request` commands do, as functions from arguments to JSON-ready documents; the module of its name in cli/ parses and prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from ..deadlines import STATUTORY, due
from ..documents import encode, moment
from ..errors import ConfigError, LedgerError, LineageError
from ..lineage import DatasetRevision
from ..records import Basis, Effect, ErasureRequest, Recipient, State
from ..stages.tracing import indexed_states
from ..stages.workbench import Workbench

MOST_COMPLAINTS = 20
"""Lines with unknown ids that are named one by one."""
_YEARS = (1970, 2200)
"""In which a moment can lie."""


@dataclass(frozen=True, kw_only=True)
class Requested:
    """Whom or what a request names, one a line of a file or of stdin; blank lines kept so that line numbers stay right."""

    subjects: tuple[str, ...] = ()
    records: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    """Every record of these files of the dataset, named relative to it."""
    removed_between: tuple[str, str] | None = None
    """Every record that the first of two git revisions holds and the second does not."""


@dataclass(frozen=True, kw_only=True)
class Terms:
    """On what a request rests and until when."""

    basis: str
    effect: str | None = None
    """None: suppression for copyright and safety, removal otherwise."""
    received: str | None = None
    """None: now."""
    due: str | None = None
    """Only where the law sets no deadline."""


def add_request(requested: Requested, terms: Terms) -> dict[str, Any]:
    """Enter a request.

    Raises:
        LedgerError: nothing named, an unknown id (by line), or tags that an open request already holds.
        ConfigError: a moment without zone, or --due where the law sets the deadline.
    """
    bench = Workbench()
    basis = Basis(terms.basis)
    effect = Effect(terms.effect) if terms.effect else default_effect(basis)
    received_at = parsed_moment(terms.received, "--received") if terms.received else datetime.now(UTC).replace(microsecond=0)
    due_at = _agreed(basis, terms.due, received_at)
    subjects, records = _tags(bench, requested)
    request = ErasureRequest(
        request_id=bench.ledger.new_request_id(received_at, (*subjects, *records, effect.value)),
        basis=basis,
        effect=effect,
        received_at=received_at,
        due_at=due_at,
        subjects=tuple(sorted(subjects)),
        records=tuple(sorted(records)),
    )
    bench.ledger.add(request, datetime.now(UTC))
    return summary(request)


def default_effect(basis: Basis) -> Effect:
    """Copyright and safety ask for suppression of outputs, everybody else for removal."""
    return Effect.SUPPRESSION if basis in (Basis.COPYRIGHT, Basis.SAFETY) else Effect.REMOVAL


def list_requests(state: str | None) -> dict[str, Any]:
    """Requests, oldest first."""
    ledger = Workbench().ledger
    return {"requests": [summary(request) for request in ledger.requests(State(state) if state else None)]}


def show_request(request_id: str) -> dict[str, Any]:
    """One request."""
    return summary(Workbench().ledger.get(request_id), datetime.now(UTC))


def extend_request(request_id: str, reason: str, until: str | None) -> dict[str, Any]:
    """Extend a deadline, by all that the law allows or to an earlier moment."""
    ledger = Workbench().ledger
    ledger.extend(request_id, reason, datetime.now(UTC), parsed_moment(until, "--until") if until else None)
    return summary(ledger.get(request_id), datetime.now(UTC))


def pause_request(request_id: str, reason: str) -> dict[str, Any]:
    """Stop the clock."""
    ledger = Workbench().ledger
    ledger.pause(request_id, reason, datetime.now(UTC))
    return summary(ledger.get(request_id), datetime.now(UTC))


def resume_request(request_id: str) -> dict[str, Any]:
    """Let the clock run again."""
    ledger = Workbench().ledger
    ledger.resume(request_id, datetime.now(UTC))
    return summary(ledger.get(request_id), datetime.now(UTC))


def refuse_request(request_id: str, ground: str) -> dict[str, Any]:
    """Refuse a request."""
    bench = Workbench()
    bench.ledger.refuse(request_id, ground, datetime.now(UTC))
    if not bench.ledger.open():
        bench.ledger.release_parent(bench.params.model.name)
    return summary(bench.ledger.get(request_id))


def interim_measure(request_id: str, measure: str, *, ended: bool) -> dict[str, Any]:
    """Begin or end a measure that protects the person until the request is decided."""
    ledger = Workbench().ledger
    ledger.interim(request_id, measure, datetime.now(UTC), ended=ended)
    return summary(ledger.get(request_id), datetime.now(UTC))


def note_recipient(request_id: str, name: str, told: str | None, acknowledged: str | None) -> dict[str, Any]:
    """Note who has to be told of the erasure, was told, or has acknowledged."""
    ledger = Workbench().ledger
    recipient = Recipient(
        name=name,
        told_at=parsed_moment(told, "--told") if told else None,
        acknowledged_at=parsed_moment(acknowledged, "--acknowledged") if acknowledged else None,
    )
    ledger.recipient(request_id, recipient, datetime.now(UTC))
    return summary(ledger.get(request_id), datetime.now(UTC))


def open_ends(request_id: str) -> list[str]:
    """What is left to do about a request beside the models: recipients to tell, and measures still in force."""
    request = Workbench().ledger.get(request_id)
    silent = [f"{each.name} has not been told of the erasure (GDPR art. 19)" for each in request.recipients if each.told_at is None]
    waiting = [f"{each.name} was told and has not acknowledged" for each in request.recipients if each.told_at and each.acknowledged_at is None]
    running = [f"{measure} is still in force; end it with `mlflow-unlearn request interim {request_id} --end`" for measure in request.interim]
    return [*silent, *waiting, *running]


def summary(request: ErasureRequest, now: datetime | None = None) -> dict[str, Any]:
    """A request with counts in place of its tags.

    With `now` also `days_left` (whole days; negative when overdue; of a paused request those left when its clock stopped) and `overdue`.
    """
    document: dict[str, Any] = encode(replace(request, subjects=(), records=()))
    document |= {"subjects": len(request.subjects), "records": len(request.records)}
    document["untold"] = [each.name for each in request.recipients if each.told_at is None]
    document["unacknowledged"] = [each.name for each in request.recipients if each.acknowledged_at is None]
    if now is not None:
        left = request.due_at - (request.paused_at or now) if request.due_at else None
        document |= {"days_left": None if left is None else left.days, "overdue": left is not None and left.total_seconds() < 0}
    return document


def parsed_moment(text: str, option: str) -> datetime:
    """A moment as typed.

    Raises:
        ConfigError: not RFC 3339, without a zone, or in a year that must be a slip.
    """
    try:
        value = datetime.fromisoformat(text)
        moment(value)
    except (ValueError, OverflowError, ConfigError):
        raise ConfigError(f"{option}: expected a moment with its zone such as 2026-11-24T18:00:00Z") from None
    if not _YEARS[0] <= value.year <= _YEARS[1]:
        raise ConfigError(f"{option}: expected a year from {_YEARS[0]} to {_YEARS[1]}, found {value.year}")
    return value.astimezone(UTC).replace(microsecond=0)


def _agreed(basis: Basis, text: str | None, received_at: datetime) -> datetime | None:
    """The statutory deadline, or the one given where there is none."""
    if text is None:
        return due(basis, received_at)
    if basis in STATUTORY:
        raise ConfigError(f"--due: the law sets the deadline of {basis}; leave it out, and see `mlflow-unlearn request extend`")
    at = parsed_moment(text, "--due")
    if at <= received_at:
        raise ConfigError(f"--due: expected a moment after the request was received, {moment(received_at)}")
    return at


def _tags(bench: Workbench, requested: Requested) -> tuple[set[str], set[str]]:
    """Keyed tags of the people and of the single records that are named."""
    subjects = _tagged(bench, "subject", requested.subjects)
    records = _tagged(bench, "record", requested.records)
    files = [path for path in requested.files if path]
    if not (subjects or records or files or requested.removed_between):
        raise LedgerError("request add: no id given; pass a file or - with --subjects, --records or --files, one a line, or --removed-between")
    states = indexed_states(bench).states
    _refuse_unknown(bench, subjects, records)
    found = {*records, *(bench.index.records_of_files(states, files) if files else ())}
    if requested.removed_between:
        found |= _removed(bench, states, requested.removed_between)
    if not subjects and not found:
        raise LedgerError("request add: what was named holds no record; name other files or revisions")
    return set(subjects), found


def _tagged(bench: Workbench, kind: str, ids: Sequence[str]) -> dict[str, int]:
    """Keyed tag of each id -> its line."""
    from ..adapters.ledger_keys import id_tags  # polars

    numbered = [(line, number) for number, line in enumerate(ids, 1) if line]
    lines = [line for line, _ in numbered]
    tags = id_tags(bench.key, "subject", lines) if kind == "subject" else id_tags(bench.key, "record", lines, bench.params.data.name)
    return {tag: number for tag, (_, number) in zip(tags, numbered, strict=True)}


def _removed(bench: Workbench, states: Sequence[DatasetRevision], revisions: tuple[str, str]) -> set[str]:
    known = {state.md5: state for state in states}
    old, new = (known.get(_output(bench, revision)) for revision in revisions)
    missing = [revision for revision, state in zip(revisions, (old, new), strict=True) if state is None]
    if old is None or new is None:
        raise LineageError(f"--removed-between: the dataset of {', '.join(missing)} cannot be read; fetch its data and see `mlflow-unlearn index`")
    removed = set(bench.index.removed_between(old, new))
    if not removed:
        raise LedgerError(f"--removed-between: every record of {revisions[0]} is still in {revisions[1]}; name the older revision first")
    return removed


def _output(bench: Workbench, revision: str) -> str:
    """DVC md5 of the dataset in a git revision."""
    path = bench.from_root(bench.params.data.path)
    output = bench.project.output_at(path, revision)
    if output is None:
        raise LineageError(f"--removed-between: DVC does not track {path} in {revision}; name a revision that holds the dataset")
    return output.md5


def _refuse_unknown(bench: Workbench, subjects: Mapping[str, int], records: Mapping[str, int]) -> None:
    missing_subjects, missing_records = bench.index.unknown(subjects=tuple(subjects), records=tuple(records))
    complaints = [
        f"request add: line {lines[position]} of --{kind}: in no readable revision of dataset {bench.params.data.name}; check the id"
        for kind, lines, positions in (("subjects", list(subjects.values()), missing_subjects), ("records", list(records.values()), missing_records))
        for position in positions
    ]
    if len(complaints) > MOST_COMPLAINTS:
        complaints = [*complaints[:MOST_COMPLAINTS], f"request add: {len(complaints) - MOST_COMPLAINTS} more ids are in no readable revision"]
    if complaints:
        raise LedgerError("\n".join(complaints))
