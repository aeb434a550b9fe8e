"""Versions with a few bytes of weights in a real store, and statements that somebody in memory signs about them."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput
from safetensors.numpy import save_file
from trusted_keys import Person

from mlflow_unlearn import dsse
from mlflow_unlearn.lineage import ModelVersion
from mlflow_unlearn.verifier.envelopes import IN_TOTO

WEIGHTS = "model/model.safetensors"


def files(folder: Path, value: float = 1.0) -> Path:
    """What MLflow logs for a model, as far as anybody here reads it."""
    (folder / "model").mkdir(parents=True)
    save_file({"w": np.full(4, value, dtype=np.float32)}, folder / WEIGHTS)
    (folder / "MLmodel").write_text("flavors: {}\n")
    (folder / "requirements.txt").write_text("mlflow==3.17.0\nnumpy[all]==2.3.1 ; python_version > '3'\n-e .\n")
    (folder / "python_env.yaml").write_text("python: 3.12.1\nbuild_dependencies:\n")
    return folder


def version(client: MlflowClient, name: str, folder: Path, run_id: str | None = None, **tags: str) -> ModelVersion:
    """A version of the files in a folder; underscores of a tag's name are dots."""
    if name not in {each.name for each in client.search_registered_models()}:
        client.create_registered_model(name)
    made = client.create_model_version(name, folder.as_uri(), run_id, tags={key.replace("_", "."): value for key, value in tags.items()})
    return ModelVersion(name=name, version=str(made.version))


def run(client: MlflowClient, experiment: str, *md5s: str) -> str:
    """A run that learned from states of `train`."""
    run_id: str = client.create_run(client.get_experiment_by_name(experiment).experiment_id).info.run_id
    inputs = [DatasetInput(dataset=Dataset(name="train", digest=md5, source_type="dvc", source="{}")) for md5 in md5s]
    client.log_inputs(run_id, inputs)
    client.set_terminated(run_id)
    return run_id


def envelope(predicate: Any, *signers: Person, kind: str = "https://example.org/any", subject: str = "a" * 64) -> bytes:
    """A statement about anything."""
    payload = dsse.statement(kind, [{"name": ".", "digest": {"sha256": subject}}], predicate)
    return dsse.seal(payload, IN_TOTO, list(signers))


def dated(now: datetime, **body: Any) -> dict[str, Any]:
    """A predicate that is valid for a day."""
    text = {"issued_at": now, "expires_at": now + timedelta(days=1)}
    return {**{key: f"{value:%Y-%m-%dT%H:%M:%SZ}" for key, value in text.items()}, **body}
