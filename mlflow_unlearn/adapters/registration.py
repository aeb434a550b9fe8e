"""An unlearned model into MLflow: one run, one logged model, one version with its lineage, figures and verdict. Repeating it changes nothing.

The version is created last and carries the digest of its evidence: a kill before leaves at most a run without a version, which the next attempt
removes; afterwards the version is found and kept.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
from mlflow.data.dataset_source_registry import get_dataset_source_from_json
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import RunStatus
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS

from ..commitments import SCHEMA, Commitments
from ..digests import sha256_json
from ..documents import encode
from ..lineage import ModelVersion
from ..records import Evaluation, ModelReport, Outcome, Registered, Unlearned, Verdict
from .lineage_record import write_lineage_record
from .registry import DATASET_TAG, DOCUMENTS, VERDICT_TAG, Registry, Verdicts, by_name

__all__ = ["EVIDENCE", "Evidence", "Verdicts", "find", "register"]

EVIDENCE = "unlearn.evidence"
_STATES = {"before": "before/", "after": "", "after_finetune": "finetuned/"}
_COMPARED = ("exact_match", "probability")
"""What is logged of the parent and of the fine-tuned state; evaluation.json among the artifacts has all of it."""
_SET_NAMES = {"requested": "forget", "requested_paraphrased": "forget_paraphrased"}


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Everything that goes with the weights."""

    unlearned: Unlearned
    evaluation: Evaluation
    verdicts: tuple[Verdict, ...]
    description: str
    documents: tuple[Path, ...]
    """The stage documents to keep beside the model: counts, digests and keyed tags, no texts."""
    docs: Path
    """Great Expectations' Data Docs."""
    commitments: Commitments | None = None
    """To the parent's data and what of them was retained; a new key makes them other bytes, not other evidence."""

    @property
    def digest(self) -> str:
        """What makes two registrations the same: weights, figures and verdicts."""
        return sha256_json([self.unlearned.tensor_digest, encode(self.evaluation), encode(self.verdicts)])


def find(registry: Registry, name: str, evidence: Evidence) -> Registered | None:
    """The version that carries this evidence already."""
    found = registry.client.search_model_versions(f"name = '{name}' AND tag.`{EVIDENCE}` = '{evidence.digest}'")
    return _registered(evidence, found[0]) if found else None


def register(registry: Registry, name: str, evidence: Evidence, folder: Path) -> Registered:
    """Log the model in `folder` and register it; to be called when `find` found nothing."""
    _remove_unfinished(registry, evidence)
    with _run(registry, evidence):
        inputs = _log_inputs(evidence)
        info = _log_model(folder, evidence.unlearned)
        mlflow.log_params(_parameters(evidence.unlearned))
        mlflow.log_metrics(_metrics(evidence.evaluation), model_id=info.model_id, dataset=inputs)
        _log_curve(evidence.unlearned)
        for path in evidence.documents:
            mlflow.log_artifact(str(path), DOCUMENTS)
        if evidence.commitments is not None:
            mlflow.log_dict({"schema": SCHEMA, **encode(evidence.commitments)}, f"{DOCUMENTS}/commitment.json")
        if evidence.docs.is_dir():
            mlflow.log_artifacts(str(evidence.docs), "validation")
    write_lineage_record(registry.client, info.run_id)
    return _registered(evidence, _version(registry, name, evidence, info))


def _version(registry: Registry, name: str, evidence: Evidence, info: Any) -> Any:
    """Tags and description come into being with the version: a kill leaves all of it or nothing. The link back only serves MLflow's pages."""
    try:
        registry.client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    version = registry.client.create_model_version(
        name, info.model_uri, info.run_id, tags=_tags(evidence), description=evidence.description, model_id=info.model_id
    )
    link = json.dumps([{"name": name, "version": version.version}])
    registry.client.set_logged_model_tags(info.model_id, {MLFLOW_MODEL_VERSIONS: link})
    return version


def _log_model(folder: Path, unlearned: Unlearned) -> Any:
    from . import models  # torch, which a look at the registry must not pay for

    with models.quiet():
        return mlflow.transformers.log_model(
            transformers_model={"model": models.load_model(folder, "cpu"), "tokenizer": models.load_tokenizer(folder)},
            name="model",
            task="text-generation",
            pip_requirements=models.requirements(),
            params={key: str(value) for key, value in _parameters(unlearned).items()},
        )


