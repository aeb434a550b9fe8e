"""`models:/NAME/VERSION` and `models:/NAME@ALIAS`."""

from __future__ import annotations

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from ..errors import LineageError


def parsed(uri: str) -> tuple[str, str | None, str | None]:
    """Name, version and alias, one of the last two.

    Raises:
        LineageError: it is neither.
    """
    body = uri.removeprefix("models:/")
    name, slash, version = body.rpartition("/")
    if body != uri and slash and name and version.isdigit():
        return name, version, None
    name, at, alias = body.rpartition("@")
    if body != uri and at and name and alias:
        return name, None, alias
    raise LineageError(f"{uri}: expected models:/NAME/VERSION or models:/NAME@ALIAS")


def number_behind(client: MlflowClient, name: str, alias: str) -> str:
    """The version that an alias points at. A server's gate may refuse to follow it; what it points at is no secret, and has to be known to mend it.

    Raises:
        MlflowException: there is no such model or alias, or MLflow does not answer.
    """
    try:
        return str(client.get_model_version_by_alias(name, alias).version)
    except MlflowException as error:
        aliases = client.get_registered_model(name).aliases if error.error_code == "PERMISSION_DENIED" else {}
        if alias not in aliases:
            raise
        return str(aliases[alias])
