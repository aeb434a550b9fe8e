"""What the ledger's events add up to: requests with their clocks, pins, attempts, pools, tombstones, projects, plans, promotions and trust.

Nothing here is stored: it is derived from the chain each time, so that there is no second copy that could say something else.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from ..deadlines import due
from ..documents import decode
from ..errors import ConfigError, LedgerError
from ..records import ErasureRequest, Project, Promotion, Recipient, State
from .ledger_store import NO_EVENT, Event, tampered

Sets = Mapping[str, Mapping[str, Any]]
"""Kind of lines -> their count and digest."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A request as of the last event; its tags are beside the events `tags`."""

    request: ErasureRequest
    """Without tags."""
    agreed: datetime | None
    """A deadline that was set by hand; None where the statutory one applies."""
    paused: timedelta = timedelta()
    tags: tuple[tuple[int, Sets], ...] = ()
    """(event number, its lines) of everything that belongs to this request."""
    closed_by: int | None = None
    """Number of the event that closed it."""

    def due_at(self, pause: timedelta = timedelta()) -> datetime | None:
        """The deadline if the pause that is running lasted so long."""
        if self.agreed:
            return self.agreed + pause
        request = self.request
        return due(request.basis, request.received_at, extended=request.extension is not None, paused=self.paused + pause)


@dataclass(frozen=True, kw_only=True)
class Grave:
    """Tombstones buried by one event."""

    request_id: str
    key_id: str
    sets: Sets


@dataclass(frozen=True, kw_only=True)
class Lift:
    """People or a request that came back, as of one event."""

    request_id: str | None
    sets: Sets


@dataclass
class LedgerState:
    """Everything up to event `number`."""

    number: int = 0
    digest: str = NO_EVENT
    at: datetime | None = None
    """Moment of that event."""
    decisive: tuple[int, str] = (0, NO_EVENT)
    """The last event from which an answer of the gate may follow: all but promotions, which only tell of answers."""
    key_id: str | None = None
    """Check value of the tag key that the tags are written with."""
    entries: dict[str, Entry] = field(default_factory=dict)
    parents: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    attempts: dict[str, dict[str, int]] = field(default_factory=dict)
    """Pool -> digest of the weights that were looked at -> number of the attempt."""
    policies: dict[str, str] = field(default_factory=dict)
    """Pool -> digest of the policy at its first attempt, in the order of first attempts."""
    pools: dict[str, str] = field(default_factory=dict)
    graves: dict[int, Grave] = field(default_factory=dict)
    lifts: dict[int, Lift] = field(default_factory=dict)
    projects: dict[str, Project] = field(default_factory=dict)
    plans: dict[str, dict[str, tuple[datetime, tuple[dict[str, Any], ...]]]] = field(default_factory=dict)
    """Request -> project -> (when, its jobs)."""
    promotions: list[Promotion] = field(default_factory=list)
    trusted: tuple[int, str] | None = None
    """Number and payload digest of the latest change of the trust file."""
    sets: dict[int, Sets] = field(default_factory=dict)
    """Event number -> the lines that have to be beside it."""

    def add(self, event: Event) -> None:
        """Check the next event against the chain and take it in.

        Raises:
            LedgerError: it does not follow the last one, or is not what was written.
        """
        if event.number != self.number + 1:
            raise tampered(f"event {self.number + 1} is missing, {event.number} comes next")
        if event.previous != self.digest or event.digest != event.expected():
            raise tampered(f"event {event.number} is not the one that was written")
        act = _ACTS.get(event.kind)
        if act is None:
            raise LedgerError(f"ledger: event {event.number} is a '{event.kind}', which this version does not know; update mlflow-unlearn")
        try:
            body = json.loads(event.body)
            act(self, event, body)
            at = _at(event).astimezone(UTC)
        except (KeyError, TypeError, ValueError, ConfigError):
            raise tampered(f"event {event.number} ('{event.kind}') does not hold what such an event holds") from None
        if body.get("sets"):
            self.sets[event.number] = body["sets"]
        self.number, self.digest, self.at = event.number, event.digest, at
        if event.kind not in PROMOTIONS:
            self.decisive = (event.number, event.digest)

    def change(self, request_id: str, *, entry: Mapping[str, Any] | None = None, **values: Any) -> None:
        """Change fields of a request, and of its entry."""
        old = self.entries[request_id]
        changed = replace(old, **(entry or {}), request=replace(old.request, **values))
        self.entries[request_id] = replace(changed, request=replace(changed.request, due_at=changed.due_at()))


PROMOTIONS = frozenset({"promoted", "not promoted"})
Act = Callable[[LedgerState, Event, dict[str, Any]], None]
_ACTS: dict[str, Act] = {}


def _on(kind: str) -> Callable[[Act], Act]:
    def register(act: Act) -> Act:
        _ACTS[kind] = act
        return act

    return register


