"""MLflow's registry and tracking store: lineage out, weights out, unlearned versions in. Nothing here imports torch until a model is logged."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlparse

import mlflow
from mlflow import MlflowClient
from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException

from ..config import Settings
from ..digests import tensor_digest
from ..documents import decode
from ..errors import LineageError, StoreError, TamperedError
from ..lineage import Descent, ModelVersion, Relation, VersionLineage
from ..records import Verdict

DATASET_TAG, VERDICT_TAG = "unlearn.dvc.", "unlearn.verdict."
DOCUMENTS = "unlearn"
"""Artifact folder of a run that holds the stage documents."""
UNREADABLE = "no DVC dataset was logged with it: add mlflow.log_input(mlflow.data.from_dvc(PATH)) to its training"
BASE_TAG = "unlearn.base"
"""On a run: tensor digest of the local model that training started from."""
UNKNOWN_BASE = "it was trained from a local model that is no registered version, and nobody knows what that one saw"
_PAGE = 1000
_RUNS_A_QUERY = 200
_CREDENTIALS = re.compile(r"//[^/@\s]*@")
"""User and password of a URI, in MLflow's own messages too."""


@dataclass(frozen=True, kw_only=True)
class ModelFiles:
    """Where a version's files are on this machine."""

    model: Path
    tokenizer: Path

    @property
    def weights(self) -> tuple[Path, ...]:
        """The safetensors files."""
        return tuple(sorted(self.model.glob("*.safetensors")))


