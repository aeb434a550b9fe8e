"""Evidence of an exact claim as the stage `replay` would write it, for 4 shards of which the second was touched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from simulated import PARENT

from mlflow_unlearn.exact_conditions import SHARED
from mlflow_unlearn.exactness import Exactness, Replay, SharedPart
from mlflow_unlearn.records import Claim, Outcome, Unlearned

BEFORE = {f"{shard:03d}": f"{shard}" * 64 for shard in range(4)}
NOW = BEFORE | {"001": "f" * 64}
LOGS = {name: f"log {name}" for name in NOW}
CPU = {"device": "cpu (x86_64)"}
GPU = {"device": "NVIDIA H100"}


def replay(shard: int, *, equal: bool = True, differences: tuple[str, ...] = (), device: str = CPU["device"]) -> Replay:
    logged = NOW[f"{shard:03d}"]
    return Replay(shard=shard, logged=logged, found=logged if equal else "e" * 64, log=LOGS[f"{shard:03d}"], differences=differences, device=device)


def part(name: str, holds: bool | None = True) -> SharedPart:
    return SharedPart(name=name, holds=holds, detail=f"looked at {name}")


def sound() -> Exactness:
    """Everything there and as it should be."""
    return Exactness(
        family="a" * 64,
        shards=4,
        slices=2,
        touched=(1,),
        digests=NOW,
        logs=LOGS,
        before=BEFORE,
        replays=tuple(replay(shard) for shard in range(4)),
        shared=tuple(part(name) for name in SHARED),
        purge={"0" * 32: "build/exact/shards/1/weights.safetensors"},
    )


def made(claim: Claim, exactness: Exactness | None = None, environment: Mapping[str, str] = CPU) -> Unlearned:
    """The run behind the evaluations of `simulated`."""
    return Unlearned(
        requests=("er-1",),
        parent=PARENT,
        tensor_digest="d" * 64,
        split_digest="e" * 64,
        method={"name": "sisa"},
        claim=claim,
        steps=10,
        seconds=2.0,
        stopped="all slices done",
        environment=environment,
        exactness=exactness,
    )


BREAKS: dict[str, tuple[dict[str, Any], str, Outcome]] = {
    "a log that names a forgotten record": ({"holding": (1,)}, "forgotten records", Outcome.FAIL),
    "an untouched shard that changed": ({"touched": (2,)}, "untouched shards", Outcome.FAIL),
    "an untouched shard that is gone": ({"before": {**sound().before, "004": "9" * 64}}, "untouched shards", Outcome.FAIL),
    "no shard with weights": ({"digests": {}, "before": {}}, "forgotten records", Outcome.INCONCLUSIVE),
    "no replay": ({"replays": ()}, "replay", Outcome.INCONCLUSIVE),
    "a replay of other weights": ({"replays": tuple(replace(each, logged="9" * 64) for each in sound().replays)}, "replay", Outcome.INCONCLUSIVE),
    "an unequal replay beside an equal one": ({"replays": (replay(1, equal=False), *sound().replays)}, "replay", Outcome.FAIL),
    "an unequal replay": ({"replays": tuple(replay(shard, equal=False) for shard in range(4))}, "replay", Outcome.FAIL),
    "a base that saw them": ({"shared": (part(SHARED[0], False), *sound().shared[1:])}, "shared state", Outcome.FAIL),
    "a base nobody knows": (
        {"shared": tuple(part(name, None if name == "base model" else True) for name in SHARED)},
        "shared state",
        Outcome.INCONCLUSIVE,
    ),
    "a part nobody speaks of": ({"shared": sound().shared[1:]}, "shared state", Outcome.INCONCLUSIVE),
}
"""What is wrong -> the fields of Exactness that differ, the condition that it breaks, and the verdict."""
