"""A model and this process's part in working on it. Alone by default; `sharding.py` has the form that several processes share."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch

from ..protocols import Batch

T = TypeVar("T")


class Worker(torch.nn.Module):
    """One process that holds the whole model."""

    size = 1
    """How many processes work together."""
    rank = 0
    """Which of them this is; 0 writes files and speaks."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, function: Callable[..., T], *args: Any) -> T:
        """`function(model, *args)`: whatever looks at the model's weights goes through here, so that a sharded model can gather them first."""
        return function(self.model, *args)

    def part(self, batch: Batch) -> tuple[Batch, float]:
        """The rows of a micro-batch that this process works on, and what its loss counts so that the processes' gradients add up."""
        return batch, 1.0

    def summed(self, values: Mapping[str, float]) -> dict[str, float]:
        """Values added up over the processes."""
        return dict(values)

    def said(self, value: T) -> T:
        """Rank 0's value, known to all."""
        return value

    def clip(self, most: float) -> float:
        """Scale all gradients down to the global norm `most` if it is larger; returns the norm before, 2-norm over all parameters."""
        return float(torch.nn.utils.clip_grad_norm_([p for p in self.parameters() if p.grad is not None], most))

    def trained(self) -> dict[str, torch.Tensor]:
        """Copies of the parameters that may change, whole, on the processor; every process must ask, rank 0 gets them, others get {}."""
        return {name: p.detach().cpu().clone() for name, p in self.model.named_parameters() if p.requires_grad}

    def restore(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Put back what `trained` gave; every process must ask, rank 0's values count."""
        with torch.no_grad():
            for name, value in weights.items():
                self.model.get_parameter(name).copy_(value)

    def optimiser_state(self, optimiser: torch.optim.Optimizer) -> dict[str, Any]:
        """State dict of the optimiser, whole; every process must ask, rank 0 gets it, others get {}."""
        return optimiser.state_dict()

    def restore_optimiser(self, optimiser: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
        """Put back what `optimiser_state` gave; every process must ask, rank 0's values count."""
        optimiser.load_state_dict(copy.deepcopy(dict(state)))  # the optimiser writes into the moments that it is given
