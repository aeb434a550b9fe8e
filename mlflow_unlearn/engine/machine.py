"""Where and how the arithmetic is done. Nothing here changes what is computed, beyond rounding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from .checkpoints import Checkpoints
from .reference_cache import ReferenceCache
from .worker import Worker


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a run may use."""

    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of the arithmetic. Weights that change and their moments stay in float32: an update of 1e-5 is below the rounding of a bfloat16
    weight."""
    activation_checkpointing: Literal["auto", "on", "off"] = "auto"
    """Whether activations are made again in the backward pass; `auto` does so where they would not fit into the accelerator's memory."""
    share: Callable[[Any], Worker] = Worker
    """How the model is shared among processes, once its first weights are in place."""
    checkpoints: Checkpoints | None = None
    """Where to keep the state of the run, so that it goes on after a kill; None keeps none."""
    cache: ReferenceCache | None = None
    """Where what the frozen parent says is kept from run to run; None keeps it in memory only."""