def _at(event: Event) -> datetime:
    return datetime.fromisoformat(event.at)


@_on("key")
def _key(state: LedgerState, event: Event, body: dict[str, Any]) -> None:
    state.key_id = body["key_id"]


@_on("added")
def _added(state: LedgerState, event: Event, body: dict[str, Any]) -> None:
    request = decode(ErasureRequest, body["request"] | {"request_id": event.about}, f"event {event.number}")
    statutory = due(request.basis, request.received_at)
    agreed = request.due_at if request.due_at != statutory else None
    state.entries[event.about] = Entry(request=request, agreed=agreed, tags=((event.number, body["sets"]),))


@_on("extended")
def _extended(state: LedgerState, event: Event, body: dict[str, Any]) -> None:
    until = datetime.fromisoformat(body["until"]) if body["until"] else None
    state.change(event.about, entry={"agreed": until}, extension=body["reason"])


@_on("paused")
def _paused(state: LedgerState, event: Event, body: dict[str, Any]) -> None:
    state.change(event.about, paused_at=_at(event))


@_on("resumed")
def _resumed(state: LedgerState, event: Event, body: dict[str, Any]) -> None:
    entry = state.entries[event.about]
    pause = _at(event) - (entry.request.paused_at or _at(event))
    moved = {"agreed": entry.agreed and entry.agreed + pause, "paused": entry.paused + pause}
    state.change(event.about, entry=moved, paused_at=None)


@_on("refused")
def _refused(state: LedgerState, event: Event, body: dict[str, Any]) -> None:
    state.change(event.about, state=State.REFUSED, ground=body["ground"])


@_on("closed")
def _closed(state: LedgerState, event: Event, body: dict[str, Any]) -> None:
    tags = (*state.entries[event.about].tags, (event.number, body["sets"]))
    state.change(event.about, entry={"tags": tags, "closed_by": event.number}, state=State.CLOSED)


@_on("tags")
def _tags(state: LedgerState, event: Event, body: dict[str, Any]) -> None:
    """The tags of a request under a new key, in place of those before."""
    state.change(event.about, entry={"tags": ((event.number, body["sets"]),)})


@_on("interim")
def _interim(state: LedgerState, event: Event, body: dict[str, Any]) -> None:
    running = set(state.entries[event.about].request.interim)
    running = running - {body["measure"]} if body["ended"] else running | {body["measure"]}
    state.change(event.about, interim=tuple(sorted(running)))


@_on("recipient")
def _recipient(state: LedgerState, event: Event, body: dict[str, Any]) -> None:
    known = {each.name: each for each in state.entries[event.about].request.recipients}
    found = decode(Recipient, body["recipient"], f"event {event.number}")
    merged = known | {found.name: found}
    state.change(event.about, recipients=tuple(merged[name] for name in sorted(merged)))


@_on("buried")
def _buried(state: LedgerState, event: Event, body: dict[str, Any]) -> None:
    state.graves[event.number] = Grave(request_id=event.about, key_id=body["key_id"], sets=body["sets"])


@_on("lifted")
def _lifted(state: LedgerState, event: Event, body: dict[str, Any]) -> None:
    state.lifts[event.number] = Lift(request_id=body["request_id"], sets=body["sets"])


@_on("pinned")
def _pinned(state: LedgerState, event: Event, body: dict[str, Any]) -> None:
    state.parents[(body["model"], body["spec"])] = body["parent"]


@_on("released")
def _released(state: LedgerState, event: Event, body: dict[str, Any]) -> None:
    state.parents = {key: parent for key, parent in state.parents.items() if key[0] != body["model"]}


@_on("attempt")
def _attempt(state: LedgerState, event: Event, body: dict[str, Any]) -> None:
    state.attempts.setdefault(body["pool"], {})[body["unlearned"]] = body["number"]
    state.policies.setdefault(body["pool"], body.get("policy", ""))


@_on("pool spent")
def _pool_spent(state: LedgerState, event: Event, body: dict[str, Any]) -> None:
    state.pools[body["pool"]] = body["spent_by"]


@_on("enrolled")
def _enrolled(state: LedgerState, event: Event, body: dict[str, Any]) -> None:
    state.projects[event.about] = decode(Project, body["project"], f"event {event.number}")


@_on("planned")
def _planned(state: LedgerState, event: Event, body: dict[str, Any]) -> None:
    state.plans.setdefault(event.about, {})[body["project"]] = (_at(event), tuple(body["jobs"]))


@_on("promoted")
def _promoted(state: LedgerState, event: Event, body: dict[str, Any]) -> None:
    state.promotions.append(decode(Promotion, body["promotion"], f"event {event.number}"))


_ACTS["not promoted"] = _promoted


@_on("trusted")
def _trusted(state: LedgerState, event: Event, body: dict[str, Any]) -> None:
    state.trusted = max(state.trusted or (0, ""), (int(body["number"]), str(body["digest"])))
