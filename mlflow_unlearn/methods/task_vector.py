"""Negation of a task vector."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch

from ..engine.descent import fit
from ..engine.machine import Machine
from ..errors import ConfigError
from ..protocols import Progress, Task
from ..records import Claim


@dataclass(frozen=True, kw_only=True)
class TaskVector:
    """Learns the forgotten records still better, then steps from the parent in the opposite direction.

    theta = theta_parent - scale * (theta_finetuned - theta_parent), where theta_finetuned descended the mean-token NLL on forget.

    Paper: Ilharco et al. 2023, "Editing Models with Task Arithmetic" (arXiv:2212.04089), section 3 ("Forgetting via Negation"). The parent has
    learned the records already, as in the baseline "Task Vector" of Shi et al. 2024, "MUSE" (arXiv:2407.06460), which has scale 1.

    With LoRA the vector is that of the product B A: of the two factors the one that began as zero is negated and the other stays fine-tuned, which is
    exact, (-scale B) A = -scale (B A); negating the movement of both would not be.

    Does not guarantee that anything is forgotten, nor that the model survives: no retained record is looked at, and nothing bounds the step. Ilharco
    et al. choose the scale on held-out data; here it is a setting, and no tuning data are looked at: only the end of the run is a result.
    """

    claim: ClassVar[Claim] = Claim.APPROXIMATE

    scale: float = 1.0
    """How far to go against the vector, in its own lengths: 0 stays at the parent, -1 ends at the fine-tuned model."""

    def __post_init__(self) -> None:
        if not math.isfinite(self.scale):
            raise ConfigError("scale must be a finite number")

    def steps(self, task: Task) -> Iterator[Progress]:
        """Train `task.model` on forget with `task.optimiser`, whose losses are reported; after the last step the weights are the negated ones.

        Raises:
            ConfigError: adapters that do not begin as the identity.
        """
        machine, names = task.machine or Machine(), _negated(task.model)
        worker = machine.share(task.model)  # before the start is copied: a sharded parameter's copy then lies where the parameter lies
        start = {name: worker.model.get_parameter(name).detach().clone() for name in names}
        for progress in fit(task.model, task.forget, task.optimiser, task.seed, task.pad, replace(machine, share=lambda _: worker)):
            losses = dict(progress.losses)
            yield replace(progress, losses=losses | {"forget": losses.pop("retain")})  # `fit` has one side only and calls it so
        with torch.no_grad():
            for name, value in start.items():
                parameter = worker.model.get_parameter(name)
                parameter.copy_(torch.lerp(value, parameter, -self.scale))


def _negated(model: Any) -> list[str]:
    """Names of the parameters to negate: all that may change, or of each pair of LoRA factors the one that begins as zero."""
    moving = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if not hasattr(model, "get_base_model"):
        return list(moving)
    zero = [name for name, parameter in moving.items() if not parameter.any()]
    if 2 * len(zero) != len(moving):
        raise ConfigError(
            f"task_vector: expected fresh LoRA adapters, one factor of each pair zero, found {len(zero)} of {len(moving)} factors zero; merge the "
            "adapters into the parent first, or remove `unlearn.lora` from params.yaml"
        )
    return zero


EXPORT = TaskVector