@dataclass(frozen=True)
class Registry:
    """A connection; MLflow's fluent API is pointed at the same store."""

    client: MlflowClient
    experiment: str

    def lineages(self, name: str | None = None) -> tuple[VersionLineage, ...]:
        """What is known of every version of every registered model, or of one."""
        with _reachable():
            aliases = self._aliases(name)
            found = self._versions(name)
            runs = self._runs({version.run_id for version in found if version.run_id and not _datasets(version.tags)})
            lineages = [self._lineage(version, runs, aliases.get((version.name, str(version.version)), ())) for version in found]
            bases = {lineage.model: _base(version, runs) for version, lineage in zip(found, lineages, strict=True)}
        return tuple(self._with_base(lineage, bases[lineage.model]) for lineage in lineages)

    def resolve(self, uri: str) -> ModelVersion:
        """`models:/NAME/VERSION` or `models:/NAME@ALIAS` as a version.

        Raises:
            LineageError: malformed, or no such model, version or alias; lists what there is.
        """
        name, version, alias = _parsed(uri)
        with _reachable():
            try:
                found = self.client.get_model_version_by_alias(name, alias) if alias else self.client.get_model_version(name, str(version))
            except MlflowException as error:
                raise LineageError(f"{uri}: {self._what_there_is(name)}") from error
        return ModelVersion(name=name, version=str(found.version))

    def files(self, model: ModelVersion) -> ModelFiles:
        """Model and tokenizer of a version, downloaded where they are not local.

        Raises:
            LineageError: it was not logged with MLflow's transformers flavor as safetensors.
        """
        with _reachable():
            source = self.client.get_model_version(model.name, model.version).source
            root = Path(mlflow.artifacts.download_artifacts(artifact_uri=source, tracking_uri=self.client.tracking_uri))
        files = ModelFiles(model=root / "model", tokenizer=root / "components" / "tokenizer")
        if not files.weights:
            raise LineageError(f"{model}: no safetensors under {root.name}/model; log it with mlflow.transformers.log_model")
        return files if files.tokenizer.is_dir() else ModelFiles(model=files.model, tokenizer=files.model)

    def tensor_digest(self, model: ModelVersion) -> str:
        """Digest of the weights as they lie in the artifact store now."""
        return tensor_digest(self.files(model).weights)

    def training_commit(self, model: ModelVersion) -> str | None:
        """Git commit that was checked out when a version, or the first of its unlearned ancestors, was trained; None where no run says."""
        lineages = {lineage.model: lineage for lineage in self.lineages(model.name)}
        seen: set[ModelVersion] = set()
        while model not in seen and model in lineages and lineages[model].requests and (parent := lineages[model].parent):
            seen.add(model)
            model = parent
        with _reachable():
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
        """A stage document that was logged with a version, e.g. `verdict` or `evaluation`."""
        with _reachable():
            run_id = self.client.get_model_version(model.name, model.version).run_id
            try:
                path = mlflow.artifacts.download_artifacts(
                    run_id=run_id, artifact_path=f"{DOCUMENTS}/{name}.json", tracking_uri=self.client.tracking_uri
                )
            except (MlflowException, OSError):
                return None
        return cast(dict[str, Any], json.loads(Path(path).read_bytes()))

    def _versions(self, name: str | None) -> list[Any]:
        found: list[Any] = []
        token = None
        while True:
            page = self.client.search_model_versions(f"name = '{name}'" if name else None, max_results=_PAGE, page_token=token)
            found += page
            token = page.token
            if not token:
                return found

    def _aliases(self, name: str | None) -> dict[tuple[str, str], tuple[str, ...]]:
        aliases: dict[tuple[str, str], tuple[str, ...]] = {}
        for model in self.client.search_registered_models(f"name = '{name}'" if name else None, max_results=_PAGE):
            for alias, version in sorted(model.aliases.items()):
                aliases[model.name, str(version)] = (*aliases.get((model.name, str(version)), ()), alias)
        return aliases

    def _runs(self, run_ids: set[str]) -> dict[str, Any]:
        """Runs by id, deleted ones too, in few queries; one that is gone for good is missing."""
        wanted, runs = sorted(run_ids), {}
        experiments = [each.experiment_id for each in self.client.search_experiments(ViewType.ALL)] if wanted else []
        for start in range(0, len(wanted), _RUNS_A_QUERY):
            listed = ",".join(f"'{run_id}'" for run_id in wanted[start : start + _RUNS_A_QUERY])
            for run in self.client.search_runs(experiments, f"attributes.run_id IN ({listed})", ViewType.ALL, max_results=_RUNS_A_QUERY):
                runs[run.info.run_id] = run
        return runs

    def _lineage(self, version: Any, runs: Mapping[str, Any], aliases: tuple[str, ...]) -> VersionLineage:
        tags: Mapping[str, str] = version.tags
        model = ModelVersion(name=version.name, version=str(version.version))
        datasets, problem = _datasets(tags), None
        if not datasets:
            datasets, problem = self._run_datasets(version.run_id, runs)
        parent = tags.get("unlearn.parent")
        return VersionLineage(
            model=model,
            datasets=datasets,
            ancestors=(Descent(parent=_version(parent), relation=Relation.UNLEARNED, evidence="tag unlearn.parent"),) if parent else (),
            requests=tuple(filter(None, tags.get("unlearn.request", "").split(","))),
            verdict={key.removeprefix(VERDICT_TAG): value for key, value in tags.items() if key.startswith(VERDICT_TAG)},
            tensor_digest=tags.get("unlearn.tensor_digest"),
            aliases=aliases,
            problem=problem,
        )

    def _with_base(self, lineage: VersionLineage, base: str | None) -> VersionLineage:
        """A version fine-tuned from a local model descends from the registered version of these weights; of another, nobody knows what it saw."""
        if base is None or lineage.parent:
            return lineage
        others = (ModelVersion(name=v.name, version=str(v.version)) for v in self._versions(None))
        parent = next((other for other in others if other != lineage.model and self._has_weights(other, base)), None)
        made = (Descent(parent=parent, relation=Relation.FINE_TUNED, evidence="equal weights"),) if parent else ()
        return replace(lineage, ancestors=made, problem=lineage.problem if parent else UNKNOWN_BASE)

    def _has_weights(self, model: ModelVersion, digest: str) -> bool:
        try:
            return self.tensor_digest(model) == digest
        except (LineageError, StoreError, TamperedError):
            return False

    def _run_datasets(self, run_id: str | None, runs: Mapping[str, Any]) -> tuple[dict[str, str], str | None]:
        """Dataset inputs of the source run that lie under DVC; the run's own lineage tags are a hint about its repository, no claim."""
        if not run_id:
            return {}, UNREADABLE
        if run_id not in runs:
            return {}, "its source run no longer exists"
        inputs = [each.dataset for each in runs[run_id].inputs.dataset_inputs]
        datasets = by_name((dataset.name, dataset.digest) for dataset in inputs if dataset.source_type == "dvc")
        foreign = sorted({dataset.name for dataset in inputs if dataset.source_type != "dvc"})
        if foreign:
            return datasets, f"it also learned from {len(foreign)} datasets that are not under DVC"
        return datasets, None if datasets else UNREADABLE

    def _what_there_is(self, name: str) -> str:
        try:
            model = self.client.get_registered_model(name)
        except MlflowException:
            known = sorted(model.name for model in self.client.search_registered_models())
            return f"no registered model called {name}; there are: {', '.join(known) or 'none'}"
        versions = sorted((str(version.version) for version in self._versions(name)), key=int)
        aliases = ", ".join(f"@{alias}" for alias in sorted(model.aliases)) or "none"
        return f"no such version or alias; {name} has versions {', '.join(versions) or 'none'} and aliases {aliases}"


