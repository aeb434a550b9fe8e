"""A loss method at work: what it needs of the parent, the parameters it may change, and the descent. Methods that wrap another one call this too."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ..errors import ConfigError
from ..protocols import Batch, LossMethod, Progress, Task
from .batches import Sets, steps_per_epoch, unlearning_plan
from .descent import Descent, descend
from .layers import require_layer
from .machine import Machine
from .reference import Asked, reference_of
from .selection import Selection


def forget_by_loss(task: Task, method: LossMethod, selection: Selection | None = None) -> Iterator[Progress]:
    """Descend the method's loss on `task.model`, in place; the schedule passes `task.optimiser.epochs` times over the forget set.

    Args:
        task: the model and the sets.
        method: whose loss.
        selection: remembers the best step and says when to stop; None looks never.

    Raises:
        ConfigError: the method may change no parameter, or wants alternatives that the task lacks.
        DivergedError: the loss is no longer finite, or the model is ruined.
    """
    needs, machine = method.needs, task.machine or Machine()
    if needs.alternatives is not None and len(task.alternatives) != len(task.forget):
        raise ConfigError(
            f"{type(method).__name__}: needs the answer wanted instead for each of {len(task.forget)} records, found {len(task.alternatives)}; "
            "name the column of wrong answers in params.yaml (data.columns.wrong_answers) or choose idk_dpo"
        )
    if needs.layer is not None:
        require_layer(task.model, needs.layer)
    with _only(task.model, needs.trainable):
        retain = task.retain if needs.retain else ()
        sets = Sets(forget=task.forget, alternatives=task.alternatives if needs.alternatives is not None else (), retain=retain, pad=task.pad)
        plan = list(unlearning_plan(len(task.forget), len(retain), task.optimiser, task.seed))
        worker = machine.share(task.model)
        asked = Asked(needs=needs, sets=sets, plan=plan, swapped=task.swapped, strangers=task.strangers)
        reference = reference_of(worker, asked, machine)

        def loss_of(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
            return method.loss(model, batch, reference)

        descent = Descent(
            plan=plan,
            sets=sets,
            steps=task.optimiser.epochs * steps_per_epoch(len(task.forget), task.optimiser),
            optimiser=task.optimiser,
            seed=task.seed,
            machine=machine,
            selection=selection,
        )
        yield from descend(worker, loss_of, descent)


@contextmanager
def _only(model: Any, trainable: str | None) -> Iterator[None]:
    """Inside, only parameters whose name matches may change.

    Raises:
        ConfigError: none matches.
    """
    before = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    chosen = {name for name, may in before.items() if may and (trainable is None or re.search(trainable, name))}
    if not chosen:
        raise ConfigError(
            f"unlearn.method: no parameter that may change matches '{trainable}'; the model's are called like {next(iter(before), 'nothing')}"
        )
    try:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in chosen)
        yield
    finally:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(before[name])
