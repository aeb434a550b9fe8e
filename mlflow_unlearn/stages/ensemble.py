"""Stage `ensemble`: all shards side by side as one model, with what it stands on and who answers."""

from __future__ import annotations

from .ensembling import assemble
from .workbench import Workbench


def run(bench: Workbench) -> str:
    """Write build/exact/model."""
    return assemble(bench)
