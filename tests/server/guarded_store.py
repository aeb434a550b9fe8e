"""A database as MLflow and the gate make it, with versions that lie below an artifacts destination, and a custody that is installed."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import sqlalchemy as sql
from mlflow.store.db.base_sql_model import Base
from mlflow.store.model_registry.dbmodels.models import SqlModelVersion, SqlRegisteredModel

from mlflow_unlearn.adapters.gate_tables import KeptRows, prepare
from mlflow_unlearn.adapters.storage_locations import Storage
from mlflow_unlearn.documents import moment
from mlflow_unlearn.server.custody import Custody

VERSIONS = SqlModelVersion.__table__
BLOCKED, REGISTERED, FREE = (f"0/models/m-{name}/artifacts" for name in ("blocked", "registered", "free"))
RUN = f"0/{'a' * 32}/artifacts"


@dataclass
class GuardedStore:
    engine: sql.Engine
    rows: KeptRows
    storage: Storage
    custody: Custody

    def register(self, *paths: str, at: int = 1) -> None:
        """Versions of `customers` below the destination, or by a URI."""
        rows = [{"source": path if ":" in path else f"mlflow-artifacts:/{path}"} for path in paths]
        with self.engine.begin() as connection:
            first = connection.execute(sql.select(sql.func.coalesce(sql.func.max(VERSIONS.c.version), 0) + 1)).scalar_one()
            fixed = {"workspace": "default", "name": "customers", "creation_time": at, "last_updated_time": at, "current_stage": "None"}
            connection.execute(VERSIONS.insert(), [fixed | row | {"version": first + number} for number, row in enumerate(rows)])

    def block(self, path: str, since: datetime | None = None, **body: Any) -> None:
        """A block that holds from a moment, now by default."""
        location = path if ":" in path else f"mlflow-artifacts:/{path}"
        began = moment(since or datetime.now(UTC) - timedelta(seconds=1))
        words: Mapping[str, Any] = {"location": location, "name": "customers", "version": "3", "since": began, "words": "Ask for version 4.", **body}
        with self.engine.begin() as connection:
            self.rows.put(connection, "block", location, words)

    def run(self, statement: str) -> None:
        """Plain SQL, as somebody with the database's password would."""
        with self.engine.begin() as connection:
            connection.execute(sql.text(statement))


def guarded_store(folder: Path, destination: str) -> GuardedStore:
    """An empty one at folder/mlflow.db."""
    (folder / "mlflow.db").write_bytes(_empty())
    engine = sql.create_engine(f"sqlite:///{folder}/mlflow.db")
    rows, storage = KeptRows(b"k" * 32), Storage("", destination)
    return GuardedStore(engine=engine, rows=rows, storage=storage, custody=Custody(rows, engine, storage))


@cache
def _empty() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        engine = sql.create_engine(f"sqlite:///{folder}/mlflow.db")
        Base.metadata.create_all(engine, tables=[SqlRegisteredModel.__table__, VERSIONS])
        prepare(engine)
        engine.dispose()
        return Path(folder, "mlflow.db").read_bytes()
