"""Append-only storage of the ledger: hash-chained events, the tags that belong to them, and transactions in which nothing is lost.

An event's digest covers its number, moment, kind, subject matter, body and the digest before it, so that a changed, a deleted and an inserted
event are found. Tags are kept in blocks of text beside the event whose body holds their count and digest. Triggers refuse UPDATE and DELETE;
who drops them is found by the chain, and who cuts its end by the witness (ledger_witness.py).
"""

from __future__ import annotations

import hashlib
import os
import random
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sql
from sqlalchemy.engine import Connection, Engine

from ..digests import canonical_json, sha256_json
from ..documents import moment
from ..errors import LedgerError

NO_EVENT = "0" * 64
BLOCK_CHARACTERS = 1 << 17
"""A block of tags holds about so many characters; a million tags are some 250 rows."""
TEXT_CHARACTERS = 250
_EVENTS_AT_ONCE = 1000
_CONNECT_S, _SERVING_CONNECT_S = 15, 5
"""A server that does not answer for so long does not answer; where others wait meanwhile, sooner."""
_PATIENCE_S = 60.0
"""For so long a Postgres writer tries again when another was faster."""
_RETRY = ("40001", "40P01", "23505")
"""Serialization failure, deadlock, and the number of an event taken by another (PostgreSQL, appendix A)."""

_META = sql.MetaData()
_EVENTS = sql.Table(
    "unlearn_events",
    _META,
    sql.Column("number", sql.Integer, primary_key=True, autoincrement=False),
    sql.Column("at", sql.String(20), nullable=False),
    sql.Column("kind", sql.String(20), nullable=False),
    sql.Column("about", sql.String(TEXT_CHARACTERS), nullable=False),
    sql.Column("body", sql.Text, nullable=False),
    sql.Column("previous", sql.String(64), nullable=False),
    sql.Column("digest", sql.String(64), nullable=False),
)
_BLOCKS = sql.Table(
    "unlearn_blocks",
    _META,
    sql.Column("number", sql.Integer, primary_key=True, autoincrement=False),
    sql.Column("kind", sql.String(10), primary_key=True),
    sql.Column("place", sql.Integer, primary_key=True, autoincrement=False),
    sql.Column("lines", sql.Text, nullable=False),
)
_FROM = sql.select(_EVENTS).where(_EVENTS.c.number >= sql.bindparam("first")).order_by(_EVENTS.c.number).limit(_EVENTS_AT_ONCE)
_TABLES = (_EVENTS.name, _BLOCKS.name)
_WORDS = "the ledger is append-only"


@dataclass(frozen=True, kw_only=True)
class Event:
    """One entry of the chain."""

    number: int
    """1, 2, 3, ... without gaps."""
    at: str
    kind: str
    about: str
    body: str
    """Canonical JSON."""
    previous: str
    digest: str

    def expected(self) -> str:
        """SHA-256 over the canonical JSON of everything before the digest."""
        return sha256_json([self.number, self.at, self.kind, self.about, self.body, self.previous])


def next_event(last: tuple[int, str], at: datetime, kind: str, about: str, body: Mapping[str, Any]) -> Event:
    """The event after the one of this number and digest."""
    text = canonical_json(body).decode()
    draft = Event(number=last[0] + 1, at=moment(at), kind=kind, about=about[:TEXT_CHARACTERS], body=text, previous=last[1], digest="")
    return Event(**{**vars(draft), "digest": draft.expected()})


def append(connection: Connection, event: Event, sets: Mapping[str, Sequence[str]]) -> None:
    """Write an event and its lines."""
    connection.execute(_EVENTS.insert().values(**vars(event)))
    for kind, lines in sets.items():
        for place, block in enumerate(_blocks(lines)):
            connection.execute(_BLOCKS.insert().values(number=event.number, kind=kind, place=place, lines=block))


def described(sets: Mapping[str, Sequence[str]]) -> dict[str, dict[str, Any]]:
    """What an event's body says of its lines: how many, and SHA-256 over them, one a line."""
    return {kind: {"count": len(lines), "digest": _digest(_blocks(lines))} for kind, lines in sets.items() if lines}


