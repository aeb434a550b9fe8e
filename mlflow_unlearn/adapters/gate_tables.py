"""Tables of the gate inside MLflow's server, in MLflow's own database: decisions, digests and blocks that are kept, and the log.

They stand beside MLflow's tables and touch none of them, so that `mlflow db upgrade` and a server without the gate go on as before. Every row carries
a MAC under the gate's key, which lies outside the database: who can write in the database alone can make rows vanish, and can make none that count.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sql
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import IntegrityError, InterfaceError, OperationalError, ProgrammingError, SQLAlchemyError, TimeoutError

from ..digests import canonical_json
from ..errors import StoreError

ENVELOPE = "envelope"
"""Kept rows: signed statements."""
SCHEMA = 1
"""Of these tables; a database with a higher number was written by a later version of this package."""
_ADVISORY_LOCK = 0x756E6C65
"""Any number, the same for all of us: Postgres has two servers that start at once take turns by it."""

DATABASE_ERRORS = (SQLAlchemyError,)
"""What a database raises."""
DATABASE_SILENCE = (OperationalError, InterfaceError, TimeoutError)
"""Of that, what it raises because it cannot be reached, is locked or was stopped, whatever it was asked."""
META = sql.MetaData()
GATE = sql.Table(
    "unlearn_gate",
    META,
    sql.Column("id", sql.Integer, primary_key=True, autoincrement=False),
    sql.Column("schema", sql.Integer, nullable=False),
    sql.Column("turn", sql.BigInteger, nullable=False),
)
ROWS = sql.Table(
    "unlearn_gate_rows",
    META,
    sql.Column("kind", sql.String(20), primary_key=True),
    sql.Column("id", sql.String(64), primary_key=True),
    sql.Column("name", sql.Text, nullable=False),
    sql.Column("body", sql.Text, nullable=False),
    sql.Column("mac", sql.String(64), nullable=False),
)
LOG = sql.Table(
    "unlearn_gate_log",
    META,
    sql.Column("number", sql.BigInteger, primary_key=True, autoincrement=False),
    sql.Column("at", sql.String(20), nullable=False),
    sql.Column("model", sql.String(256), nullable=False),
    sql.Column("alias", sql.String(256), nullable=False),
    sql.Column("version", sql.String(20), nullable=False),
    sql.Column("moves", sql.Integer, nullable=False),
    sql.Column("body", sql.Text, nullable=False),
    sql.Column("previous", sql.String(64), nullable=False),
    sql.Column("mac", sql.String(64), nullable=False),
    sql.Index("unlearn_gate_log_moves", "model", "alias", "moves", "number"),
    sql.Index("unlearn_gate_log_versions", "model", "alias", "version", "moves", "number"),
)


_TURN = GATE.update().where(GATE.c.id == 1).values(turn=GATE.c.turn + 1)
_ROW = sql.select(ROWS.c.body, ROWS.c.mac).where(ROWS.c.kind == sql.bindparam("of"), ROWS.c.id == sql.bindparam("key"))


def prepare(engine: Engine) -> None:
    """Make the tables where there are none yet.

    Raises:
        StoreError: they are those of a later version of this package.
    """
    if (found := _schema(engine)) is None:
        _create(engine)
        found = _schema(engine)
    if found != SCHEMA:
        raise StoreError(
            f"the gate's tables in this database have schema {found}, and this version of mlflow-unlearn knows {SCHEMA}: a later version wrote them; "
            "run `pip install -U mlflow-unlearn` in the server's environment"
        )


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A transaction that has its turn; what it reads nobody changes meanwhile."""
    with engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("PRAGMA busy_timeout = 20000")
        take_turn(connection)
        yield connection


def take_turn(connection: Connection) -> None:
    """Wait until no other writer of the gate is at work, on this server or another one; it lasts until the transaction ends.

    It has to be the first thing that a transaction does: what sqlite read before might be outdated by then.

    Raises:
        StoreError: the row is gone by which writers take turns.
    """
    if not connection.execute(_TURN).rowcount:
        raise StoreError("the gate's table unlearn_gate has lost its row, by which writers take turns; restart the server, which writes it again")


