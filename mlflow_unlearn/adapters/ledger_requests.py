"""Entries of the ledger about one request: its clock, its end, interim measures and the recipients who have to be told."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterable
from dataclasses import replace
from datetime import datetime

from ..deadlines import STATUTORY, due
from ..digests import sha256_json
from ..documents import encode, moment
from ..errors import LedgerError
from ..reasons import EXTENSIONS, GROUNDS, MEASURES, PAUSES, refuse_other
from ..records import Basis, ErasureRequest, Recipient, State
from .ledger_book import LedgerBook, Page
from .ledger_state import Entry, Lift, Sets

_CODE = re.compile(r"[a-z0-9_.-]{1,40}")


class RequestEntries(LedgerBook):
    """Requests from receipt to refusal or closing."""

    def new_request_id(self, received_at: datetime, tags: Collection[str]) -> str:
        """`er-20261124-1a2b3c4d`: the day and a digest of the keyed tags, so that the same open request gets the same id.

        What was refused or closed that day may be asked again: it gets the next free id.
        """
        entries = self._read(lambda page: dict(page.state.entries))
        ended = {name for name, entry in entries.items() if entry.request.state is not State.OPEN}
        ordered = sorted(tags)
        numbered = (sha256_json([*ordered, *([str(number)] if number else [])])[:8] for number in itertools.count())
        return next(name for code in numbered if (name := f"er-{received_at:%Y%m%d}-{code}") not in ended)

    def add(self, request: ErasureRequest, at: datetime) -> None:
        """Enter an open request.

        Raises:
            LedgerError: its id exists, or an open request already holds one of its tags.
        """
        document = {key: encode(getattr(request, key)) for key in ("basis", "effect", "received_at", "due_at")}
        sets = {"subject": sorted(set(request.subjects)), "record": sorted(set(request.records))}

        def enter(page: Page) -> None:
            held = _holder(page, request)
            if held:
                raise LedgerError(f"request add: open request {held} already asks for some of this; see `mlflow-unlearn request show {held}`")
            if request.request_id in page.state.entries:
                raise LedgerError(f"request add: {request.request_id} is in the ledger already; see `mlflow-unlearn request show`")
            page.append("added", request.request_id, {"request": document}, at, sets)

        self._write(enter)

    def get(self, request_id: str) -> ErasureRequest:
        """One request.

        Raises:
            LedgerError: there is none of this id.
        """
        return self._read(lambda page: with_tags(page, entry_of(page, request_id)))

    def requests(self, state: State | None = None) -> tuple[ErasureRequest, ...]:
        """All requests, or those in one state, oldest first."""

        def read(page: Page) -> tuple[ErasureRequest, ...]:
            wanted = [entry for entry in page.state.entries.values() if state in (None, entry.request.state)]
            load(page, wanted)
            found = [with_tags(page, entry) for entry in wanted]
            return tuple(sorted(found, key=lambda request: (request.received_at, request.request_id)))

        return self._read(read)

    def open(self) -> tuple[ErasureRequest, ...]:
        """The open requests."""
        return self.requests(State.OPEN)

    def extend(self, request_id: str, reason: str, at: datetime, until: datetime | None = None) -> None:
        """Extend the deadline of an open request once: GDPR to three months, CCPA to 90 days from receipt, or to an earlier moment `until`.

        A request without statutory deadline needs `until`, and can be extended again.

        Raises:
            LedgerError: another reason, extended before, past the first deadline, or beyond what the law allows.
        """
        refuse_other(reason, EXTENSIONS, "request extend")

        def extend(page: Page) -> None:
            entry = open_entry(page, request_id, "extended")
            complaint = _not_extensible(entry, at, until)
            if complaint:
                raise LedgerError(f"{request_id}: {complaint}")
            page.append("extended", request_id, {"reason": reason, "until": encode(until)}, at)

        self._write(extend)

    def pause(self, request_id: str, reason: str, at: datetime) -> None:
        """Stop the clock of an open request.

        Raises:
            LedgerError: another reason, paused already, past its deadline, or under CCPA, whose clock does not stop.
        """
        refuse_other(reason, PAUSES, "request pause")

        def pause(page: Page) -> None:
            entry = open_entry(page, request_id, "paused")
            if entry.request.basis is Basis.CCPA:
                raise LedgerError(f"{request_id}: verifying who asks does not stop the 45 days of CCPA (11 CCR 7021(b)); go on, extend or refuse it")
            if entry.request.paused_at:
                raise LedgerError(
                    f"{request_id}: paused since {moment(entry.request.paused_at)}; `mlflow-unlearn request resume {request_id}` ends it"
                )
            if entry.request.due_at and at > entry.request.due_at:
                raise LedgerError(f"{request_id}: it was due on {moment(entry.request.due_at)}, and a clock that has run out cannot be stopped")
            page.append("paused", request_id, {"reason": reason}, at)

        self._write(pause)

    def resume(self, request_id: str, at: datetime) -> None:
        """Let the clock run again; the deadline moves by the pause.

        Raises:
            LedgerError: not paused, or `at` lies before the pause.
        """

        def resume(page: Page) -> None:
            since = open_entry(page, request_id, "resumed").request.paused_at
            if since is None or at < since:
                raise LedgerError(f"{request_id}: {f'paused only since {moment(since)}' if since else 'not paused'}, so there is nothing to resume")
            page.append("resumed", request_id, {}, at)

        self._write(resume)

    def refuse(self, request_id: str, ground: str, at: datetime) -> None:
        """Refuse an open request on one of `reasons.GROUNDS` of its basis."""

        def refuse(page: Page) -> None:
            entry = open_entry(page, request_id, "refused")
            refuse_other(ground, GROUNDS[entry.request.basis], "request refuse")
            page.append("refused", request_id, {"ground": ground}, at)

        self._write(refuse)

    def close(self, request_id: str, canaries: Collection[str], at: datetime) -> None:
        """Close an open request; `canaries` are record tags that left the dataset with it."""

        def close(page: Page) -> None:
            entry = open_entry(page, request_id, "closed")
            request = with_tags(page, entry)
            page.append("closed", request_id, {}, at, {"canary": sorted({*canaries}.difference(request.subjects, request.records))})

        self._write(close)

    def interim(self, request_id: str, measure: str, at: datetime, *, ended: bool = False) -> None:
        """Begin or end a measure that protects the person until the request is decided, e.g. a restriction of processing (GDPR art. 18).

        Raises:
            LedgerError: another measure, one that is in force already, or the end of one that is not.
        """
        refuse_other(measure, MEASURES, "request interim")

        def note(page: Page) -> None:
            entry = entry_of(page, request_id) if ended else open_entry(page, request_id, f"given {measure}")
            if (measure in entry.request.interim) is not ended:
                raise LedgerError(
                    f"{request_id}: {measure} is {'not ' if ended else 'already '}in force; see `mlflow-unlearn request show {request_id}`"
                )
            page.append("interim", request_id, {"measure": measure, "ended": ended}, at)

        self._write(note)

    def recipient(self, request_id: str, recipient: Recipient, at: datetime) -> None:
        """Note who has to be told of the erasure, was told, or has acknowledged (GDPR art. 19); what was noted before stays.

        Raises:
            LedgerError: the name is no code, the request was refused, or an acknowledgement comes before the telling.
        """
        if not _CODE.fullmatch(recipient.name):
            raise LedgerError(
                "request recipient: expected a code of at most 40 characters a-z, 0-9, _ . -; the ledger takes no free text and no person"
            )

        def note(page: Page) -> None:
            request = entry_of(page, request_id).request
            before = next((each for each in request.recipients if each.name == recipient.name), Recipient(name=recipient.name))
            after = replace(
                recipient, told_at=recipient.told_at or before.told_at, acknowledged_at=recipient.acknowledged_at or before.acknowledged_at
            )
            if request.state is State.REFUSED:
                raise LedgerError(f"{request_id}: it is refused, so nobody has to be told")
            if after.acknowledged_at and (after.told_at is None or after.acknowledged_at < after.told_at):
                raise LedgerError(f"{request_id}: {after.name} cannot acknowledge before it was told; pass --told too")
            if after != before or before not in request.recipients:
                page.append("recipient", request_id, {"recipient": encode(after)}, at)

        self._write(note)


def entry_of(page: Page, request_id: str) -> Entry:
    """The entry of a request.

    Raises:
        LedgerError: there is none of this id.
    """
    entry = page.state.entries.get(request_id)
    if entry is None:
        raise LedgerError(f"{request_id}: no such request; `mlflow-unlearn request list` shows them all")
    return entry


def open_entry(page: Page, request_id: str, act: str) -> Entry:
    """The entry of an open request: of two that race to end it, the second finds it no longer open.

    Raises:
        LedgerError: none of this id, or not open.
    """
    entry = entry_of(page, request_id)
    if entry.request.state is not State.OPEN:
        state = entry.request.state
        raise LedgerError(f"{request_id}: it is {state}, and only an open request can be {act}; see `mlflow-unlearn request list`")
    return entry


def with_tags(page: Page, entry: Entry) -> ErasureRequest:
    """The request with those of its tags that are in force."""
    held = {kind: tags_of(page, entry, (kind,)) for kind in ("subject", "record")}
    subjects, records = (tuple(sorted(tags)) for tags in in_force(page, entry, held["subject"], held["record"]))
    lifted = len(held["subject"]) + len(held["record"]) - len(subjects) - len(records)
    return replace(entry.request, subjects=subjects, records=records, lifted=lifted)


def load(page: Page, entries: Iterable[Entry]) -> None:
    """Read the tags of these requests, and of all lifts, at once."""
    page.load((*(number for entry in entries for number, _ in entry.tags), *page.state.lifts))


def tags_of(page: Page, entry: Entry, kinds: Iterable[str]) -> set[str]:
    """Tags that belong to a request, lifted ones included."""
    return {tag for number, sets in entry.tags for kind in kinds for tag in page.lines(number, sets, kind)}


def in_force(page: Page, entry: Entry, subjects: set[str], records: set[str]) -> tuple[set[str], set[str]]:
    """Without the people and records that lawfully came back after the request was closed."""
    if entry.closed_by is None:
        return subjects, records
    later = {number: lift for number, lift in page.state.lifts.items() if number > (entry.closed_by or 0)}
    if any(lift.request_id == entry.request.request_id for lift in later.values()):
        return set(), set()
    return subjects - lifted_subjects(page, later), records


def lifted_subjects(page: Page, lifts: dict[int, Lift]) -> set[str]:
    """Subject tags that these lifts name."""
    return {tag for number, lift in lifts.items() for tag in page.lines(number, lift.sets, "subject")}


def _holder(page: Page, request: ErasureRequest) -> str | None:
    """An open request for the same effect that holds one of the tags: removal may follow suppression, but nothing is asked twice."""
    asked = {"subject": set(request.subjects), "record": set(request.records)}
    opened = {name: entry for name, entry in sorted(page.state.entries.items()) if entry.request.state is State.OPEN}
    same = {name: entry for name, entry in opened.items() if entry.request.effect is request.effect}
    load(page, same.values())
    return next((name for name, entry in same.items() if _shares(page, entry.tags, asked)), None)


def _shares(page: Page, tags: tuple[tuple[int, Sets], ...], asked: dict[str, set[str]]) -> bool:
    return any(not asked[kind].isdisjoint(page.lines(number, sets, kind)) for number, sets in tags for kind in asked if asked[kind])


def _not_extensible(entry: Entry, at: datetime, until: datetime | None) -> str | None:
    """Why a deadline cannot be extended to `until`."""
    request = entry.request
    running = at - request.paused_at if request.paused_at and at > request.paused_at else None
    current = entry.due_at(running) if running else request.due_at
    if request.basis not in STATUTORY:
        return (
            None if until and (current is None or until > current) else "no statutory deadline, so pass --until with a moment after the present one"
        )
    if request.extension:
        return "it was extended before, and the law knows one extension"
    if current is not None and at > current:
        return f"it was due on {moment(current)}, and the person has to be told of an extension before that"
    most = due(request.basis, request.received_at, extended=True, paused=entry.paused)
    if until and current and most and not current < until <= most:
        return f"expected --until after {moment(current)} and not after {moment(most)}"
    return None