@dataclass(frozen=True, kw_only=True)
class Verdicts:
    """The list in build/verdict.json."""

    verdicts: tuple[Verdict, ...]


def _datasets(tags: Mapping[str, str]) -> dict[str, str]:
    return {key.removeprefix(DATASET_TAG): value for key, value in tags.items() if key.startswith(DATASET_TAG)}


def by_name(states: Iterable[tuple[str, str]]) -> dict[str, str]:
    """(dataset name, md5) pairs as a mapping in which no state hides another: where a name has several, `name/first digits of the md5`."""
    known = sorted(set(states))
    names = [name for name, _ in known]
    return {name if names.count(name) == 1 else f"{name}/{md5[:8]}": md5 for name, md5 in known}


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
    with _reachable():
        mlflow.set_tracking_uri(settings.tracking_uri)
        client = MlflowClient(settings.tracking_uri)
        if client.get_experiment_by_name(experiment) is None:
            local = urlparse(settings.tracking_uri).scheme.split("+")[0] not in ("http", "https", "databricks")
            client.create_experiment(experiment, (settings.root / "mlartifacts" / experiment).as_uri() if local else None)
        mlflow.set_experiment(experiment)
    return Registry(client, experiment)


class _reachable:  # noqa: N801 - reads as `with _reachable():`
    """Turns what MLflow raises when its store does not answer into one line."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        from requests.exceptions import RequestException
        from sqlalchemy.exc import SQLAlchemyError

        if isinstance(error, (RequestException, SQLAlchemyError, MlflowException, ModuleNotFoundError)):  # the last: a database's driver
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            line = f"MLflow at {mlflow.get_tracking_uri()} does not answer: {reason}; check MLFLOW_TRACKING_URI and that the server runs"
            raise StoreError(_CREDENTIALS.sub("//", line)) from error


def _parsed(uri: str) -> tuple[str, str | None, str | None]:
    body = uri.removeprefix("models:/")
    name, slash, version = body.rpartition("/")
    if body != uri and slash and name and version.isdigit():
        return name, version, None
    name, at, alias = body.rpartition("@")
    if body != uri and at and name and alias:
        return name, None, alias
    raise LineageError(f"{uri}: expected models:/NAME/VERSION or models:/NAME@ALIAS")


def _base(version: Any, runs: Mapping[str, Any]) -> str | None:
    run = runs.get(version.run_id)
    return run.data.tags.get(BASE_TAG) if run is not None else None


def _version(text: str) -> ModelVersion:
    name, _, version = text.rpartition("/")
    return ModelVersion(name=name, version=version)