def mac(key: bytes, *parts: str | int) -> str:
    """HMAC-SHA-256 over the canonical JSON of parts, in hex."""
    return hmac.new(key, canonical_json(list(parts)), hashlib.sha256).hexdigest()


def same(expected: str, found: str) -> bool:
    """Whether a MAC is the expected one; what a database holds may be anything."""
    return hmac.compare_digest(expected.encode(), found.encode())


@dataclass(frozen=True)
class KeptRows:
    """What is kept between two questions, by kind and name; what was not written with this key is not there."""

    key: bytes

    def get(self, connection: Connection, kind: str, name: str) -> dict[str, Any] | None:
        """The body of a row; None where there is none, or none that counts."""
        row = connection.execute(_ROW, {"of": kind, "key": _id(name)}).first()
        return self._body(kind, name, row.body, row.mac) if row is not None else None

    def all(self, connection: Connection, kind: str) -> dict[str, dict[str, Any]]:
        """Every row of a kind that counts, by name."""
        rows = connection.execute(sql.select(ROWS.c.name, ROWS.c.body, ROWS.c.mac).where(ROWS.c.kind == kind)).all()
        found = {row.name: self._body(kind, row.name, row.body, row.mac) for row in rows}
        return {name: body for name, body in found.items() if body is not None}

    def put(self, connection: Connection, kind: str, name: str, body: Mapping[str, Any]) -> None:
        """Write a row in the place of any other."""
        text = canonical_json(dict(body)).decode()
        values = {"name": name, "body": text, "mac": mac(self.key, kind, name, text)}
        changed = connection.execute(ROWS.update().where(ROWS.c.kind == kind, ROWS.c.id == _id(name)).values(**values))
        if not changed.rowcount:
            with connection.begin_nested():
                connection.execute(ROWS.insert().values(kind=kind, id=_id(name), **values))

    def remove(self, connection: Connection, kind: str, name: str) -> None:
        """Take a row away."""
        connection.execute(ROWS.delete().where(ROWS.c.kind == kind, ROWS.c.id == _id(name)))

    def _body(self, kind: str, name: str, text: str, found: str) -> dict[str, Any] | None:
        if not same(mac(self.key, kind, name, text), found):
            return None
        body: dict[str, Any] = json.loads(text)
        return body


@dataclass(frozen=True)
class KeptEnvelopes:
    """Signed statements that were verified, by payload digest: who can write in a run's artifacts cannot take these away."""

    rows: KeptRows
    engine: Engine
    _kept: set[str] = field(default_factory=set)

    def get(self, digest: str) -> bytes | None:
        """One that is kept; None where there is none."""
        with self.engine.connect() as connection:
            body = self.rows.get(connection, ENVELOPE, digest)
        return str(body["envelope"]).encode() if body is not None else None

    def keep(self, digest: str, envelope: bytes) -> None:
        """Keep one, in the place of one with other signatures."""
        known = f"{digest}:{hashlib.sha256(envelope).hexdigest()}"
        if known not in self._kept:
            with writing(self.engine) as connection:
                self.rows.put(connection, ENVELOPE, digest, {"envelope": envelope.decode()})
            self._kept.add(known)


def _id(name: str) -> str:
    """A name may be longer than what a database takes as a key."""
    return hashlib.sha256(name.encode()).hexdigest()


def _schema(engine: Engine) -> int | None:
    """None where the tables are not all there yet."""
    with engine.connect() as connection:
        try:
            row = connection.execute(sql.select(GATE.c.schema).where(GATE.c.id == 1)).first()
        except (OperationalError, ProgrammingError):
            return None
    return int(row.schema) if row is not None else None


def _create(engine: Engine) -> None:
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(sql.select(sql.func.pg_advisory_xact_lock(_ADVISORY_LOCK)))
        for table in META.sorted_tables:
            connection.execute(sql.schema.CreateTable(table, if_not_exists=True))
            for index in table.indexes:
                connection.execute(sql.schema.CreateIndex(index, if_not_exists=True))
    try:
        with engine.begin() as connection:
            connection.execute(GATE.insert().values(id=1, schema=SCHEMA, turn=0))
    except IntegrityError:
        return  # another server was faster
