"""Artifacts on this machine: a model's files where they lie in a local store, else fetched, and removed when they are no longer needed."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
from mlflow.store.artifact.models_artifact_repo import ModelsArtifactRepository

from ..errors import TamperedError

_ASIDE = "mlflow-unlearn-"


@contextmanager
def fetched(source: str, tracking_uri: str) -> Iterator[Path]:
    """The files of a version for as long as this lasts.

    Args:
        source: the version's, as the registry has it.
        tracking_uri: of the store that knows its runs and logged models.

    Raises:
        MlflowException, OSError: they cannot be read.
    """
    if _is_here(source, tracking_uri):
        yield _download(source, tracking_uri)
        return
    with tempfile.TemporaryDirectory(prefix=_ASIDE) as aside:
        yield _download(source, tracking_uri, aside)


def fetched_to_stay(source: str, tracking_uri: str) -> Path:
    """The same for as long as this process lasts: what was loaded from files may read them later."""
    if _is_here(source, tracking_uri):
        return _download(source, tracking_uri)
    aside = tempfile.mkdtemp(prefix=_ASIDE)
    atexit.register(shutil.rmtree, aside, ignore_errors=True)
    return _download(source, tracking_uri, aside)


def artifact(run_id: str | None, place: str, tracking_uri: str) -> dict[str, Any] | None:
    """A JSON object among the artifacts of a run, `unlearn/evaluation.json`; None where there is none.

    Raises:
        TamperedError: what lies there is none.
    """
    with tempfile.TemporaryDirectory(prefix=_ASIDE) as aside:
        try:
            path = mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=place, tracking_uri=tracking_uri, dst_path=aside)
            raw = Path(path).read_bytes()
        except (MlflowException, OSError):
            return None
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise TamperedError(f"{place} of run {run_id}: no JSON object; restore it")
    return found


def _is_here(source: str, tracking_uri: str) -> bool:
    """Whether MLflow gives out the store's own folder; where it copies, it leaves a folder behind that nobody removes."""
    store = get_artifact_repository(source, tracking_uri=tracking_uri)
    return isinstance(store.repo if isinstance(store, ModelsArtifactRepository) else store, LocalArtifactRepository)


def _download(source: str, tracking_uri: str, folder: str | None = None) -> Path:
    return Path(mlflow.artifacts.download_artifacts(artifact_uri=source, tracking_uri=tracking_uri, dst_path=folder))
