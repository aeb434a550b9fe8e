"""The gate on a real Postgres, and over files on S3: an emulated bucket in this process (moto), so that its times say nothing of a network."""

from __future__ import annotations

import math
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from gate_server import Figure, in_turn, pairs, set_and_resolve
from gate_server_world import FEW, Stand, behind, filled, postgres, small
from mlflow import MlflowClient
from mlflow.store.artifact import s3_artifact_repo

from mlflow_unlearn.adapters.file_listings import fingerprint
from mlflow_unlearn.adapters.storage_locations import object_repository
from mlflow_unlearn.lineage import ModelVersion

_KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}


def on_s3(stand: Stand) -> list[Figure]:
    """What following an alias asks S3 for, and how long a listing takes of what it takes."""
    with _bucket() as bucket:
        versions = [_uploaded(stand, stand.few[number], f"m-{number}", bucket) for number in range(2)]
        asked: Counter[str] = Counter()
        events = object_repository("s3://models/m-0")._get_s3_client().meta.events
        events.register("before-call.s3", lambda model, **_: asked.update([model.name]))
        acts = set_and_resolve(stand, versions, "prod")
        follow = acts[1][0]
        follow()
        asked.clear()
        follow()
        once = Counter(asked)
        point, found = pairs(acts)
        [(listed, listed_cpu)] = in_turn([lambda: fingerprint("s3://models/m-0")])
    beyond = found.added - listed, found.added_cpu - listed_cpu
    listings = sum(count for name, count in once.items() if name.startswith("ListObject"))
    return [
        (f"S3 (emulated), {FEW} files: listings when an alias is resolved", 1.0, "listings", listings),
        ("and other questions to S3", math.inf, "questions", sum(once.values()) - listings),
        (
            f"resolve an alias: added beyond the look at the listing (by the clock {beyond[0]:.1f}, in CPU time {beyond[1]:.1f})",
            2.0,
            "ms added, by the smaller",
            min(beyond),
        ),
        ("the look at the listing itself, emulated", math.inf, "ms", listed),
        ("set an alias: added, the look included", math.inf, "ms added", point.added),
    ]


def on_postgres(stand: Stand) -> list[Figure]:
    """The same store, carried over."""
    if shutil.which("initdb") is None and not list(Path("/usr/lib/postgresql").glob("*/bin/initdb")):
        print("no initdb on this machine: Postgres is unmeasured", file=sys.stderr)
        return []
    from test_bypasses_on_postgres import carried_over

    with postgres() as uri:
        carried_over(stand.root / "mlflow.db", uri)
        gated = behind(stand.gated.world, uri)
        moved = Stand(gated=gated, plain=MlflowClient(uri, uri), few=stand.few, many=stand.many)
        point, follow = pairs(set_and_resolve(moved, moved.few))
        for client in (gated.client, moved.plain):
            client._get_registry_client().store.engine.dispose()
    return [
        point.figure(f"Postgres: set an alias, {FEW} files, digests cached", 8.0),
        follow.figure(f"Postgres: resolve an alias, {FEW} files", 2.0),
    ]


@contextmanager
def _bucket() -> Iterator[Any]:
    """A client of an account with one bucket, `models`."""
    import boto3
    from moto import mock_aws

    os.environ.update(_KEYS)
    os.environ.pop("MLFLOW_S3_ENDPOINT_URL", None)
    with mock_aws():
        s3_artifact_repo._cached_get_s3_client.cache_clear()
        client = boto3.client("s3")
        client.create_bucket(Bucket="models")
        yield client
        s3_artifact_repo._cached_get_s3_client.cache_clear()


def _uploaded(stand: Stand, like: ModelVersion, prefix: str, bucket: Any) -> ModelVersion:
    """The files of a version, as a version of their own on S3 whose lineage is signed."""
    world = stand.gated.world
    client = world.bench.registry.client
    known = client.get_model_version(like.name, like.version)
    folder = Path(known.source.removeprefix("file://"))
    filled(folder, FEW)
    for path in folder.iterdir():
        bucket.upload_file(str(path), "models", f"{prefix}/{path.name}")
    made = client.create_model_version(like.name, f"s3://models/{prefix}", known.run_id, await_creation_for=0)
    model = ModelVersion(name=like.name, version=str(made.version))
    world.attest(model)
    return model


def measure(acts: tuple[str, ...] = ("postgres", "s3")) -> list[Figure]:
    """(what, target, unit, measured) of each figure."""
    with tempfile.TemporaryDirectory() as home:
        stand = small(Path(home))
        rows = [row for act in acts for row in (on_postgres if act == "postgres" else on_s3)(stand)]
        os.chdir("/")
    return rows


if __name__ == "__main__":
    from run import shown

    for row in measure(tuple(sys.argv[1:]) or ("postgres", "s3")):
        shown(row)
