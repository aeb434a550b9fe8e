"""What the stage `ensemble` does: the weights of all shards side by side as one model."""

from __future__ import annotations

from collections.abc import Sequence

from ..adapters import ensembles as files
from ..ensembles import EnsembleManifest
from ..errors import ConfigError
from ..exactness import Family, ShardLog
from ..sisa import shard_name
from .cutting import read_cut
from .families import WEIGHTS, base_of, exact_params, shard_folder, shard_log
from .workbench import Workbench


def assemble(bench: Workbench) -> str:
    """Write build/exact/model: one file a shard, the tokenizer and ensemble.json.

    Raises:
        ConfigError: a shard is not trained, or belongs to another family.
    """
    family, _ = read_cut(bench)
    logs, base = logs_of(bench, family), base_of(bench)
    manifest = EnsembleManifest(
        family=family.family,
        kind="weights" if exact_params(bench).lora is None else "adapters",
        task="classification" if base.task == "classification" else "causal",
        shards=family.shards,
        slices=family.slices,
        empty=tuple(log.shard for log in logs if log.empty),
        aggregation=exact_params(bench).aggregation,
        template=bench.params.data.template,
        lora=exact_params(bench).lora,
        dtype=bench.params.unlearn.dtype,
        base=family.base,
        digests={shard_name(log.shard): log.tensor_digest for log in logs if not log.empty},
    )
    weights = {shard: shard_folder(bench, shard) / WEIGHTS for shard in manifest.alive}
    files.write(bench.route / "model", manifest, weights, base)
    return f"family {family.family[:8]}: {len(manifest.alive)} shards answer" + (f", {len(manifest.empty)} are empty" if manifest.empty else "")


def logs_of(bench: Workbench, family: Family) -> Sequence[ShardLog]:
    """The training logs of all shards.

    Raises:
        ConfigError: a shard is not trained, or belongs to another family.
    """
    found = [(shard, shard_log(bench, shard)) for shard in range(family.shards)]
    missing = [str(shard) for shard, log in found if log is None or (log.shard, log.family) != (shard, family.family)]
    if missing:
        raise ConfigError(f"shards {', '.join(missing)} are not trained for family {family.family[:8]}; run `dvc repro`")
    return [log for _, log in found if log is not None]
