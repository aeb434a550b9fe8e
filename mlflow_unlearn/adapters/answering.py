"""What MLflow raises, in words of ours: its store does not answer, or a server's gate says no."""

from __future__ import annotations

import re

import mlflow
from mlflow.exceptions import MlflowException

from ..errors import GateError, StoreError

_CREDENTIALS = re.compile(r"//[^/@\s]*@")
"""User and password of a URI, in MLflow's own messages too."""
_REFUSED = re.compile(r"refused by mlflow-unlearn.*|models:/\S+ is blocked, nobody reads.*", re.DOTALL)
"""The words of a server's gate; where MLflow reads several files they stand within its own."""


class reachable:  # noqa: N801 - reads as `with reachable():`
    """Turns what MLflow raises when its store does not answer into one line, and what a server's gate refuses into its words."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        from requests.exceptions import RequestException
        from sqlalchemy.exc import SQLAlchemyError

        if isinstance(error, MlflowException) and (refused := _REFUSED.search(str(error.message))):
            raise GateError(refused.group()) from error
        if isinstance(error, (RequestException, SQLAlchemyError, MlflowException, ModuleNotFoundError)):  # the last: a database's driver
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            line = f"MLflow at {mlflow.get_tracking_uri()} does not answer: {reason}; check MLFLOW_TRACKING_URI and that the server runs"
            raise StoreError(_CREDENTIALS.sub("//", line)) from error
