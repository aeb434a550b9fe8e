"""One run, one logged model and one version for a folder of weights: complete, or not there. What they mean is `registration`'s.

The version is created last and carries the digest of its evidence: a kill before leaves at most a run without a version, which the next attempt
removes; afterwards the version is found and kept.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlflow
from mlflow.data.dataset_source_registry import get_dataset_source_from_json
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import RunStatus

from ..lineage import DatasetRevision
from ..sisa import shard_name
from .lineage_record import write_lineage_record
from .logged_models import WEIGHTS_TAG, Weights, create_version, log, pinned_base
from .registry import DATASET_TAG, DOCUMENTS, Registry, by_name

EVIDENCE = "unlearn.evidence"
FAMILY_TAG, TOUCHED_TAG = "unlearn.family", "unlearn.shards.touched"
SHARD_LOGS = "shards"
"""Folder among the documents with one training log a shard: `registry.document(version, "shards/007")`."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What one version is made of."""

    title: str
    """Name of its run."""
    evidence: str
    """Digest: two registrations with the same one are the same."""
    weights: Weights
    tensor_digest: str
    datasets: Sequence[DatasetRevision]
    """Every dataset revision that the weights descend from."""
    context: str
    """What the run did with them, for MLflow."""
    description: str
    tags: Mapping[str, str] = field(default_factory=dict)
    """Of the version, beside those of its datasets, weights and evidence."""
    run_tags: Mapping[str, str] = field(default_factory=dict)
    origin: Mapping[str, str] = field(default_factory=dict)
    """`Weights.origin`, on run and version; nothing where all is inherited from a parent."""
    documents: Sequence[Path] = ()
    shard_logs: Mapping[int, Path] = field(default_factory=dict)


def find(registry: Registry, name: str, tag: str, value: str) -> list[Any]:
    """Versions with this tag, the newest first."""
    found = registry.client.search_model_versions(f"name = '{name}' AND tag.`{tag}` = '{value}'")
    return sorted(found, key=lambda each: -int(each.version))


def enter(registry: Registry, name: str, entry: Entry, log_more: Callable[[Any, Any], None] = lambda info, dataset: None) -> Any:
    """Log and register; to be called when `find` found nothing.

    Args:
        registry: where to.
        name: the registered model.
        entry: what.
        log_more: called inside the run with MLflow's info about the logged model and the last dataset.
    """
    _remove_unfinished(registry, entry.evidence)
    mlflow.set_experiment(registry.experiment)
    reference = pinned_base(registry.client, name, entry.weights)
    with mlflow.start_run(run_name=entry.title, tags={EVIDENCE: entry.evidence, **entry.origin, **entry.run_tags}):
        dataset = _log_inputs(entry)
        info = log(entry.weights, reference)
        log_more(info, dataset)
        for path in entry.documents:
            mlflow.log_artifact(str(path), DOCUMENTS)
        _log_shards(entry.shard_logs)
    write_lineage_record(registry.client, info.run_id)
    return create_version(registry.client, name, info, _tags(entry), entry.description)


def _tags(entry: Entry) -> dict[str, str]:
    manifest = entry.weights.manifest
    return {
        **{f"{DATASET_TAG}{name}": md5 for name, md5 in by_name((state.name, state.md5) for state in entry.datasets).items()},
        **({FAMILY_TAG: manifest.family} if manifest else {}),
        **entry.origin,
        **entry.tags,
        WEIGHTS_TAG: entry.tensor_digest,
        EVIDENCE: entry.evidence,
    }


def _log_inputs(entry: Entry) -> Any:
    """Every dataset revision; the last one is what figures refer to."""
    dataset = None
    for state in entry.datasets:
        revision = next((name for name in state.revisions if name != "workspace"), None)
        described = json.dumps({"path": state.path, "md5": state.md5, "rev": revision})
        source = get_dataset_source_from_json(described, source_type="dvc")  # MLflow finds our plugin by its entry point
        dataset = MetaDataset(source, name=state.name, digest=state.md5)
        mlflow.log_input(dataset, context=entry.context)
    return dataset


def _log_shards(logs: Mapping[int, Path]) -> None:
    if logs:
        with _named(logs) as folder:
            mlflow.log_artifacts(str(folder), f"{DOCUMENTS}/{SHARD_LOGS}")


@contextmanager
def _named(logs: Mapping[int, Path]) -> Iterator[Path]:
    """A folder with each log under its shard's name."""
    with tempfile.TemporaryDirectory(prefix="mlflow-unlearn-") as name:
        for shard, path in logs.items():
            shutil.copyfile(path, Path(name, f"{shard_name(shard)}.json"))
        yield Path(name)


def _remove_unfinished(registry: Registry, evidence: str) -> None:
    """Runs of this evidence behind which no version stands, and what they logged as a model."""
    client = registry.client
    experiments = [client.get_experiment_by_name(registry.experiment).experiment_id]
    for run in client.search_runs(experiments, f"tags.`{EVIDENCE}` = '{evidence}'"):
        run_id = run.info.run_id
        if client.search_model_versions(f"run_id = '{run_id}'"):
            continue
        for model in client.search_logged_models(experiments, f"source_run_id = '{run_id}'"):
            client.delete_logged_model(model.model_id)
        client.set_terminated(run_id, RunStatus.to_string(RunStatus.KILLED))
        client.delete_run(run_id)
