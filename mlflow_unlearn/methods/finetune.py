"""Training on, without the forgotten records."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from ..engine.descent import fit
from ..errors import ConfigError
from ..protocols import Progress, Task
from ..records import Claim


@dataclass(frozen=True, kw_only=True)
class Finetune:
    """Trains the parent further on the retained records alone and leaves the rest to forgetting by itself: a baseline.

    L = mean-token NLL on retain, over `optimiser.epochs` passes of it.

    Paper: the baseline "fine-tune" of Golatkar, Achille and Soatto 2020, "Eternal Sunshine of the Spotless Net: Selective Forgetting in Deep
    Networks" (arXiv:1911.04933), who let a slightly larger learning rate than that of training do the forgetting.

    Does not guarantee that anything is forgotten: nothing pushes the forgotten records out, and a model large enough to hold both keeps them. An
    epoch costs as much as one of training.
    """

    claim: ClassVar[Claim] = Claim.APPROXIMATE

    def steps(self, task: Task) -> Iterator[Progress]:
        """Train `task.model` with `task.optimiser`, whose epochs are passes over retain.

        Raises:
            ConfigError: there is nothing to train on.
        """
        if not task.retain:
            raise ConfigError("finetune: trains on the retained records alone, found none; choose another method")
        yield from fit(task.model, task.retain, task.optimiser, task.seed, task.pad, task.machine)


EXPORT = Finetune
