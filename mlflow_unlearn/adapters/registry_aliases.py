"""Aliases of registered models: where one points, and pointing it elsewhere."""

from __future__ import annotations

from mlflow.exceptions import MlflowException

from ..errors import ConfigError
from ..lineage import ModelVersion
from .alias_header import replacing
from .answering import reachable
from .registry import Registry


def holder(registry: Registry, name: str, alias: str) -> ModelVersion | None:
    """The version that an alias of a registered model points at; None where there is no such alias.

    Raises:
        StoreError: MLflow does not answer.
    """
    with reachable():
        aliases = registry.client.get_registered_model(name).aliases
        return ModelVersion(name=name, version=str(aliases[alias])) if alias in aliases else None


def point(registry: Registry, model: ModelVersion, alias: str, replaces: ModelVersion | None) -> None:
    """Let an alias point at a version.

    Args:
        registry: where.
        model: the version.
        alias: the alias.
        replaces: what it points at now; a server with the gate refuses if that is no longer so.

    Raises:
        ConfigError: MLflow takes no alias of this name, or it points elsewhere by now.
        GateError: the server's own gate refuses, in its words.
        StoreError: MLflow does not answer.
    """
    with reachable():
        try:
            with replacing(replaces.version if replaces else None):
                registry.client.set_registered_model_alias(model.name, alias, model.version)
        except MlflowException as error:
            if error.error_code == "RESOURCE_CONFLICT":
                raise ConfigError(error.message) from None
            if error.error_code != "INVALID_PARAMETER_VALUE":
                raise
            raise ConfigError(
                f"alias '{alias}': MLflow takes no alias of this name; use letters, digits, _ and -, and neither v1 nor latest"
            ) from None
