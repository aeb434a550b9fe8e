"""The project as MLflow's server sees it: its database directly, and model files where they lie instead of through itself."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED
from mlflow.store.artifact.artifact_repo import ArtifactRepository

from .. import config
from ..adapters.direct_artifacts import read_directly
from ..adapters.registry import Registry
from ..adapters.registry_weights import Known
from ..adapters.storage_locations import Storage
from ..stages.workbench import Workbench

PROJECT = "MLFLOW_UNLEARN_PROJECT"
_by_the_gate: ContextVar[bool] = ContextVar("by_the_gate", default=False)


class Envelopes(Protocol):
    """Keeps signed statements by their payload digest."""

    def get(self, digest: str) -> bytes | None:
        """One that is kept."""

    def keep(self, digest: str, envelope: bytes) -> None:
        """Keep one."""


@dataclass(frozen=True, kw_only=True)
class ServedBench(Workbench):
    """A workbench inside the server."""

    registry_uri: str
    """Of the registry's database, without the gate's prefix."""
    envelopes: Envelopes
    """Signed statements that were verified here: who can write in a run's artifacts cannot take them away."""
    storage: Storage
    weights: Known
    """Versions whose weights were hashed before: a run may claim to have begun from any."""

    @cached_property
    def settings(self) -> config.Settings:
        """Those of the project, with the server's database for MLflow's address."""
        return replace(config.settings(self.folder), tracking_uri=self.storage.tracking_uri)

    @cached_property
    def registry(self) -> Registry:
        """The server's own store; no experiment is made and MLflow's fluent API is left alone."""
        client = MlflowClient(self.storage.tracking_uri, self.registry_uri)
        return Registry(
            client,
            self.params.model.name,
            self.settings.state,
            envelope=self.envelopes.get,
            verified=self.envelopes.keep,
            known=self.weights,
            repositories=self.storage.repository,
        )


def project_folder() -> Path:
    """Where params.yaml and policy.yaml are: MLFLOW_UNLEARN_PROJECT, or the folder that the server was started in."""
    return Path(os.environ.get(PROJECT) or Path.cwd()).resolve()


def read_own_files(storage: Storage) -> None:
    """Let the gate read files under the server's artifacts destination, which MLflow's client would ask a server for.

    Whoever else asks in this process is refused, so that no handler of MLflow finds a way around the guarded repository.
    """
    read_directly(storage, is_by_the_gate, _over_http)


@contextmanager
def by_the_gate() -> Iterator[None]:
    """What is read within is read by the gate."""
    token = _by_the_gate.set(True)
    try:
        yield
    finally:
        _by_the_gate.reset(token)


def is_by_the_gate() -> bool:
    """Whether it is the gate that reads now."""
    return _by_the_gate.get()


def _over_http(artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None) -> ArtifactRepository:
    if str(tracking_uri or "").startswith("http"):
        from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository

        return MlflowArtifactsRepository(artifact_uri, tracking_uri=tracking_uri, registry_uri=registry_uri)
    words = f"{artifact_uri}: lies behind this server, which serves it over HTTP alone"
    raise MlflowException(words, error_code=PERMISSION_DENIED)
