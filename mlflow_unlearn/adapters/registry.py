"""MLflow's registry and tracking store: lineage out, weights out, unlearned versions in. Nothing here imports torch until a model is logged."""

from __future__ import annotations

import gc
import logging
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlparse

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from ..config import Settings
from ..digests import tensor_digest
from ..documents import decode
from ..ensembles import MANIFEST
from ..errors import LineageError
from ..lineage import ModelVersion, RunLineage, VersionLineage
from ..records import Verdict
from .answering import reachable
from .direct_artifacts import read_directly
from .downloads import artifact, fetched_to_stay
from .registry_closure import closure
from .registry_descent import DATASET_TAG, UNKNOWN_BASE, UNREADABLE, VERDICT_TAG, Origins, by_name
from .registry_files import KeptAnswers, Repositories
from .registry_pages import PageRows
from .registry_rows import BASE_TAG, DVC, Rows, RunRow, VersionRow
from .registry_tables import table_rows
from .registry_uris import number_behind, parsed
from .registry_weights import HashedWeights, Known, KnownWeights
from .storage_locations import Storage

__all__ = [
    "BASE_TAG",
    "DATASET_TAG",
    "DOCUMENTS",
    "UNKNOWN_BASE",
    "UNREADABLE",
    "VERDICT_TAG",
    "ModelFiles",
    "Registry",
    "Verdicts",
    "by_name",
    "connect",
]

T = TypeVar("T")
DOCUMENTS = "unlearn"
"""Artifact folder of a run that holds the stage documents."""
_UNKNOWN = re.compile("no such|[Uu]nknown column")
"""How sqlite and MySQL say that a table or column is not there; other operational errors are a lock or a lost connection."""
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ModelFiles:
    """Where a version's files are on this machine."""

    model: Path
    """As `save_pretrained` writes it, or an ensemble's folder (`ensembles.is_ensemble`)."""
    tokenizer: Path

    @property
    def weights(self) -> tuple[Path, ...]:
        """The safetensors files: the model's, or one a shard."""
        return tuple(sorted(self.model.glob("*.safetensors")))


