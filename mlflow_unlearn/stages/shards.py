"""Stage `shards`: the data that may be trained on, cut into one file a shard; a removal changes only the files it touches."""

from __future__ import annotations

from .cutting import cut_shards
from .workbench import Workbench


def run(bench: Workbench) -> str:
    """Write build/raw/shards, family.json and cut.json; without an open request the whole dataset is cut, so that a first family can be trained."""
    return cut_shards(bench)
