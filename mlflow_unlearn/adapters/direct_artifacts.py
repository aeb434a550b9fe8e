"""Artifacts read where they lie instead of through MLflow's server: for a machine that makes models forget which the server gives to nobody."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from mlflow.store.artifact import artifact_repository_registry as repositories
from mlflow.store.artifact.artifact_repo import ArtifactRepository

from .storage_locations import PROXIED, Storage

Elsewhere = Callable[..., ArtifactRepository]


def read_directly(storage: Storage, direct: Callable[[], bool] = lambda: True, elsewhere: Elsewhere | None = None) -> None:
    """Let `mlflow-artifacts:` in this process mean the files below the destination.

    Args:
        storage: knows the destination.
        direct: whether that is so at this moment.
        elsewhere: what it means at other moments.
    """
    repositories._artifact_repository_registry.register(PROXIED, partial(_repository, storage, direct, elsewhere))


def _repository(
    storage: Storage,
    direct: Callable[[], bool],
    elsewhere: Elsewhere | None,
    artifact_uri: str,
    tracking_uri: str | None = None,
    registry_uri: str | None = None,
) -> ArtifactRepository:
    if elsewhere is None or direct():
        repository: ArtifactRepository = storage.repository(artifact_uri)
        return repository
    return elsewhere(artifact_uri, tracking_uri=tracking_uri, registry_uri=registry_uri)