@dataclass(frozen=True)
class Registry:
    """A connection; MLflow's fluent API is pointed at the same store."""

    client: MlflowClient
    experiment: str
    state: Path | None = None
    """Private folder for what is worth keeping between two looks, by the immutable id of what it is about."""
    envelope: Callable[[str], bytes | None] = field(default=lambda _digest: None, repr=False, compare=False)
    """What is kept of signed statements beside the artifacts of runs, by payload digest: a server with the gate keeps what it verified."""
    verified: Callable[[str, bytes], None] = field(default=lambda _digest, _envelope: None, repr=False, compare=False)
    """Told of what was verified, by payload digest."""
    known: Known | None = field(default=None, repr=False, compare=False)
    """Inside a server: which versions have some weights; None where their files are hashed to find out."""
    repositories: Repositories | None = field(default=None, repr=False, compare=False)
    """Inside a server: how files are read, and which are not; None for wherever they are."""
    _digests: dict[tuple[ModelVersion, str], str | None] = field(default_factory=dict, init=False, repr=False, compare=False)

    def lineages(self, name: str | None = None) -> tuple[VersionLineage, ...]:
        """What is known of every version of every registered model, or of one: its data and every version it was made from."""
        return self._read(lambda rows: self._origins(rows).lineages(name))

    def closure(self, model: ModelVersion, tags: Mapping[str, str] | None = None) -> tuple[VersionLineage, ...]:
        """The same of one version, which comes first (with `tags` as if it had these), and of every version that it was made from."""
        return self._read(lambda rows: closure(self._origins(rows), model, tags))

    def runs_on(self, md5s: Collection[str]) -> tuple[RunLineage, ...]:
        """Runs, deleted ones too, that logged one of these digests as a dataset under DVC, with the models they logged; by id."""

        def read(rows: Rows) -> tuple[RunLineage, ...]:
            found = rows.runs(rows.readers(md5s))
            logged = rows.models_of(found)
            return tuple(_run_lineage(run, logged.get(run_id, ())) for run_id, run in sorted(found.items()))

        return self._read(read)

    def resolve(self, uri: str) -> ModelVersion:
        """`models:/NAME/VERSION` or `models:/NAME@ALIAS` as a version.

        Raises:
            LineageError: malformed, or no such model, version or alias; lists what there is.
        """
        name, version, alias = parsed(uri)
        with reachable():
            try:
                if alias:
                    return ModelVersion(name=name, version=number_behind(self.client, name, alias))
                found = self.client.get_model_version(name, str(version))
            except MlflowException as error:
                raise LineageError(f"{uri}: {self._what_there_is(name)}") from error
        return ModelVersion(name=name, version=str(found.version))

    def files(self, model: ModelVersion) -> ModelFiles:
        """Model and tokenizer of a version, downloaded where they are not local.

        Raises:
            LineageError: it is neither an ensemble nor was it logged with MLflow's transformers flavor as safetensors.
        """
        with reachable():
            source = self.client.get_model_version(model.name, model.version).source
            root = fetched_to_stay(source, self.client.tracking_uri)
        ensembles = [ModelFiles(model=each.parent, tokenizer=each.parent) for each in root.glob(f"data/*/{MANIFEST}")]
        files = ensembles[0] if ensembles else ModelFiles(model=root / "model", tokenizer=root / "components" / "tokenizer")
        if not files.weights:
            raise LineageError(f"{model}: no safetensors under {root.name}/model; log it with mlflow.transformers.log_model")
        return files if files.tokenizer.is_dir() else ModelFiles(model=files.model, tokenizer=files.model)

    def tensor_digest(self, model: ModelVersion) -> str:
        """Digest of the weights as they lie in the artifact store now."""
        return tensor_digest(self.files(model).weights)

    def training_commit(self, model: ModelVersion) -> str | None:
        """Git commit that was checked out when a version, or the first of its unlearned ancestors, was trained; None where no run says."""
        lineages = {lineage.model: lineage for lineage in self.lineages()}
        seen: set[ModelVersion] = set()
        while model not in seen and model in lineages and lineages[model].requests and (parent := lineages[model].parent):
            seen.add(model)
            model = parent
        with reachable():
            try:
                run_id = self.client.get_model_version(model.name, model.version).run_id
                commit: str | None = self.client.get_run(run_id).data.tags.get("unlearn.git.commit") if run_id else None
            except MlflowException:
                return None
        return commit

    def verdicts(self, model: ModelVersion) -> tuple[Verdict, ...]:
        """The verdicts registered with an unlearned version; empty where there are none."""
        document = self.document(model, "verdict")
        return decode(Verdicts, {"verdicts": document["verdicts"]}, f"{model}: verdict.json").verdicts if document else ()

    def document(self, model: ModelVersion, name: str) -> dict[str, Any] | None:
        """A stage document that was logged with a version, e.g. `verdict` or `evaluation`; None where there is none.

        Raises:
            TamperedError: what lies there is no JSON object.
        """
        with reachable():
            run_id = self.client.get_model_version(model.name, model.version).run_id
            return artifact(run_id, f"{DOCUMENTS}/{name}.json", self.client.tracking_uri)

    def _read(self, read: Callable[[Rows], T]) -> T:
        """By MLflow's tables where they are at hand and as expected, else by its client's pages."""
        from sqlalchemy.exc import OperationalError, ProgrammingError

        with reachable(), _no_collection():
            tables = table_rows(self.client)
            if tables is not None:
                try:
                    return read(tables)
                except (OperationalError, ProgrammingError) as error:
                    if isinstance(error, OperationalError) and not _UNKNOWN.search(str(error.orig)):
                        raise
                    _logger.warning("MLflow's tables are not as expected (%s); asking its client, which is slower", type(error).__name__)
            return read(PageRows(self.client, self._kept("run-inputs.json")))

    def _origins(self, rows: Rows) -> Origins:
        weights = HashedWeights(self._versions, self.tensor_digest, self._digests) if self.known is None else KnownWeights(self.known)
        return Origins(rows, self._kept("model-files.json"), weights.version, self.repositories)

    def _versions(self) -> list[VersionRow]:
        return self._read(lambda rows: rows.versions())

    def _kept(self, name: str) -> KeptAnswers:
        return KeptAnswers(self.state / "registry" / name if self.state else None)

    def _what_there_is(self, name: str) -> str:
        try:
            model = self.client.get_registered_model(name)
        except MlflowException:
            known = sorted(model.name for model in self.client.search_registered_models())
            return f"no registered model called {name}; there are: {', '.join(known) or 'none'}"
        versions = sorted((lineage.model.version for lineage in self.lineages(name)), key=int)
        aliases = ", ".join(f"@{alias}" for alias in sorted(model.aliases)) or "none"
        return f"no such version or alias; {name} has versions {', '.join(versions) or 'none'} and aliases {aliases}"


@dataclass(frozen=True, kw_only=True)
class Verdicts:
    """The list in build/verdict.json."""

    verdicts: tuple[Verdict, ...]


def connect(settings: Settings, experiment: str) -> Registry:
    """Open the store of a project and point MLflow's fluent API at it.

    Local stores keep artifacts under the git root's mlartifacts/, whatever folder one works in.

    Raises:
        StoreError: MLflow does not answer.
    """
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    for chatty in ("mlflow.transformers", "mlflow.store.db.utils"):  # model cards of the hub, table migrations
        logging.getLogger(chatty).setLevel(logging.ERROR)
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    if settings.artifacts:
        read_directly(Storage(tracking_uri=settings.tracking_uri, destination=settings.artifacts))
    with reachable():
        mlflow.set_tracking_uri(settings.tracking_uri)
        client = MlflowClient(settings.tracking_uri)
        if client.get_experiment_by_name(experiment) is None:
            local = urlparse(settings.tracking_uri).scheme.split("+")[0] not in ("http", "https", "databricks")
            client.create_experiment(experiment, (settings.root / "mlartifacts" / experiment).as_uri() if local else None)
        mlflow.set_experiment(experiment)
    return Registry(client, experiment, settings.state)


@contextmanager
def _no_collection() -> Iterator[None]:
    """No cycles are made while rows become values, and looking for some in between would cost as much time again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _run_lineage(run: RunRow, logged_models: tuple[str, ...]) -> RunLineage:
    datasets = by_name((each.name, each.digest) for each in run.datasets if each.source_type == DVC)
    models = tuple(sorted({*logged_models, *run.made}))
    return RunLineage(run_id=run.run_id, experiment=run.experiment, datasets=datasets, logged_models=models)
