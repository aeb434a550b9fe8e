"""The ledger: the record of erasure requests, of pinned parents, of attempts and of spent canary pools.

SQLite by default, any SQLAlchemy database in production. It holds keyed tags, codes and moments, and refuses free text.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path

import sqlalchemy as sql
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from ..digests import sha256_json
from ..documents import decode, encode, moment
from ..errors import LedgerError
from ..lineage import Parent
from ..records import ErasureRequest, State

REFUSALS = ("gdpr_17_3", "cannot_identify", "duplicate", "withdrawn", "other")

_META = sql.MetaData()
_REQUESTS = sql.Table(
    "requests",
    _META,
    sql.Column("request_id", sql.String(40), primary_key=True),
    sql.Column("basis", sql.String(20), nullable=False),
    sql.Column("effect", sql.String(20), nullable=False),
    sql.Column("received_at", sql.String(20), nullable=False),
    sql.Column("due_at", sql.String(20)),
    sql.Column("state", sql.String(10), nullable=False),
)
_TAGS = sql.Table(
    "request_tags",
    _META,
    sql.Column("request_id", sql.String(40), sql.ForeignKey("requests.request_id"), primary_key=True),
    sql.Column("kind", sql.String(10), primary_key=True),
    sql.Column("tag", sql.String(32), primary_key=True, index=True),
)
_EVENTS = sql.Table(
    "events",
    _META,
    sql.Column("number", sql.Integer, primary_key=True, autoincrement=True),
    sql.Column("at", sql.String(20), nullable=False),
    sql.Column("kind", sql.String(20), nullable=False),
    sql.Column("about", sql.String(80), nullable=False),
    sql.Column("detail", sql.String(200), nullable=False),
)
_PARENTS = sql.Table(
    "parents",
    _META,
    sql.Column("model", sql.String(200), primary_key=True),
    sql.Column("spec", sql.String(250), primary_key=True),
    sql.Column("parent", sql.Text, nullable=False),
)
_ATTEMPTS = sql.Table(
    "attempts",
    _META,
    sql.Column("parent", sql.String(250), primary_key=True),
    sql.Column("pool", sql.String(64), primary_key=True),
    sql.Column("unlearned", sql.String(64), primary_key=True),
    sql.Column("number", sql.Integer, nullable=False),
    sql.Column("at", sql.String(20), nullable=False),
)
_POOLS = sql.Table("pools", _META, sql.Column("pool", sql.String(64), primary_key=True), sql.Column("spent_by", sql.Text, nullable=False))


class Ledger:
    """Requests in one database; opened on first use."""

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def new_request_id(self, received_at: datetime, tags: Collection[str]) -> str:
        """`er-20261124-1a2b3c4d`: the day and a digest of the keyed tags, so that the same open request gets the same id.

        What was refused or closed that day may be asked again: it gets the next free id.
        """
        ended = {request.request_id for request in self.requests() if request.state is not State.OPEN}
        numbered = (sha256_json([*sorted(tags), *([str(number)] if number else [])])[:8] for number in itertools.count())
        return next(name for code in numbered if (name := f"er-{received_at:%Y%m%d}-{code}") not in ended)

    def add(self, request: ErasureRequest, at: datetime) -> None:
        """Enter an open request.

        Raises:
            LedgerError: its id exists, or an open request already holds one of its tags.
        """
        rows = _tag_rows(request.request_id, "subject", request.subjects) + _tag_rows(request.request_id, "record", request.records)
        with self._begin() as connection:
            held = self._holder(connection, [row["tag"] for row in rows], request.effect.value)
            if held:
                raise LedgerError(f"request add: open request {held} already asks for some of this; see `mlflow-unlearn request show {held}`")
            try:
                connection.execute(_REQUESTS.insert().values({k: v for k, v in encode(request).items() if k not in ("subjects", "records")}))
            except IntegrityError:
                raise LedgerError(f"request add: {request.request_id} is in the ledger already; see `mlflow-unlearn request show`") from None
            connection.execute(_TAGS.insert(), rows)
            _log(connection, at, "added", request.request_id, f"{request.basis.value} {request.effect.value}")

    def get(self, request_id: str) -> ErasureRequest:
        """One request.

        Raises:
            LedgerError: there is none of this id.
        """
        with self._begin() as connection:
            found = self._read(connection, _REQUESTS.c.request_id == request_id)
        if not found:
            raise _no_such(request_id)
        return found[0]

    def requests(self, state: State | None = None) -> tuple[ErasureRequest, ...]:
        """All requests, or those in one state, oldest first."""
        with self._begin() as connection:
            return self._read(connection, sql.true() if state is None else _REQUESTS.c.state == state.value)

    def open(self) -> tuple[ErasureRequest, ...]:
        """The open requests."""
        return self.requests(State.OPEN)

    def erased(self) -> tuple[frozenset[str], frozenset[str]]:
        """Keyed tags of subjects and of records that closed requests removed for good, canaries that went with them included."""
        closed = sql.select(_REQUESTS.c.request_id).where(_REQUESTS.c.state == State.CLOSED.value)
        with self._begin() as connection:
            rows = connection.execute(sql.select(_TAGS.c.kind, _TAGS.c.tag).where(_TAGS.c.request_id.in_(closed))).all()
        return frozenset(tag for kind, tag in rows if kind == "subject"), frozenset(tag for kind, tag in rows if kind in ("record", "canary"))

    def extend(self, request_id: str, due_at: datetime, at: datetime) -> None:
        """Move the deadline of an open request."""
        with self._begin() as connection:
            _change(connection, _Change(request_id=request_id, at=at, kind="extended", detail=moment(due_at)), due_at=moment(due_at))

    def refuse(self, request_id: str, reason: str, at: datetime) -> None:
        """Refuse an open request for one of `REFUSALS`."""
        if reason not in REFUSALS:
            raise LedgerError(f"request refuse: expected one of {', '.join(REFUSALS)}; the ledger takes no free text")
        with self._begin() as connection:
            _change(connection, _Change(request_id=request_id, at=at, kind="refused", detail=reason), state=State.REFUSED.value)

    def close(self, request_id: str, canaries: Collection[str], at: datetime) -> None:
        """Close an open request; `canaries` are record tags that left the dataset with it."""
        with self._begin() as connection:
            _change(connection, _Change(request_id=request_id, at=at, kind="closed", detail=f"{len(canaries)} canaries"), state=State.CLOSED.value)
            present = set(connection.scalars(sql.select(_TAGS.c.tag).where(_TAGS.c.request_id == request_id)))
            rows = _tag_rows(request_id, "canary", sorted(set(canaries) - present))
            if rows:
                connection.execute(_TAGS.insert(), rows)

    def pinned_parent(self, model: str, spec: str) -> Parent | None:
        """The parent pinned for the open batch of a model, under the `model.parent` of params.yaml it was resolved from."""
        with self._begin() as connection:
            text = connection.scalar(sql.select(_PARENTS.c.parent).where(_PARENTS.c.model == model, _PARENTS.c.spec == spec))
        return decode(Parent, json.loads(text), "ledger: parents") if text else None

    def pin_parent(self, model: str, spec: str, parent: Parent) -> None:
        """Pin a parent until the batch ends; the first pin stays."""
        with self._begin() as connection:
            if connection.scalar(sql.select(_PARENTS.c.model).where(_PARENTS.c.model == model, _PARENTS.c.spec == spec)) is None:
                connection.execute(_PARENTS.insert().values(model=model, spec=spec, parent=json.dumps(encode(parent))))

    def release_parent(self, model: str) -> None:
        """Forget the pins of a model: its batch has ended."""
        with self._begin() as connection:
            connection.execute(_PARENTS.delete().where(_PARENTS.c.model == model))

    def attempt(self, parent: str, pool: str, unlearned: str, at: datetime) -> int:
        """Number of this attempt: audit canaries of `pool` are opened for `unlearned`, made of `parent`. The same weights count once.

        Another parent does not start anew: it is the pool that has been looked at.
        """
        same = _ATTEMPTS.c.pool == pool
        with self._begin() as connection:
            number = connection.scalar(sql.select(_ATTEMPTS.c.number).where(same, _ATTEMPTS.c.unlearned == unlearned))
            if number is None:
                number = 1 + (connection.scalar(sql.select(sql.func.count()).select_from(_ATTEMPTS).where(same)) or 0)
                connection.execute(_ATTEMPTS.insert().values(parent=parent, pool=pool, unlearned=unlearned, number=number, at=moment(at)))
                _log(connection, at, "attempt", parent, f"{number}: {unlearned[:16]}")
        return int(number)

    def spend_pool(self, pool: str, spent_by: str, at: datetime) -> None:
        """Record that a closed batch used a canary pool; repeating it changes nothing."""
        with self._begin() as connection:
            if connection.scalar(sql.select(_POOLS.c.pool).where(_POOLS.c.pool == pool)) is None:
                connection.execute(_POOLS.insert().values(pool=pool, spent_by=spent_by))
                _log(connection, at, "pool spent", pool[:16], spent_by)

    def pool_spent_by(self, pool: str) -> str | None:
        """The batch that used a pool, if one did."""
        with self._begin() as connection:
            spent: str | None = connection.scalar(sql.select(_POOLS.c.spent_by).where(_POOLS.c.pool == pool))
        return spent

    @cached_property
    def _engine(self) -> Engine:
        url = sql.engine.make_url(self.uri)
        engine = _sqlite(url) if url.drivername.startswith("sqlite") else sql.create_engine(url, isolation_level="SERIALIZABLE")
        _META.create_all(engine)
        return engine

    @contextmanager
    def _begin(self) -> Iterator[Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except (SQLAlchemyError, OSError, ImportError) as error:
            place = self.uri.rsplit("@", 1)[-1]  # never a password
            raise LedgerError(f"ledger {place}: {type(error).__name__}; check MLFLOW_UNLEARN_LEDGER_URI and that the database answers") from error

    def _holder(self, connection: Connection, tags: Sequence[str], effect: str) -> str | None:
        """An open request for the same effect that holds one of the tags: removal may follow suppression, but nothing is asked twice."""
        both = _TAGS.join(_REQUESTS)
        query = (
            sql.select(_REQUESTS.c.request_id)
            .select_from(both)
            .where(_REQUESTS.c.state == State.OPEN.value, _REQUESTS.c.effect == effect, _TAGS.c.tag.in_(tags))
            .order_by(_REQUESTS.c.request_id)
            .limit(1)
        )
        held: str | None = connection.scalar(query)
        return held

    def _read(self, connection: Connection, where: sql.ColumnElement[bool]) -> tuple[ErasureRequest, ...]:
        rows = connection.execute(sql.select(_REQUESTS).where(where).order_by(_REQUESTS.c.received_at, _REQUESTS.c.request_id)).mappings().all()
        requests = [decode(ErasureRequest, dict(row), "ledger: requests") for row in rows]
        tags: dict[tuple[str, str], list[str]] = {}
        for row in connection.execute(sql.select(_TAGS).where(_TAGS.c.request_id.in_([r.request_id for r in requests]))).mappings():
            tags.setdefault((row["request_id"], row["kind"]), []).append(row["tag"])
        return tuple(_with_tags(request, tags) for request in requests)


@dataclass(frozen=True, kw_only=True)
class _Change:
    request_id: str
    at: datetime
    kind: str
    detail: str


def _change(connection: Connection, change: _Change, **values: str) -> None:
    """Change an open request and log it, in the caller's transaction: of two that race, the second finds it no longer open."""
    state = connection.scalar(sql.select(_REQUESTS.c.state).where(_REQUESTS.c.request_id == change.request_id))
    if state is None:
        raise _no_such(change.request_id)
    if state != State.OPEN.value:
        raise LedgerError(f"{change.request_id}: it is {state}, and only an open request can be {change.kind}; see `mlflow-unlearn request list`")
    connection.execute(_REQUESTS.update().where(_REQUESTS.c.request_id == change.request_id).values(**values))
    _log(connection, change.at, change.kind, change.request_id, change.detail)


def _no_such(request_id: str) -> LedgerError:
    return LedgerError(f"{request_id}: no such request; `mlflow-unlearn request list` shows them all")


def _tag_rows(request_id: str, kind: str, tags: Sequence[str]) -> list[dict[str, str]]:
    return [{"request_id": request_id, "kind": kind, "tag": tag} for tag in tags]


def _sqlite(url: sql.engine.URL) -> Engine:
    """A file only its owner can read, one connection a transaction, and writers in line from their first look on."""
    if url.database:
        path = Path(url.database)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    engine = sql.create_engine(url, poolclass=sql.pool.NullPool, connect_args={"timeout": 30, "isolation_level": None})
    sql.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    return engine


def _with_tags(request: ErasureRequest, tags: dict[tuple[str, str], list[str]]) -> ErasureRequest:
    subjects, records = (tuple(sorted(tags.get((request.request_id, kind), ()))) for kind in ("subject", "record"))
    return replace(request, subjects=subjects, records=records)


def _log(connection: Connection, at: datetime, kind: str, about: str, detail: str) -> None:
    connection.execute(_EVENTS.insert().values(at=moment(at), kind=kind, about=about[:80], detail=detail[:200]))
