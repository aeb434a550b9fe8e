"""What MLflow's entry points name: cheap to import, since MLflow loads them in every process that reads an artifact."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .artifacts import WriteOnceFiles, WriteOnceObjects
    from .registry_store import GatedStore


def artifact_files(artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None) -> WriteOnceFiles:
    """`unlearn-file`: the artifacts destination on disk, guarded."""
    from .artifacts import WriteOnceFiles

    return WriteOnceFiles(artifact_uri, tracking_uri, registry_uri, own=True)


def artifact_objects(artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None) -> WriteOnceObjects:
    """`unlearn-s3`: the artifacts destination on S3, guarded."""
    from .artifacts import WriteOnceObjects

    return WriteOnceObjects(artifact_uri, tracking_uri, registry_uri, own=True)


def gated_store(store_uri: str, tracking_uri: str | None = None) -> GatedStore:
    """`unlearn-sqlite` and the forms of `unlearn-postgresql`: the registry with the gate in it."""
    from .opening import open_store

    return open_store(store_uri)
