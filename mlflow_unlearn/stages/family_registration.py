"""What the stage `register` needs for an ensemble of shards: their logs, where the base lies, and a family that was trained without a request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..adapters import registration
from ..review import describe_trained
from .attesting import attested
from .cutting import read_cut
from .ensembling import logs_of
from .families import TRAINING, exact_params, shard_folder
from .shared_parts import base_apart
from .workbench import Workbench


def register_family(bench: Workbench) -> str:
    """Register build/exact/model as a trained version, unless one has these weights already; one line for the user."""
    family, cut = read_cut(bench)
    name, folder = bench.params.model.name, bench.route / "model"
    found = registration.find_trained(bench.registry, name, folder)
    if found is not None:
        return f"no open request; {found.model} has these weights already; {attested(bench, found.model)}"
    known = of_ensemble(bench)
    trained = registration.Trained(
        weights=registration.Weights(folder=folder, base=known["base"], base_apart=known["base_apart"]),
        datasets=cut.datasets,
        shard_logs=known["shard_logs"],
        description=describe_trained(logs_of(bench, family), bench.params.data.name),
    )
    made = registration.register_trained(bench.registry, name, trained)
    return f"no open request; {made.model} registered as trained: family {made.family[:8]}; {attested(bench, made.model)}"


def of_ensemble(bench: Workbench) -> dict[str, Any]:
    """`datasets`, `shard_logs`, `base` and `base_apart` of registration.Evidence."""
    base, (family, cut) = _local_base(bench), read_cut(bench)
    return {
        "datasets": cut.datasets,
        "shard_logs": {shard: shard_folder(bench, shard) / f"{TRAINING}.json" for shard in range(family.shards)},
        "base": base,
        "base_apart": base is not None and base_apart(bench),
    }


def _local_base(bench: Workbench) -> Path | None:
    folder = bench.folder / exact_params(bench).base
    return folder if folder.is_dir() else None