@contextmanager
def _run(registry: Registry, evidence: Evidence) -> Iterator[None]:
    mlflow.set_experiment(registry.experiment)
    title = f"unlearn {evidence.unlearned.parent.model.version} ({evidence.unlearned.method.get('name')})"
    tags = {EVIDENCE: evidence.digest, "unlearn.request": ",".join(evidence.unlearned.requests)}
    with mlflow.start_run(run_name=title, tags=tags):
        yield


def _remove_unfinished(registry: Registry, evidence: Evidence) -> None:
    """Runs of this evidence behind which no version stands, and what they logged as a model."""
    client = registry.client
    experiments = [client.get_experiment_by_name(registry.experiment).experiment_id]
    for run in client.search_runs(experiments, f"tags.`{EVIDENCE}` = '{evidence.digest}'"):
        run_id = run.info.run_id
        if client.search_model_versions(f"run_id = '{run_id}'"):
            continue
        for model in client.search_logged_models(experiments, f"source_run_id = '{run_id}'"):
            client.delete_logged_model(model.model_id)
        client.set_terminated(run_id, RunStatus.to_string(RunStatus.KILLED))
        client.delete_run(run_id)


def _log_inputs(evidence: Evidence) -> Any:
    """Every dataset revision the weights descend from; the last one is what the figures refer to."""
    dataset = None
    for state in evidence.unlearned.parent.datasets:
        revision = next((name for name in state.revisions if name != "workspace"), None)
        described = json.dumps({"path": state.path, "md5": state.md5, "rev": revision})
        source = get_dataset_source_from_json(described, source_type="dvc")  # MLflow finds our plugin by its entry point
        dataset = MetaDataset(source, name=state.name, digest=state.md5)
        mlflow.log_input(dataset, context="unlearned from")
    return dataset


def _tags(evidence: Evidence) -> dict[str, str]:
    unlearned = evidence.unlearned
    verdicts = {f"{VERDICT_TAG}{verdict.effect.value}": verdict.outcome.value for verdict in evidence.verdicts}
    return {
        **{f"{DATASET_TAG}{name}": md5 for name, md5 in by_name((state.name, state.md5) for state in unlearned.parent.datasets).items()},
        **(evidence.commitments.tags() if evidence.commitments else {}),
        **verdicts,
        "unlearn.verdict": verdicts[f"{VERDICT_TAG}removal"],
        "unlearn.parent": str(unlearned.parent.model),
        "unlearn.request": ",".join(unlearned.requests),
        "unlearn.claim": unlearned.claim.value,
        "unlearn.tensor_digest": unlearned.tensor_digest,
        "unlearn.split": unlearned.split_digest,
        EVIDENCE: evidence.digest,
    }


def _parameters(unlearned: Unlearned) -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in unlearned.method.items():
        flat |= {f"{key}.{name}": inner for name, inner in value.items()} if isinstance(value, Mapping) else {key: value}
    kept = unlearned.steps if unlearned.kept_step is None else unlearned.kept_step
    return {f"unlearn.{key}": value for key, value in flat.items()} | {"steps": unlearned.steps, "kept_step": kept, "stopped": unlearned.stopped}


def _metrics(evaluation: Evaluation) -> dict[str, float]:
    metrics = {f"utility/{name}": score.value for name, score in evaluation.utility.items()}
    for state, prefix in _STATES.items():
        report: ModelReport = getattr(evaluation, state)
        for name, scores in report.scores.items():
            shown = scores if state == "after" else {metric: scores[metric] for metric in _COMPARED if metric in scores}
            metrics |= {f"{prefix}{_SET_NAMES.get(name, name)}/{metric}": score.value for metric, score in shown.items()}
        for test in report.canaries:
            metrics |= {f"{prefix}canaries/{test.attack}_auc": test.auc.value, f"{prefix}canaries/{test.attack}_epsilon": test.epsilon}
    return metrics


def _log_curve(unlearned: Unlearned) -> None:
    for step, losses in enumerate(unlearned.losses, start=1):
        mlflow.log_metrics({f"steps/{name}": value for name, value in losses.items()}, step=step)


def _registered(evidence: Evidence, version: Any) -> Registered:
    return Registered(
        requests=evidence.unlearned.requests,
        model=ModelVersion(name=version.name, version=str(version.version)),
        parent=evidence.unlearned.parent.model,
        tensor_digest=evidence.unlearned.tensor_digest,
        run_id=version.run_id,
        claim=evidence.unlearned.claim,
        verdicts={verdict.effect.value: Outcome(verdict.outcome) for verdict in evidence.verdicts},
    )
