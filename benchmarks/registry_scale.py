"""Lineages of 20,000 registered versions, each with three tags, a run that read a dataset under DVC, and a logged model, in one sqlite store."""

from __future__ import annotations

import sqlite3
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from mlflow_unlearn.adapters.registry import Registry, connect
from mlflow_unlearn.config import Settings
from mlflow_unlearn.lineage import DatasetRevision, Trace
from mlflow_unlearn.records import Basis, Effect, ErasureRequest
from mlflow_unlearn.trace import Evidence, trace

VERSIONS, MODELS, STATES = 20_000, 200, 50
MD5S = [f"{state:032x}.dir" for state in range(STATES)]
LOGGED = {"experiment_id": 0, "name": "model", "creation_timestamp_ms": 1, "last_updated_timestamp_ms": 1, "status": 2, "lifecycle_stage": "active"}


def fill(path: Path) -> None:
    """Rows as MLflow writes them, all at once: version k of a model is fine-tuned from version k - 1 in every second model."""
    number = VERSIONS // MODELS
    every = [(f"model-{model:03d}", version, f"{model:016x}{version:016x}") for model in range(MODELS) for version in range(1, number + 1)]
    tags = {"unlearn.claim": "approximate", "unlearn.split": "0" * 64, "owner": "platform"}
    rows = {
        "registered_models": [{"name": f"model-{model:03d}"} for model in range(MODELS)],
        "model_versions": [
            {"name": n, "version": v, "current_stage": "None", "source": f"models:/m-{run}", "run_id": run, "status": "READY"} for n, v, run in every
        ],
        "model_version_tags": [{"name": n, "version": v, "key": key, "value": value} for n, v, _ in every for key, value in tags.items()],
        "registered_model_aliases": [{"name": f"model-{model:03d}", "alias": "champion", "version": 1} for model in range(MODELS)],
        "runs": [
            {"run_uuid": run, "name": "r", "experiment_id": 0, "status": "FINISHED", "lifecycle_stage": "active", "end_time": 2} for *_, run in every
        ],
        "tags": [{"run_uuid": run, "key": key, "value": "x"} for *_, run in every for key in ("mlflow.user", "unlearn.git.commit")],
        "params": [{"run_uuid": run, "key": "learning_rate", "value": "0.1"} for *_, run in every],
        "datasets": [
            {"dataset_uuid": f"d{k}", "experiment_id": 0, "name": "customers", "digest": digest, "dataset_source_type": "dvc", "dataset_source": "{}"}
            for k, digest in enumerate(MD5S)
        ],
        "inputs": [edge("DATASET", f"d{k % STATES}", "RUN", run) for k, (*_, run) in enumerate(every)]
        + [
            edge("RUN_INPUT", run, "MODEL_INPUT", f"m-{every[k - 1][2]}")
            for k, (_, version, run) in enumerate(every)
            if version > 1 and (k // number) % 2
        ],
        "logged_models": [
            {"model_id": f"m-{run}", "artifact_location": f"{path.parent}/models/m-{run}/artifacts", "source_run_id": run, **LOGGED}
            for *_, run in every
        ],
    }
    with sqlite3.connect(path) as store:
        for table, values in rows.items():
            columns = ", ".join(values[0])
            marks = ", ".join(f":{column}" for column in values[0])
            store.executemany(f"insert into {table} ({columns}) values ({marks})", values)


def edge(kind: str, source: str, other: str, target: str) -> dict[str, object]:
    """A row of MLflow's table of inputs and outputs."""
    return {
        "input_uuid": f"{kind[:5]}{target[2:]}"[:36],
        "source_type": kind,
        "source_id": source,
        "destination_type": other,
        "destination_id": target,
    }


def store(folder: Path) -> Registry:
    """An empty store, filled, and connected to as every command does."""
    settings = Settings(root=folder, tag_key_file=folder / "tag.key", ledger_uri="sqlite://", tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    registry = connect(settings, "bench")
    fill(folder / "mlflow.db")
    return registry


def cpu(act: Callable[[], object]) -> float:
    """CPU seconds of this process for one call."""
    started = time.process_time()
    act()
    return time.process_time() - started


def whole_trace(registry: Registry) -> Trace:
    """Everything but the record index: lineages, the runs on the tainted data, and the verb; half the dataset revisions hold the records."""
    states = {md5: DatasetRevision(name="customers", path="data", md5=md5, revisions=("main",)) for md5 in MD5S}
    matches = dict.fromkeys(MD5S[::2], 3)
    received = datetime(2026, 1, 1, tzinfo=UTC)
    request = ErasureRequest(request_id="er-1", basis=Basis.GDPR_17, effect=Effect.REMOVAL, received_at=received, due_at=None, records=("0" * 32,))
    return trace(Evidence(requests=[request], versions=registry.lineages(), states=states, matches=matches, runs=registry.runs_on(matches)))


def measure() -> list[tuple[str, float, str, float]]:
    """(what, target, unit, measured) of each figure."""
    with tempfile.TemporaryDirectory() as folder:
        registry = store(Path(folder))
        registry.lineages()
        return [
            (f"lineages of {VERSIONS:,} versions, second look", 1.5, "CPU s", min(cpu(registry.lineages) for _ in range(3))),
            (f"trace over {VERSIONS:,} versions", 2.0, "CPU s", min(cpu(lambda: whole_trace(registry)) for _ in range(3))),
        ]
