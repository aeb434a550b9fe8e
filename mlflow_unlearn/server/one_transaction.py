"""MLflow's registry store, whose own methods can be parts of a larger transaction."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore
from mlflow.utils.validation import _validate_model_version


def number(version: str | int) -> str:
    """A version's number, as MLflow and its database take it."""
    number = int(_validate_model_version(version))
    if not 0 < number < 1 << 31:
        raise MlflowException(f"Model version {number} not found", error_code=RESOURCE_DOES_NOT_EXIST)
    return str(number)


class OneTransaction(SqlAlchemyStore):  # type: ignore[misc]  # MLflow has no types
    """What is done within `_transaction` is written together or not at all."""

    ManagedSessionMaker: Any

    def __init__(self, db_uri: str) -> None:
        super().__init__(db_uri)
        self._own_session: Any = self.ManagedSessionMaker
        self._open_session: ContextVar[Any] = ContextVar("open_session", default=None)
        self.ManagedSessionMaker = self._shared_session

    def _get_sql_model_version(self, session: Any, name: str, version: str | int, eager: bool = False) -> Any:
        """A version by its number; of one that the database cannot hold MLflow makes an internal error, which its clients try again for minutes."""
        return super()._get_sql_model_version(session, name, number(version), eager)

    @contextmanager
    def _shared_session(self, read_only: bool = True) -> Iterator[Any]:
        """MLflow's session, or the one that a larger transaction of ours has open."""
        if (session := self._open_session.get()) is not None:
            yield session
            session.flush()
            return
        with self._own_session(read_only=read_only) as session:
            yield session

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        """What MLflow and the gate write within is written together or not at all."""
        if (session := self._open_session.get()) is not None:
            yield session
            return
        with self._own_session(read_only=False) as session:
            token = self._open_session.set(session)
            try:
                yield session
            finally:
                self._open_session.reset(token)
