"""Models into MLflow's registry: unlearned ones with lineage, figures and verdict, families trained without a request, and their interim measures.

Repeating a registration changes nothing: each looks for what it would make.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlflow

from .. import ensembles
from ..commitments import SCHEMA, Commitments
from ..digests import sha256_json, tensor_digest
from ..documents import encode
from ..errors import ConfigError, TamperedError
from ..figures import figures
from ..lineage import DatasetRevision, ModelVersion, Parent
from ..records import Evaluation, Outcome, Registered, Unlearned, Verdict
from .logged_models import WEIGHTS_TAG, Weights
from .registry import DOCUMENTS, VERDICT_TAG, Registry, Verdicts
from .registry_entries import EVIDENCE, FAMILY_TAG, TOUCHED_TAG, Entry, enter
from .registry_entries import find as versions_with

__all__ = [
    "EVIDENCE",
    "Evidence",
    "RegisteredFamily",
    "SwitchedOff",
    "Trained",
    "Verdicts",
    "Weights",
    "find",
    "find_trained",
    "register",
    "register_switched_off",
    "register_trained",
]

INTERIM_TAG, SWITCHED_OFF = "unlearn.interim", "switched-off"


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
    datasets: tuple[DatasetRevision, ...] = ()
    """What an ensemble was cut from, where the parent's data are more: what its base was trained on comes with the base. Empty: the parent's data."""
    shard_logs: Mapping[int, Path] = field(default_factory=dict)
    """Shard -> its training log, for an ensemble."""
    base: Path | None = None
    base_apart: bool = False
    """What `Weights` says of the base of an ensemble."""

    @property
    def digest(self) -> str:
        """What makes two registrations the same: weights, figures and verdicts."""
        return sha256_json([self.unlearned.tensor_digest, encode(self.evaluation), encode(self.verdicts)])


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A family trained without a request."""

    weights: Weights
    datasets: tuple[DatasetRevision, ...]
    """What it was trained on."""
    shard_logs: Mapping[int, Path]
    """Shard -> its training log."""
    description: str


@dataclass(frozen=True, kw_only=True)
class SwitchedOff:
    """An ensemble whose touched shards shall answer no longer, until they are trained again."""

    parent: Parent
    requests: tuple[str, ...]
    shards: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class RegisteredFamily:
    """A version that carries an ensemble on which there is no verdict."""

    model: ModelVersion
    tensor_digest: str
    family: str
    run_id: str


def find(registry: Registry, name: str, evidence: Evidence) -> Registered | None:
    """The version that carries this evidence already."""
    found = versions_with(registry, name, EVIDENCE, evidence.digest)
    return _registered(evidence, found[-1]) if found else None


def register(registry: Registry, name: str, evidence: Evidence, folder: Path) -> Registered:
    """Log the model or ensemble in `folder` and register it; to be called when `find` found nothing."""
    unlearned = evidence.unlearned
    params = _parameters(unlearned)

    def scores(info: Any, dataset: Any) -> None:
        mlflow.log_params(params)
        mlflow.log_metrics(figures(evidence.evaluation), model_id=info.model_id, dataset=dataset)
        _log_curve(unlearned)
        if evidence.commitments is not None:
            mlflow.log_dict({"schema": SCHEMA, **encode(evidence.commitments)}, f"{DOCUMENTS}/commitment.json")
        if evidence.docs.is_dir():
            mlflow.log_artifacts(str(evidence.docs), "validation")

    weights = Weights(folder=folder, base=evidence.base, base_apart=evidence.base_apart, params=params)
    entry = Entry(
        title=f"unlearn {unlearned.parent.model.version} ({unlearned.method.get('name')})",
        evidence=evidence.digest,
        weights=weights,
        tensor_digest=unlearned.tensor_digest,
        datasets=evidence.datasets or unlearned.parent.datasets,
        context="unlearned from",
        description=evidence.description,
        tags=_tags(evidence),
        run_tags={"unlearn.request": ",".join(unlearned.requests)},
        origin=weights.origin,
        documents=evidence.documents,
        shard_logs=evidence.shard_logs,
    )
    return _registered(evidence, enter(registry, name, entry, scores))


def find_trained(registry: Registry, name: str, folder: Path) -> RegisteredFamily | None:
    """The version that has the weights of an ensemble's folder already, trained or unlearned; an interim one does not count."""
    found = [each for each in versions_with(registry, name, WEIGHTS_TAG, _digest(folder)) if INTERIM_TAG not in each.tags]
    return _family(found[-1]) if found else None


