"""The log of the gate inside MLflow's server: every decision, by whom it was asked for and why it fell, each entry chained to the one before.

An entry is written in the transaction that moves the alias. Its MAC covers all of it and the MAC before, so that a changed, an inserted and a removed
entry are found by whoever holds the gate's key; a cut end is found by the witness, a file outside the database that remembers the last entry.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

import sqlalchemy as sql
from sqlalchemy.engine import Connection

from ..digests import canonical_json
from ..documents import decode, encode, moment
from ..errors import ConfigError, TamperedError
from ..lineage import ModelVersion
from .gate_tables import LOG, mac, same
from .ledger_witness import Head

NO_ENTRY = "0" * 64
_AT_ONCE = 1000
_HEAD = sql.select(LOG.c.number, LOG.c.mac).order_by(LOG.c.number.desc()).limit(1)
_LAST_MOVE = (
    sql.select(LOG)
    .where(LOG.c.model == sql.bindparam("of"), LOG.c.alias == sql.bindparam("name"), LOG.c.moves == 1)
    .order_by(LOG.c.number.desc())
    .limit(1)
)
_LAST_MOVE_OF = (
    sql.select(LOG)
    .where(LOG.c.model == sql.bindparam("of"), LOG.c.alias == sql.bindparam("name"))
    .where(LOG.c.version == sql.bindparam("to"), LOG.c.moves == 1)
    .order_by(LOG.c.number.desc())
    .limit(1)
)
_NEXT_MOVE = (
    sql.select(LOG)
    .where(LOG.c.model == sql.bindparam("of"), LOG.c.alias == sql.bindparam("name"), LOG.c.moves == 1, LOG.c.number > sql.bindparam("after"))
    .order_by(LOG.c.number)
    .limit(1)
)
"""Each ends at the first row that its index has, however often an alias or another version was moved."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One decision."""

    at: datetime
    actor: str
    """As MLflow's own authentication names the user; `anonymous` where the server has none."""
    method: str
    path: str
    """Of the HTTP request; empty where the store was used without a server."""
    action: str
    """What was asked for: `set alias`, `resolve alias`, `read`, `rename model`, ..."""
    model: str
    version: str
    """Empty where an alias was taken away."""
    alias: str
    """Or stage."""
    replaced: str
    """The version that the alias pointed at before; empty where it pointed at none."""
    answer: str
    """The gate's: yes, no, undecided; or `none` where no evidence was asked for."""
    outcome: str
    """`granted`, `observed` and `warned` (granted although the answer is not yes), `rollback`, `refused`, `found` (how it was before the gate came)
    or `alarm`."""
    codes: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()
    """Digests of what the answer rests on."""
    moves: bool = False
    """Whether the alias points at `version` since."""


@dataclass(frozen=True, kw_only=True)
class Logged:
    """An entry in its place."""

    number: int
    entry: Entry
    previous: str
    mac: str


