"""`replay`: a registered version's shards trained once more from their logs, on whatever machine this is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import ensembles
from ..documents import decode, encode
from ..ensembles import EnsembleManifest
from ..errors import ConfigError, LineageError
from ..exactness import ShardLog
from ..lineage import ModelVersion
from ..sisa import shard_name
from ..split import union
from .replaying import records_of, replay
from .tracing import resolve_parent
from .workbench import Workbench


def replay_version(bench: Workbench, uri: str, shards: Sequence[int] | None = None) -> dict[str, Any]:
    """Train shards of a version again from its base and compare tensor digests; what is found is kept for the claim.

    Args:
        bench: the project whose datasets the version was trained on.
        uri: `models:/NAME/VERSION` or `models:/NAME@ALIAS`.
        shards: which; None: all that have weights.

    Returns:
        `version`, `family`, `equal` (all of them) and `shards`, each with both digests, `differences` of the environment and `seconds`.

    Raises:
        LineageError: no ensemble, or its data are unknown.
        ConfigError: no such shard, or no log or base of it.
        DataError: a record of the log is in no dataset revision any more.
        TamperedError: a text is not the one that was trained on.
    """
    version = bench.registry.resolve(uri)
    manifest = _manifest(bench, version)
    logs = [_log(bench, version, shard) for shard in _wanted(manifest, shards)]
    records = union(bench.reader.records(state) for state in resolve_parent(bench, version).datasets)
    found = replay(bench, logs, {log.shard: records_of(log, records) for log in logs}, _base(bench, manifest))
    lines = [encode(each) | {"equal": each.equal} for each in found]
    return {"version": str(version), "family": manifest.family, "equal": all(each.equal for each in found), "shards": lines}


def _manifest(bench: Workbench, version: ModelVersion) -> EnsembleManifest:
    folder = bench.registry.files(version).model
    if not ensembles.is_ensemble(folder):
        raise LineageError(f"{version}: one model and no ensemble of shards, so that there is no log to repeat it from")
    return ensembles.read(folder)


def _wanted(manifest: EnsembleManifest, shards: Sequence[int] | None) -> Sequence[int]:
    if shards is None:
        return manifest.alive
    if absent := sorted(set(shards) - set(manifest.alive)):
        known = ", ".join(map(str, manifest.alive))
        raise ConfigError(f"shard {', '.join(map(str, absent))} has no weights in this version; those that have: {known}")
    return sorted(set(shards))


def _log(bench: Workbench, version: ModelVersion, shard: int) -> ShardLog:
    document = bench.registry.document(version, f"shards/{shard_name(shard)}")
    if document is None:
        raise ConfigError(f"{version}: no training log of shard {shard} was registered with it, so that nobody can repeat it")
    return decode(ShardLog, {key: value for key, value in document.items() if key != "schema"}, f"{version}: shard {shard}")


def _base(bench: Workbench, manifest: EnsembleManifest) -> Any:
    from ..adapters.bases import fetch

    local = bench.folder / manifest.base.reference
    return fetch(str(local) if local.is_dir() else manifest.base.reference)
