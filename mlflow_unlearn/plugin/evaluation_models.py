"""The models of an evaluation, however they are named: a URI, a folder, a hub id, a pair in memory, or what MLflow loaded.

Each becomes a folder from which the audit loads a fresh copy for every state. A pair in memory is written aside first, so that its digest is that of
the same weights in the registry.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException

from ..adapters import bases, ensembles, models
from ..audit import Origin
from ..digests import tensor_digest
from ..ensembles import MANIFEST, is_ensemble
from ..errors import ConfigError
from ..lineage import ModelVersion
from .evaluation_settings import WHERE

UNREGISTERED = "unregistered"
_VERSION = re.compile(r"models:/(?P<name>[^/@]+)/(?P<version>\d+)")
_URI = re.compile(r"[a-z][a-z0-9+.-]*:/")


@dataclass(frozen=True, kw_only=True)
class Given:
    """A model that was found."""

    origin: Origin
    version: ModelVersion
    """As it was named; of models that are not registered, `unregistered` and the beginning of the weights' digest."""
    model_id: str | None = None
    """MLflow's logged model, if it is one."""


def find(named: object, device: str, aside: Path) -> Given:
    """A model by its name, or a pair of model and tokenizer.

    Args:
        named: `models:/NAME/VERSION`, `models:/NAME@ALIAS`, `models:/MODEL_ID`, `runs:/RUN/PATH`, a folder (of weights or of a logged model), a hub
            id, or the pair.
        device: where it is loaded.
        aside: an empty folder, or one to make, for a pair's files; it must outlive the audit.

    Raises:
        ConfigError: there is no such model, or it has no safetensors.
    """
    if isinstance(named, tuple) and len(named) == 2:
        models.save_model(*named, aside)
        return _of_files(bases.BaseFiles(reference="in memory", model=aside, tokenizer=aside), device)
    if not isinstance(named, str):
        raise ConfigError(f"{WHERE}: expected a URI, a folder or a pair of model and tokenizer, found {type(named).__name__}")
    if not _URI.match(named) and not (Path(named) / "MLmodel").is_file() and not is_ensemble(Path(named)):
        return _of_files(bases.fetch(named), device)
    return _of_files(_logged(named), device, named)


def loaded(model: Any, device: str, aside: Path) -> Given:
    """What MLflow loaded, by its logged model where it is one, else by what it holds.

    Raises:
        ConfigError: it holds no model that transformers saved, e.g. a function or a served model.
    """
    model_id = getattr(model, "model_id", None)
    try:
        if model_id is not None:
            return find(f"models:/{model_id}", device, aside)
    except ConfigError:
        pass  # of another tracking server; what it holds is in memory all the same
    try:
        pipeline = model.get_raw_model()
        return find((pipeline.model, pipeline.tokenizer), device, aside)
    except (AttributeError, NotImplementedError, MlflowException):
        kind = type(model).__name__
        raise ConfigError(f"{kind}: holds no transformers model and tokenizer; name the unlearned model in evaluator_config['model']") from None


def _logged(uri: str) -> bases.BaseFiles:
    """The files of a logged model: one that transformers saved, or an ensemble."""
    try:
        root = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri)) if _URI.match(uri) else Path(uri)
    except (MlflowException, OSError) as error:
        raise ConfigError(f"{uri}: MLflow does not give it ({type(error).__name__}); check the name, the version and MLFLOW_TRACKING_URI") from error
    if is_ensemble(root):
        return bases.BaseFiles(reference=uri, model=root, tokenizer=root)
    for manifest in root.glob(f"data/*/{MANIFEST}"):
        return bases.BaseFiles(reference=uri, model=manifest.parent, tokenizer=manifest.parent)
    tokenizer = root / "components" / "tokenizer"
    folder = root / "model" if (root / "model").is_dir() else root
    return bases.BaseFiles(reference=uri, model=folder, tokenizer=tokenizer if tokenizer.is_dir() else folder)


def _of_files(files: bases.BaseFiles, device: str, named: str = "") -> Given:
    weights = sorted(files.model.glob("*.safetensors"))
    if not weights:
        raise ConfigError(f"{files.reference}: no safetensors files; log it with mlflow.transformers.log_model")
    digest, many = tensor_digest(weights), is_ensemble(files.model)
    load = partial(_ensemble, files.model, device) if many else partial(bases.load, files, device)
    return Given(origin=Origin(load=load, digest=digest, many=many), version=_version(named, digest), model_id=_model_id(files))


def _ensemble(folder: Path, device: str) -> tuple[Any, Any]:
    ensemble, tokenizer, _ = ensembles.load(folder, device)
    return ensemble, tokenizer


def _version(named: str, digest: str) -> ModelVersion:
    if found := _VERSION.fullmatch(named):
        return ModelVersion(name=found["name"], version=found["version"])
    name, at, alias = named.removeprefix("models:/").partition("@")
    if named.startswith("models:/") and at:
        return ModelVersion(name=name, version=str(mlflow.MlflowClient().get_model_version_by_alias(name, alias).version))
    return ModelVersion(name=UNREGISTERED, version=digest[:16])


def _model_id(files: bases.BaseFiles) -> str | None:
    """As the MLmodel beside the files says; files that were never logged have none."""
    for folder in (files.model.parent, *files.model.parents[1:2]):
        if (folder / "MLmodel").is_file():
            found: str | None = mlflow.models.Model.load(str(folder)).model_id
            return found
    return None
