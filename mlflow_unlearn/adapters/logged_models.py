"""A folder of weights as MLflow's logged model: one model as the transformers flavor writes it, an ensemble as it lies there and without pickles.

Adapters are logged without their base, which is a registered version or a hub's model. A base that is only a folder here is registered once, as the
model's name and `-base`, and the logged ensemble.json names that version.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types.schema import ColSpec, ParamSchema, ParamSpec, Schema
from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS

from .. import ensembles
from ..digests import canonical_json
from ..ensembles import EnsembleManifest
from ..errors import TamperedError
from .registry_rows import BASE_MODEL_TAG, BASE_TAG, RELATION_TAG

WEIGHTS_TAG = "unlearn.tensor_digest"
LOADER = "mlflow_unlearn.adapters.serving"
MAX_NEW_TOKENS = 48
"""Longest answer of a served ensemble, where the question does not say otherwise."""
_FOLDER = "ensemble"
"""Name of the ensemble's folder inside the artifact."""
_BASE_DESCRIPTION = (
    "The base of the ensembles of `{name}`: their adapters stand on exactly these weights. No dataset was logged with it, so that a trace cannot say "
    "what it saw: register the base yourself, with its data, and name that version in `exact.base` to have its lineage inherited."
)


@dataclass(frozen=True, kw_only=True)
class Weights:
    """What is to be logged, and what is known of where it began."""

    folder: Path
    """As `save_pretrained` writes it, or an ensemble's."""
    base: Path | None = None
    """Where the base of an ensemble lies, if it is a folder of the project; None for a hub's or a registered one."""
    base_apart: bool = False
    """Whether DVC's graph leads from that folder back to no dataset of the project, so that nothing of them can be inherited from it."""
    params: Mapping[str, object] = field(default_factory=dict)
    """Shown on the logged model's page."""

    @cached_property
    def manifest(self) -> EnsembleManifest | None:
        """What ensemble.json says; None for a single model."""
        return ensembles.read(self.folder) if ensembles.is_ensemble(self.folder) else None

    @property
    def local_base(self) -> Path | None:
        """The folder of the base, also where only its reference names one here."""
        named = Path(self.manifest.base.reference) if self.manifest else None
        return self.base or (named if named is not None and named.is_dir() else None)

    @property
    def origin(self) -> dict[str, str]:
        """Tags from which a trace reads what an ensemble's base saw: its version, a hub's id, `none`, or weights that some version may have."""
        if self.manifest is None:
            return {}
        reference, relation = self.manifest.base.reference, "adapter" if self.manifest.kind == "adapters" else "fine-tuned"
        if reference.startswith("models:/"):
            return {BASE_MODEL_TAG: reference, RELATION_TAG: relation}
        if self.local_base is None:
            return {BASE_MODEL_TAG: f"hf://{reference}"}
        return {BASE_MODEL_TAG: "none"} if self.base_apart else {BASE_TAG: self.manifest.base.tensor_digest}


def log(weights: Weights, reference: str | None) -> Any:
    """Log to the active run; MLflow's info about the logged model.

    Args:
        weights: the model.
        reference: what `pinned_base` said.

    Raises:
        TamperedError: a file is not the one that ensemble.json names.
    """
    params = {key: str(value) for key, value in weights.params.items()}
    if weights.manifest is None:
        return _log_model(weights.folder, "text-generation", params)
    with _to_log(weights.folder, weights.manifest, reference) as folder, warnings.catch_warnings():
        # MLflow wants an example to ask the model at once, which would have to load all of it first.
        warnings.filterwarnings("ignore", message=".*An input example was not provided", category=UserWarning)
        return mlflow.pyfunc.log_model(
            name="model",
            loader_module=LOADER,
            data_path=str(folder),
            signature=signature(weights.manifest),
            pip_requirements=_requirements(),
            model_config={"device": "auto"},
            params=params,
        )