@dataclass(frozen=True)
class GateLog:
    """The log under one key."""

    key: bytes

    def append(self, connection: Connection, entry: Entry) -> Head:
        """Write an entry; the transaction must have taken its turn.

        Returns:
            Its number and MAC.
        """
        last = self.head(connection)
        number, body = last.number + 1, canonical_json(encode(entry)).decode()
        digest = mac(self.key, number, body, last.digest)
        connection.execute(LOG.insert().values(number=number, at=moment(entry.at), body=body, previous=last.digest, mac=digest, **_filed(entry)))
        return Head(number=number, digest=digest)

    def head(self, connection: Connection) -> Head:
        """The last entry; number 0 of an empty log."""
        row = connection.execute(_HEAD).first()
        return Head(number=row.number, digest=row.mac) if row is not None else Head(number=0, digest=NO_ENTRY)

    def last_move(self, connection: Connection, model: str, alias: str) -> Entry | None:
        """The entry that let an alias point where it points, or took it away; None where the gate never moved it.

        Raises:
            TamperedError: the entry was not written with this key.
        """
        found = self._one(connection, _LAST_MOVE, {"of": model, "name": alias})
        return found.entry if found is not None else None

    def last(self, connection: Connection) -> Logged | None:
        """The last entry.

        Raises:
            TamperedError: it was not written with this key.
        """
        return self._one(connection, sql.select(LOG).order_by(LOG.c.number.desc()).limit(1), {})

    def let(self, connection: Connection, model: str, stages: Sequence[str], version: str) -> Entry | None:
        """The last entry that put a version into one of MLflow's stages; several versions can be in one.

        Raises:
            TamperedError: an entry was not written with this key.
        """
        asked = ({"of": model, "name": stage, "to": version} for stage in stages)
        found = [each for each in (self._one(connection, _LAST_MOVE_OF, one) for one in asked) if each is not None]
        return max(found, key=lambda each: each.number).entry if found else None

    def pointed(self, connection: Connection, model: ModelVersion, alias: str, since: datetime) -> bool:
        """Whether an alias or stage pointed at a version at some time since a moment.

        Raises:
            TamperedError: an entry was not written with this key.
        """
        came = self._one(connection, _LAST_MOVE_OF, {"of": model.name, "name": alias, "to": model.version})
        if came is None or came.entry.at >= since:
            return came is not None
        went = self._one(connection, _NEXT_MOVE, {"of": model.name, "name": alias, "after": came.number})
        return went is None or went.entry.at >= since

    def entries(self, connection: Connection, after: int = 0) -> Iterator[Logged]:
        """Entries after this number, in order, each checked against the one before.

        Raises:
            TamperedError: an entry is missing, or not the one that was written.
        """
        last = self._at(connection, after)
        while True:
            query = sql.select(LOG).where(LOG.c.number > last.number).order_by(LOG.c.number).limit(_AT_ONCE)
            rows = connection.execute(query).mappings().all()
            for row in rows:
                if row["number"] != last.number + 1 or row["previous"] != last.digest:
                    raise TamperedError(f"gate log: entry {last.number + 1} is missing or not the one that was written")
                yield (logged := self._checked(dict(row)))
                last = Head(number=logged.number, digest=logged.mac)
            if len(rows) < _AT_ONCE:
                return

    def holds(self, connection: Connection, seen: Head) -> bool:
        """Whether an entry that was seen is still there."""
        return self._at(connection, seen.number).digest == seen.digest

    def _at(self, connection: Connection, number: int) -> Head:
        row = connection.execute(sql.select(LOG.c.mac).where(LOG.c.number == number)).first() if number else None
        return Head(number=number, digest=row.mac if row is not None else NO_ENTRY)

    def _one(self, connection: Connection, question: sql.Select[Any], about: dict[str, Any]) -> Logged | None:
        row = connection.execute(question, about).mappings().first()
        return self._checked(dict(row)) if row is not None else None

    def _checked(self, row: dict[str, Any]) -> Logged:
        """A row as it was written: the columns beside its body are for searching and have to say the same."""
        number, text = int(row["number"]), str(row["body"])
        if not same(mac(self.key, number, text, row["previous"]), str(row["mac"])):
            raise TamperedError(f"gate log: entry {number} is not the one that was written; see who can write in MLflow's database")
        try:
            entry = _entry(text)
        except (ConfigError, ValueError) as error:
            raise TamperedError(f"gate log: entry {number}: {error}") from None
        filed = _filed(entry)
        if {name: row[name] for name in filed} != filed:
            raise TamperedError(f"gate log: entry {number} is filed under something else than it says")
        return Logged(number=number, entry=entry, previous=str(row["previous"]), mac=str(row["mac"]))


def _filed(entry: Entry) -> dict[str, Any]:
    """The columns by which an entry is found; the version of moves alone, which is a number, since a refused one may be anything."""
    return {"model": entry.model, "alias": entry.alias, "version": entry.version if entry.moves else "", "moves": int(entry.moves)}


@lru_cache(maxsize=4096)
def _entry(text: str) -> Entry:
    return decode(Entry, json.loads(text), "entry")
