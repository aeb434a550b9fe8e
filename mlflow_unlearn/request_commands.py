"""What the `request` commands do, as functions from arguments to JSON-ready documents; cli_requests.py parses and prints."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from .deadlines import due
from .digests import keyed_tag
from .documents import encode, moment
from .errors import ConfigError, LedgerError
from .records import Basis, Effect, ErasureRequest, State
from .stages.tracing import indexed_states
from .stages.workbench import Workbench


@dataclass(frozen=True, kw_only=True)
class RequestedIds:
    """Identifiers as typed into a file or stdin, one a line; blank lines kept so that line numbers stay right."""

    subjects: tuple[str, ...] = ()
    records: tuple[str, ...] = ()


def add_request(ids: RequestedIds, basis: str, effect: str | None, received: str | None) -> dict[str, Any]:
    """Enter a request.

    Raises:
        LedgerError: no id given, an unknown id (by line), or tags that an open request already holds.
    """
    bench = Workbench()
    dataset = bench.params.data.name
    subjects = {keyed_tag(bench.key, "subject", line): n for n, line in enumerate(ids.subjects, 1) if line}
    records = {keyed_tag(bench.key, "record", dataset, line): n for n, line in enumerate(ids.records, 1) if line}
    if not subjects and not records:
        raise LedgerError("request add: no id given; pass a file or - with --subjects or --records, one id a line")
    _refuse_unknown(bench, subjects, records)
    received_at = _moment(received, "--received") if received else datetime.now(UTC).replace(microsecond=0)
    request = ErasureRequest(
        request_id=bench.ledger.new_request_id(received_at, (*subjects, *records, effect or default_effect(Basis(basis)).value)),
        basis=Basis(basis),
        effect=Effect(effect) if effect else default_effect(Basis(basis)),
        received_at=received_at,
        due_at=due(Basis(basis), received_at),
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
    return summary(Workbench().ledger.get(request_id))


def extend_request(request_id: str, until: str) -> dict[str, Any]:
    """Move a deadline."""
    ledger = Workbench().ledger
    ledger.extend(request_id, _moment(until, "--until"), datetime.now(UTC))
    return summary(ledger.get(request_id))


def refuse_request(request_id: str, reason: str) -> dict[str, Any]:
    """Refuse a request."""
    bench = Workbench()
    bench.ledger.refuse(request_id, reason, datetime.now(UTC))
    if not bench.ledger.open():
        bench.ledger.release_parent(bench.params.model.name)
    return summary(bench.ledger.get(request_id)) | {"reason": reason}


def summary(request: ErasureRequest, now: datetime | None = None) -> dict[str, Any]:
    """A request with counts in place of its tags; with `now`, its days left too."""
    document: dict[str, Any] = encode(replace(request, subjects=(), records=()))
    document |= {"subjects": len(request.subjects), "records": len(request.records)}
    if now is not None:
        document["days_left"] = (request.due_at - now).days if request.due_at else None
    return document


def _moment(text: str, option: str) -> datetime:
    try:
        value = datetime.fromisoformat(text)
        moment(value)
    except (ValueError, ConfigError):
        raise ConfigError(f"{option}: expected a moment with its zone such as 2026-11-24T18:00:00Z") from None
    return value.astimezone(UTC)


def _refuse_unknown(bench: Workbench, subjects: dict[str, int], records: dict[str, int]) -> None:
    states = indexed_states(bench).states
    missing_subjects, missing_records = bench.index.unknown(states, subjects=tuple(subjects), records=tuple(records))
    complaints = [
        f"request add: line {lines[position]} of --{kind}: in none of the {len(states)} revisions of dataset {bench.params.data.name}; check the id"
        for kind, lines, positions in (("subjects", list(subjects.values()), missing_subjects), ("records", list(records.values()), missing_records))
        for position in positions
    ]
    if complaints:
        raise LedgerError("\n".join(complaints))