def events_from(connection: Connection, number: int) -> Iterator[Event]:
    """Events of this number and later, in order, a thousand at a time."""
    while True:
        rows = connection.execute(_FROM, {"first": number}).mappings().all()
        yield from (Event(**row) for row in rows)
        if len(rows) < _EVENTS_AT_ONCE:
            return
        number = rows[-1]["number"] + 1


def digest_at(connection: Connection, number: int) -> str | None:
    """The digest of one event."""
    digest: str | None = connection.scalar(sql.select(_EVENTS.c.digest).where(_EVENTS.c.number == number))
    return digest


Placed = list[tuple[int, str]]
"""Blocks with their places, in order."""


def blocks_of(connection: Connection, numbers: Sequence[int]) -> dict[tuple[int, str], Placed]:
    """(event number, kind) -> its blocks, of a few hundred events at most."""
    query = sql.select(_BLOCKS).where(_BLOCKS.c.number.in_(numbers)).order_by(_BLOCKS.c.number, _BLOCKS.c.kind, _BLOCKS.c.place)
    found: dict[tuple[int, str], Placed] = {}
    for number, kind, place, lines in connection.execute(query):
        found.setdefault((number, kind), []).append((place, str(lines)))
    return found


def checked_lines(number: int, kind: str, described: Mapping[str, Any], placed: Placed) -> list[str]:
    """The lines of one kind that belong to an event.

    Raises:
        LedgerError: they are not the ones the event describes.
    """
    blocks = [block for _, block in placed]
    lines = [line for block in blocks for line in block.split("\n")]
    in_place = [place for place, _ in placed] == list(range(len(placed)))
    if not in_place or len(lines) != described["count"] or _digest(blocks) != described["digest"]:
        raise tampered(f"event {number}: the {kind} lines beside it are not the {described['count']} it was written with")
    return lines


def blocks_beside(connection: Connection) -> set[tuple[int, str]]:
    """(event number, kind) of all lines that are there; not converted, since somebody may have changed them."""
    return {(number, kind) for number, kind in connection.execute(sql.select(_BLOCKS.c.number, _BLOCKS.c.kind).distinct())}


def tampered(what: str) -> LedgerError:
    """The complaint about a ledger that is not what was written."""
    return LedgerError(
        f"ledger: {what}; it was changed outside mlflow-unlearn: restore it from a backup, and see `mlflow-unlearn ledger verify` for all it finds"
    )


def connect(uri: str, *, kept: bool = False) -> Engine:
    """The database, with its tables.

    Args:
        uri: sqlite or Postgres.
        kept: whether a connection stays open between two transactions, as in a server.
    """
    url = sql.engine.make_url(uri)
    engine = _sqlite(url) if url.drivername.startswith("sqlite") else _server(url, kept)
    if engine.dialect.name not in ("sqlite", "postgresql"):
        raise LedgerError(f"ledger: {engine.dialect.name} has no append-only tables here; expected sqlite or postgresql in MLFLOW_UNLEARN_LEDGER_URI")
    with transaction(engine, writes=False) as connection:
        complete = guarded_tables(connection) >= set(_TABLES)  # then nobody who writes is waited for
        if complete:
            _refuse_older(connection)
    if not complete:
        with _for_tables(engine).begin() as connection:
            _create(connection)
    return engine


def _for_tables(engine: Engine) -> Engine:
    """A serializable transaction would not see the tables that another process made while this one waited for its turn."""
    return engine if engine.dialect.name == "sqlite" else engine.execution_options(isolation_level="READ COMMITTED")


@contextmanager
def transaction(engine: Engine, *, writes: bool) -> Iterator[Connection]:
    """One transaction; on sqlite writers stand in line from their first look on, and readers do not."""
    with engine.connect() as bare:
        connection = bare.execution_options(writes=writes)
        with connection.begin():
            yield connection


