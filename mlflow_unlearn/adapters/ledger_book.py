"""The chain of events as a book that is read and written in transactions; ledger.py and its neighbours say what is written in it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from ..errors import LedgerError
from . import ledger_store as store
from .ledger_state import LedgerState, Sets
from .ledger_witness import Head, Witness

T = TypeVar("T")
_EVENTS_A_QUERY = 500


class NoAnswerError(LedgerError):
    """The database cannot be opened, read or written."""


@dataclass(frozen=True, kw_only=True)
class Page:
    """The ledger inside one transaction."""

    connection: Connection
    state: LedgerState
    began: Head
    """The last event before this transaction."""
    _known: dict[tuple[int, str], list[str]] = field(default_factory=dict)
    _blocks: dict[int, dict[str, store.Placed]] = field(default_factory=dict)
    """Lines that were checked, and blocks that were read, in this transaction."""

    def append(self, kind: str, about: str, body: Mapping[str, Any], at: datetime, sets: Mapping[str, Sequence[str]] | None = None) -> int:
        """Write an event; its number."""
        described = store.described(sets or {})
        event = store.next_event((self.state.number, self.state.digest), at, kind, about, {**body, "sets": described})
        store.append(self.connection, event, sets or {})
        self.state.add(event)
        return event.number

    def load(self, numbers: Iterable[int]) -> None:
        """Read what lies beside these events in a few queries instead of one each."""
        missing = sorted(set(numbers) - self._blocks.keys())
        for start in range(0, len(missing), _EVENTS_A_QUERY):
            few = missing[start : start + _EVENTS_A_QUERY]
            self._blocks.update({number: {} for number in few})
            for (number, kind), placed in store.blocks_of(self.connection, few).items():
                self._blocks[number][kind] = placed

    def lines(self, number: int, sets: Sets, kind: str) -> list[str]:
        """The lines of one kind beside an event, checked."""
        if kind not in sets:
            return []
        if (number, kind) not in self._known:
            self.load([number])
            placed = self._blocks[number].pop(kind, [])
            self._known[number, kind] = store.checked_lines(number, kind, sets[kind], placed)
        return self._known[number, kind]


class LedgerBook:
    """One database, opened on first use; every transaction first reads what others have added and checks it against the chain.

    Args:
        uri: SQLAlchemy URI, sqlite or Postgres.
        key_id: check value of the tag key in use (`digests.key_id`); a ledger written with another key is refused. None does not ask.
        witness: file that remembers the head, so that a ledger that was rolled back is refused.
        kept: whether a connection stays open between two transactions, as in a server.
    """

    def __init__(self, uri: str, key_id: str | None = None, witness: Path | None = None, *, kept: bool = False) -> None:
        self.uri, self._kept = uri, kept
        self.key_id = key_id
        self._witness = Witness(path=witness, place=_place_beside(witness, self.place)) if witness else None
        self._state = LedgerState()

    @property
    def place(self) -> str:
        """The URI without user and password."""
        scheme, _, rest = self.uri.rpartition("://")
        return f"{scheme}://{rest.rpartition('@')[2]}" if scheme else rest

    def verify(self) -> tuple[str, ...]:
        """Everything about the ledger that is not as it was written: chain, lines, triggers, witness and key; empty when all is well.

        Raises:
            NoAnswerError: the database does not answer.
        """
        self._state = LedgerState()  # read everything again
        try:
            return self._transact(_problems, writes=False)
        except NoAnswerError:
            raise
        except LedgerError as error:
            return (str(error),)

    def head(self) -> Head:
        """Number and digest of the last event."""
        return self._read(lambda page: Head(number=page.state.number, digest=page.state.digest))

    def decisive(self) -> Head:
        """The last event from which an answer of the gate may follow; while it stays the last one, such an answer stands."""
        return self._read(lambda page: Head(number=page.state.decisive[0], digest=page.state.decisive[1]))

    def written_with(self) -> str | None:
        """Check value of the tag key that the ledger is written with; None before the first change with a key."""
        return self._read(lambda page: page.state.key_id)

    def _read(self, work: Callable[[Page], T]) -> T:
        """Look things up in one transaction."""
        return self._transact(work, writes=False)

    def _write(self, work: Callable[[Page], T]) -> T:
        """Look things up and add events in one transaction, again from the start when another writer was faster."""

        def write(page: Page) -> T:
            if page.state.key_id is None and self.key_id:
                page.append("key", "", {"key_id": self.key_id}, datetime.now(UTC))
            return work(page)

        return self._transact(write, writes=True)

    def _transact(self, work: Callable[[Page], T], *, writes: bool) -> T:
        since = time.monotonic()
        while True:
            seen = self._witness.head() if self._witness else None  # before the transaction: what it has seen by now must be in there
            written = False
            try:
                with store.transaction(self._engine, writes=writes) as connection:
                    done = work(self._page(connection, seen))
                written = True
            except DBAPIError as error:
                if not store.lost_race(error, since):
                    raise self._no_answer(error) from error
            except (SQLAlchemyError, OSError, ImportError) as error:
                raise self._no_answer(error) from error
            finally:
                if not written:
                    self._state = LedgerState()  # it may hold events that were not written after all
            if written:
                if self._witness and self._state.number:
                    self._witness.advance(Head(number=self._state.number, digest=self._state.digest))
                return done

    def _no_answer(self, error: Exception) -> NoAnswerError:
        words = "check MLFLOW_UNLEARN_LEDGER_URI and that the database answers"
        return NoAnswerError(f"ledger {self.place.rpartition('://')[2]}: {type(error).__name__}; {words}")

    @cached_property
    def _engine(self) -> Engine:
        return store.connect(self.uri, kept=self._kept)

    def _page(self, connection: Connection, seen: Head | None) -> Page:
        state, events = self._state, store.events_from(connection, max(self._state.number, 1))
        if state.number and ((last := next(events, None)) is None or (last.number, last.digest) != (state.number, state.digest)):
            raise store.tampered(f"event {state.number} is gone or not the one that was read before")
        for event in events:
            state.add(event)
        if seen:
            _refuse_rolled_back(connection, state, seen)
        if self.key_id and state.key_id not in (None, self.key_id):
            raise LedgerError(
                f"ledger: wrong or lost tag key: the ledger is written with key {state.key_id}, the key in use is {self.key_id}; "
                "restore the key file, see MLFLOW_UNLEARN_TAG_KEY_FILE"
            )
        return Page(connection=connection, state=state, began=Head(number=state.number, digest=state.digest))


def _refuse_rolled_back(connection: Connection, state: LedgerState, seen: Head) -> None:
    if state.number < seen.number:
        raise store.tampered(f"it ends at event {state.number}, and this project has seen event {seen.number}")
    known = state.digest if seen.number == state.number else store.digest_at(connection, seen.number)
    if known != seen.digest:
        raise store.tampered(f"event {seen.number} is not the one that this project has seen")


def _problems(page: Page) -> tuple[str, ...]:
    return (*_lines_problems(page), *_guard_problems(page.connection))


def _place_beside(witness: Path, place: str) -> str:
    """A file beside the witness keeps its head when the folder moves."""
    scheme, _, path = place.partition(":///")
    beside = Path(path).resolve().is_relative_to(witness.parent.resolve()) if path else False
    return f"{scheme}:{Path(path).resolve().relative_to(witness.parent.resolve())}" if beside else place


def _lines_problems(page: Page) -> Iterator[str]:
    wanted = {(number, kind) for number, sets in page.state.sets.items() for kind in sets}
    for number, kind in sorted(wanted):
        try:
            placed = store.blocks_of(page.connection, [number]).get((number, kind), [])
            store.checked_lines(number, kind, page.state.sets[number][kind], placed)
        except LedgerError as error:
            yield str(error)
    for number, kind in sorted(store.blocks_beside(page.connection) - wanted, key=str):
        yield str(store.tampered(f"event {number} is gone or says nothing of the {kind} lines beside it"))


def _guard_problems(connection: Connection) -> Iterator[str]:
    missing = sorted({"unlearn_events", "unlearn_blocks"} - store.guarded_tables(connection))
    for name in missing:
        yield f"ledger: table {name} has lost the triggers that keep it append-only; open the ledger once with a user who may create triggers"