def pinned_base(client: MlflowClient, name: str, weights: Weights) -> str | None:
    """Under which name anybody can fetch the base of an ensemble's adapters; registers it where nobody could. None where nothing needs it.

    To be called outside of a run: the base has its own.

    Raises:
        TamperedError: the folder is not the base that the adapters were trained on, or MLflow did not keep its weights as they are.
    """
    if weights.manifest is None or weights.manifest.kind == "weights":
        return None
    folder = weights.local_base
    if folder is None:
        return weights.manifest.base.reference
    digest, own = weights.manifest.base.tensor_digest, f"{name}-base"
    found = client.search_model_versions(f"name = '{own}' AND tag.`{WEIGHTS_TAG}` = '{digest}'")
    number = max(int(each.version) for each in found) if found else _register_base(client, own, folder, digest)
    return f"models:/{own}/{number}"


def create_version(client: MlflowClient, name: str, info: Any, tags: Mapping[str, str], description: str) -> Any:
    """Tags and description come into being with the version: a kill leaves all of it or nothing. The link back only serves MLflow's pages."""
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    found = client.create_model_version(name, info.model_uri, info.run_id, tags=dict(tags), description=description, model_id=info.model_id)
    link = canonical_json([{"name": name, "version": found.version}]).decode()
    client.set_logged_model_tags(info.model_id, {MLFLOW_MODEL_VERSIONS: link})
    return found


def signature(manifest: EnsembleManifest) -> ModelSignature:
    """What a served ensemble takes and gives."""
    asked = Schema([ColSpec("string", "prompt"), ColSpec("string", "subject_tag", required=False)])
    answered = Schema([ColSpec("string", "answer"), ColSpec("long", "shard", required=False)])
    params = ParamSchema([ParamSpec("max_new_tokens", "long", MAX_NEW_TOKENS), ParamSpec("aggregation", "string", manifest.aggregation)])
    return ModelSignature(inputs=asked, outputs=answered, params=params)


@contextmanager
def _to_log(folder: Path, manifest: EnsembleManifest, reference: str | None) -> Iterator[Path]:
    """The folder under the name it has in the artifact, with the base's name in it; files are linked."""
    from .ensembles import with_base

    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".log.") as aside:
        with_base(folder, reference or manifest.base.reference, Path(aside, _FOLDER))
        yield Path(aside, _FOLDER)


def _log_model(folder: Path, task: str, params: Mapping[str, str]) -> Any:
    from . import bases, models  # torch, which a look at the registry must not pay for

    files = bases.fetch(str(folder))
    with models.quiet():
        model, tokenizer = bases.load(files, "cpu", files.config.get("dtype") or "float32")
        return mlflow.transformers.log_model(
            transformers_model={"model": model, "tokenizer": tokenizer},
            name="model",
            task="text-classification" if files.task == "classification" else task,
            pip_requirements=models.requirements(),
            params=dict(params),
        )


def _register_base(client: MlflowClient, name: str, folder: Path, digest: str) -> int:
    from . import bases

    files = bases.fetch(str(folder))
    found = files.pinned.tensor_digest
    if found != digest:
        raise TamperedError(f"{folder}: base has digest {found[:16]}, the adapters were trained on {digest[:16]}; restore it or train them anew")
    with mlflow.start_run(run_name=f"base {digest[:8]}", tags={WEIGHTS_TAG: digest}):
        info = _log_model(folder, "text-generation", {})
    root = Path(mlflow.artifacts.download_artifacts(artifact_uri=info.model_uri))
    logged = bases.BaseFiles(reference=info.model_uri, model=root / "model", tokenizer=root / "model").pinned.tensor_digest
    if logged != digest:
        raise TamperedError(f"{folder}: MLflow saved it as {logged[:16]} instead of {digest[:16]}; register it yourself and name it in exact.base")
    return int(create_version(client, name, info, {WEIGHTS_TAG: digest}, _BASE_DESCRIPTION.format(name=name.removesuffix("-base"))).version)


def _requirements() -> list[str]:
    """What loading needs: this package, whose loader it is, and what makes a model of the files."""
    from . import models

    own = [f"{library}=={version(library)}" for library in ("mlflow", "mlflow-unlearn")]
    return [*own, *models.requirements()]
