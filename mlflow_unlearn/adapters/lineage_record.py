"""What a run's training rests on as one canonical document: the bytes that a signature covers.

Nothing of it is stored when training starts, since datasets are logged later: it is made of what MLflow holds about the run, by anybody, at any
time, and equal whenever that is equal. What is changed afterwards changes the digest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ..digests import canonical_json, sha256_json
from .registry_rows import BASE_MODEL_TAG, BASE_TAG, DVC, PROBLEM_TAG, RELATION_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, Run

SCHEMA = "mlflow-unlearn.lineage/1"
DIGEST_TAG, RECORD_TAG = "unlearn.lineage", "unlearn.lineage.record"
_ROOM = 5000
"""Characters of a run's tag that every store of MLflow keeps."""
_CONTEXT = "mlflow.data.context"
_ORIGIN = (BASE_TAG, BASE_MODEL_TAG, RELATION_TAG)


def lineage_record(run: Run) -> dict[str, Any]:
    """The lineage of a run, as `MlflowClient.get_run` gives it.

    Every dataset input is in it: those under DVC with path, md5 and commit, others by name and digest, so that what was left out of DVC shows.
    Models that the run read and the tags that name a base model are in it too. `made_at` is the start of the run.
    """
    tags = run.data.tags
    inputs = run.inputs.dataset_inputs if run.inputs else []
    models = getattr(run.inputs, "model_inputs", None) or []
    dirty = tags.get("unlearn.git.dirty")
    return {
        "schema": SCHEMA,
        "run": run.info.run_id,
        "made_at": moment_of(run.info.start_time),
        "git": {
            "commit": tags.get("unlearn.git.commit"),
            "dirty": None if dirty is None else dirty == "true",
            "repository": tags.get("unlearn.git.repository"),
        },
        "stage": {what: tags.get(f"unlearn.stage{key}") for what, key in (("name", ""), ("definition", ".definition"), ("params", ".params"))},
        "datasets": _sorted(_dataset(each) for each in inputs if each.dataset.source_type == DVC),
        "other_datasets": _sorted(_other(each) for each in inputs if each.dataset.source_type != DVC),
        "models": sorted(each.model_id for each in models),
        "origin": {key: tags[key] for key in _ORIGIN if key in tags},
        "problem": tags.get(PROBLEM_TAG),
    }


def write_lineage_record(client: MlflowClient, run_id: str) -> str:
    """Put the record and its SHA-256 on the run as tags, and give the digest back: for the end of training, when all data are logged.

    A record too long for a tag leaves the digest alone: `lineage_record` makes the document again. Called twice, it writes the same.
    """
    record = lineage_record(client.get_run(run_id))
    digest, text = sha256_json(record), canonical_json(record).decode()
    client.set_tag(run_id, DIGEST_TAG, digest)
    if len(text) <= _ROOM:
        client.set_tag(run_id, RECORD_TAG, text)
    return digest


def moment_of(milliseconds: int) -> str:
    """A time of MLflow's, in UTC to the millisecond."""
    whole = datetime.fromtimestamp(milliseconds // 1000, UTC).replace(microsecond=milliseconds % 1000 * 1000)
    return whole.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _dataset(each: DatasetInput) -> dict[str, Any]:
    source = _source(each.dataset.source)
    where = {key: source.get(key) for key in ("path", "part", "rev", "repository", "dirty")}
    return {"name": each.dataset.name, "md5": each.dataset.digest, "context": _context(each), **where}


def _other(each: DatasetInput) -> dict[str, Any]:
    return {"name": each.dataset.name, "digest": each.dataset.digest, "context": _context(each), "source_type": each.dataset.source_type}


def _context(each: DatasetInput) -> str | None:
    return next((tag.value for tag in each.tags if tag.key == _CONTEXT), None)


def _source(text: str) -> Mapping[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, Mapping) else {}


def _sorted(entries: Any) -> list[dict[str, Any]]:
    """In the order of their canonical bytes: MLflow promises none. One logged twice is one."""
    unique = {canonical_json(entry): entry for entry in entries}
    return [unique[key] for key in sorted(unique)]
