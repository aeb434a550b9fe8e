"""The gate's log as it lies in MLflow's database, for reading alone: nothing is made there, not even the file of a database that is missing."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sql
from sqlalchemy.engine import URL, Connection, Engine
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from ..documents import decode
from ..errors import ConfigError, StoreError
from .gate_log import Entry, Logged
from .gate_tables import LOG, META

_AT_ONCE = 1000
_CREDENTIALS = re.compile(r"^([^:/]+://)[^:/@]*(:[^@]*)?@")
"""As SQLAlchemy reads a URI: a password may have slashes in it, and the path of a file an @."""


def plain(uri: str) -> str:
    """A database's URI as MLflow's own commands take it."""
    return uri.removeprefix("unlearn-")


def place(uri: str) -> str:
    """A database's URI without user and password, under which a witness keeps its head."""
    return _CREDENTIALS.sub(r"\1", plain(uri))


@contextmanager
def reading(uri: str) -> Iterator[Connection]:
    """MLflow's database, where it holds the log of a gate.

    Raises:
        ConfigError: not the URI of a database that MLflow and the gate share.
        StoreError: it does not answer, or no gate wrote in it yet.
    """
    engine = _engine(plain(uri), place(uri))
    try:
        with engine.connect() as connection:
            if META.tables.keys() - set(sql.inspect(connection).get_table_names()):
                where = "the database of an MLflow server that was started with `--registry-store-uri unlearn-...`"
                raise StoreError(f"{place(uri)}: no gate wrote here yet; expected {where}")
            yield connection
    except (SQLAlchemyError, sqlite3.Error) as error:
        raise StoreError(f"{place(uri)}: {type(error).__name__}; check the URI and that the database answers") from error
    finally:
        engine.dispose()


def written(connection: Connection, after: int = 0, model: str | None = None) -> Iterator[Logged]:
    """Entries after this number, of one model or all, in order, as they lie there: whether they are what was written is not looked at.

    Raises:
        StoreError: one cannot be read.
    """
    chosen = sql.select(LOG.c.number, LOG.c.body, LOG.c.previous, LOG.c.mac).order_by(LOG.c.number).limit(_AT_ONCE)
    chosen = chosen.where(LOG.c.model == model) if model is not None else chosen
    while rows := connection.execute(chosen.where(LOG.c.number > after)).all():
        for number, body, previous, mac in rows:
            yield Logged(number=number, entry=_entry(number, body), previous=previous, mac=mac)
        after = rows[-1].number


def _entry(number: int, body: str) -> Entry:
    where = f"gate log: entry {number}"
    try:
        return decode(Entry, json.loads(body), where)
    except (ConfigError, ValueError):
        raise StoreError(
            f"{where}: cannot be read; it was changed, or a later version wrote it: `mlflow-unlearn gate-log --verify` tells which"
        ) from None


def _engine(uri: str, shown: str) -> Engine:
    try:
        url = sql.engine.make_url(uri)
    except ArgumentError:
        raise ConfigError("--database: not the URI of a database; expected sqlite:///PATH or postgresql://HOST/DATABASE") from None
    backend = url.get_backend_name()
    if backend not in ("sqlite", "postgresql"):
        raise ConfigError(f"{shown}: expected sqlite or postgresql, found {backend}: the gate runs on no other database")
    try:
        return _file(url) if backend == "sqlite" else sql.create_engine(url, poolclass=sql.pool.NullPool, hide_parameters=True)
    except ImportError as error:
        raise StoreError(f"{shown}: no driver for it here ({error.name}); `pip install mlflow-unlearn[postgres]`") from None


def _file(url: URL) -> Engine:
    path = Path(url.database or "")
    if not path.is_file():
        raise StoreError(f"sqlite:///{path}: no such file; run this on the server's machine, with the database that the server was started with")
    uri = f"{path.resolve().as_uri()}?mode=ro"
    return sql.create_engine(
        "sqlite://", creator=lambda: sqlite3.connect(uri, uri=True, timeout=60), poolclass=sql.pool.NullPool, hide_parameters=True
    )
