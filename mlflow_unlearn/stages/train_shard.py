"""Stage `train_shard`: one shard's weights, from the last slice that saw nothing of what has left."""

from __future__ import annotations

from .shard_training import train_shard
from .workbench import Workbench


def run(bench: Workbench, shard: int) -> str:
    """Bring build/exact/shards/SHARD up to date."""
    return train_shard(bench, shard)