def register_trained(registry: Registry, name: str, trained: Trained) -> RegisteredFamily:
    """Register a family trained without a request as a trained version with its lineage; one whose weights are there already is given back.

    Raises:
        ConfigError: the folder holds no ensemble.
    """
    manifest, digest = trained.weights.manifest, _digest(trained.weights.folder)
    if manifest is None:
        raise ConfigError(f"{trained.weights.folder}: no {ensembles.MANIFEST}, so no family; run `dvc repro`")
    if (found := find_trained(registry, name, trained.weights.folder)) is not None:
        return found
    entry = Entry(
        title=f"train family {manifest.family[:8]} ({len(manifest.alive)} shards)",
        evidence=sha256_json(["trained", digest]),
        weights=trained.weights,
        tensor_digest=digest,
        datasets=trained.datasets,
        context="training",
        description=trained.description,
        origin=trained.weights.origin,
        shard_logs=trained.shard_logs,
    )
    return _family(enter(registry, name, entry))


def register_switched_off(registry: Registry, name: str, measure: SwitchedOff) -> RegisteredFamily:
    """Register the parent without its touched shards, in seconds: no training, no evaluation, no verdict. One that is there already is given back.

    Raises:
        LineageError: the parent's files are not there.
        TamperedError: they are not those that were pinned.
        ConfigError: the parent is no ensemble, none of the shards answers now, or none would be left.
    """
    parent = measure.parent
    evidence = sha256_json([SWITCHED_OFF, str(parent.model), sorted(measure.requests), sorted(measure.shards)])
    if found := versions_with(registry, name, EVIDENCE, evidence):
        return _family(found[-1])
    from .ensembles import switch_off

    source = registry.files(parent.model).model
    if not ensembles.is_ensemble(source):
        raise ConfigError(f"{parent.model}: one model and no ensemble, so that no part can be switched off; run `dvc repro`")
    if _digest(source) != parent.tensor_digest:
        raise TamperedError(f"{parent.model}: not the weights that were pinned; restore them")
    with tempfile.TemporaryDirectory(prefix="mlflow-unlearn-") as aside:
        manifest = switch_off(source, measure.shards, Path(aside, "model"))
        entry = Entry(
            title=f"switch off {len(measure.shards)} shards of {parent.model.version}",
            evidence=evidence,
            weights=Weights(folder=Path(aside, "model")),
            tensor_digest=_digest(Path(aside, "model")),
            datasets=parent.datasets,
            context="switched off from",
            description=_interim(measure, manifest),
            tags={
                "unlearn.parent": str(parent.model),
                "unlearn.request": ",".join(measure.requests),
                INTERIM_TAG: SWITCHED_OFF,
                TOUCHED_TAG: ",".join(map(str, sorted(measure.shards))),
            },
            run_tags={"unlearn.request": ",".join(measure.requests)},
        )
        return _family(enter(registry, name, entry))


def _interim(measure: SwitchedOff, manifest: ensembles.EnsembleManifest) -> str:
    off = ", ".join(map(str, manifest.off))
    return (
        f"**Interim measure**, until the exact version follows: {measure.parent.model} without shards {off} of {manifest.shards}. These no longer "
        f"answer; their people, those who asked to be forgotten and all others, are answered by the remaining {len(manifest.alive)} shards as "
        "strangers would be. Nothing was trained and nothing was evaluated: there is no verdict, and the request stays open. "
        "The files of those shards are still in the parent."
    )


def _tags(evidence: Evidence) -> dict[str, str]:
    unlearned = evidence.unlearned
    verdicts = {f"{VERDICT_TAG}{verdict.effect.value}": verdict.outcome.value for verdict in evidence.verdicts}
    touched = {TOUCHED_TAG: ",".join(map(str, unlearned.exactness.touched))} if unlearned.exactness else {}
    return {
        **(evidence.commitments.tags() if evidence.commitments else {}),
        **verdicts,
        **touched,
        "unlearn.verdict": verdicts[f"{VERDICT_TAG}removal"],
        "unlearn.parent": str(unlearned.parent.model),
        "unlearn.request": ",".join(unlearned.requests),
        "unlearn.claim": unlearned.claim.value,
        "unlearn.split": unlearned.split_digest,
    }


def _digest(folder: Path) -> str:
    return tensor_digest(sorted(folder.glob("*.safetensors")))


def _family(version: Any) -> RegisteredFamily:
    return RegisteredFamily(
        model=ModelVersion(name=version.name, version=str(version.version)),
        tensor_digest=version.tags[WEIGHTS_TAG],
        family=version.tags[FAMILY_TAG],
        run_id=version.run_id,
    )


def _parameters(unlearned: Unlearned) -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in unlearned.method.items():
        flat |= {f"{key}.{name}": inner for name, inner in value.items()} if isinstance(value, Mapping) else {key: value}
    kept = unlearned.steps if unlearned.kept_step is None else unlearned.kept_step
    return {f"unlearn.{key}": value for key, value in flat.items()} | {"steps": unlearned.steps, "kept_step": kept, "stopped": unlearned.stopped}


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