def lost_race(error: BaseException, since: float) -> bool:
    """Whether another writer was faster and this one should try again; waits a moment, longer the more often it failed."""
    state = getattr(getattr(error, "orig", None), "sqlstate", None)
    waited = time.monotonic() - since
    if state not in _RETRY or waited > _PATIENCE_S:
        return False
    time.sleep(random.uniform(0.001, 0.02 + waited / 10))  # noqa: S311 - a pause, not a secret
    return True


def _blocks(lines: Iterable[str]) -> Iterator[str]:
    """Lines joined by newlines, cut at lines into texts of about BLOCK_CHARACTERS."""
    block: list[str] = []
    size = 0
    for line in lines:
        block.append(line)
        size += len(line) + 1
        if size >= BLOCK_CHARACTERS:
            yield "\n".join(block)
            block, size = [], 0
    if block:
        yield "\n".join(block)


def _digest(blocks: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for block in blocks:
        digest.update(block.encode() + b"\n")
    return digest.hexdigest()


def _sqlite(url: sql.engine.URL) -> Engine:
    """A file only its owner can read, one connection a transaction."""
    if url.database:
        path = Path(url.database)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    options = {"timeout": 60, "isolation_level": None}
    engine = sql.create_engine(url, poolclass=sql.pool.NullPool, connect_args=options, hide_parameters=True)
    sql.event.listen(engine, "begin", _begin_sqlite)
    return engine


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("writes", True) else "BEGIN")


def _server(url: sql.engine.URL, kept: bool) -> Engine:
    seconds = _SERVING_CONNECT_S if kept else _CONNECT_S
    patience = {} if "connect_timeout" in url.query else {"connect_timeout": seconds, "tcp_user_timeout": 1000 * seconds}
    pool: dict[str, Any] = {"pool_size": 1, "max_overflow": 4, "pool_pre_ping": True} if kept else {"poolclass": sql.pool.NullPool}
    return sql.create_engine(url, isolation_level="SERIALIZABLE", hide_parameters=True, connect_args=patience, **pool)


def _refuse_older(connection: Connection) -> None:
    names = set(sql.inspect(connection).get_table_names())
    if {"requests", "request_tags"} <= names and not names & set(_TABLES):
        raise LedgerError(
            "ledger: written by an earlier version, without a hash chain; set it aside, close or enter its open requests anew, and start a new one"
        )


def _create(connection: Connection) -> None:
    """Tables and triggers; on a server one process at a time, since two that create the same table at once collide."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7216604411)")
    _refuse_older(connection)
    _META.create_all(connection)
    missing = [name for name in _TABLES if name not in guarded_tables(connection)]
    for name in missing:
        for statement in _guards(connection.dialect.name, name):
            connection.exec_driver_sql(statement)


def guarded_tables(connection: Connection) -> set[str]:
    """Tables whose rows triggers protect."""
    if connection.dialect.name == "sqlite":
        rows = connection.exec_driver_sql("SELECT tbl_name FROM sqlite_master WHERE type = 'trigger' AND name LIKE 'unlearn_keep_%'")
        names = [str(row[0]) for row in rows]
        return {name for name in names if names.count(name) == 2}
    found = "SELECT c.relname FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid WHERE t.tgname = 'unlearn_keep' AND t.tgenabled <> 'D'"
    return {str(row[0]) for row in connection.exec_driver_sql(found)}


def _guards(dialect: str, table: str) -> list[str]:
    """Statements that make changing and deleting rows an error."""
    if dialect == "sqlite":
        refuse = f"BEGIN SELECT RAISE(ABORT, '{_WORDS}'); END"
        return [f"CREATE TRIGGER IF NOT EXISTS unlearn_keep_{act}_{table} BEFORE {act.upper()} ON {table} {refuse}" for act in ("update", "delete")]
    function = f"CREATE OR REPLACE FUNCTION unlearn_keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION '{_WORDS}'; END $$"
    trigger = f"BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} FOR EACH STATEMENT EXECUTE FUNCTION unlearn_keep()"
    return [function, f"CREATE OR REPLACE TRIGGER unlearn_keep {trigger}"]
