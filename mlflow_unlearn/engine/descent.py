"""The descent loop: AdamW on whatever parameters may change, one optimiser step for each optimiser batch."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch

from ..config import OptimiserParams
from ..errors import ConfigError
from ..losses import retain_nll
from ..protocols import Batch, Example, Progress, Sequences
from .batches import steps_per_epoch, training_steps
from .examples import device_of
from .randomness import private_randomness

LossOf = Callable[[torch.nn.Module, Batch], torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Descent:
    """How to descend; the batches themselves come from elsewhere."""

    optimiser: OptimiserParams
    steps: int
    """Optimiser steps the schedule is laid out for."""
    seed: int
    """For dropout; the order of the records has its own."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of the arithmetic. Weights and moments stay in float32: an update of 1e-5 is below the rounding of a bfloat16 weight."""


def descend(model: torch.nn.Module, steps: Iterable[Sequence[Batch]], loss_of: LossOf, descent: Descent) -> Iterator[Progress]:
    """Change `model` in place, one optimiser step an item of `steps`, and report each.

    Yields:
        After every step: `loss`, its `forget` and `retain` parts where there are any, `gradient_norm` before clipping, `learning_rate`.

    Raises:
        ConfigError: nothing may change, or the loss is no longer finite.
    """
    optimiser = _adamw(model, descent.optimiser)
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    for step, batches in enumerate(steps, start=1):
        rate = learning_rate(step, descent.steps, descent.optimiser)
        for group in optimiser.param_groups:
            group["lr"] = rate
        model.train()
        with private_randomness(descent.seed + step):
            losses = _accumulate(model, batches, loss_of, descent.dtype)
        norm = torch.nn.utils.clip_grad_norm_(parameters, descent.optimiser.max_grad_norm)
        _require_finite(losses["loss"], step)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        model.eval()
        yield Progress(step=step, steps=descent.steps, losses={**losses, "gradient_norm": float(norm), "learning_rate": rate})


def fit(model: torch.nn.Module, examples: Sequence[Example], optimiser: OptimiserParams, seed: int, pad: int) -> Iterator[Progress]:
    """Plain training on `examples`, in place: mean answer-token loss, `optimiser.epochs` passes: training, retraining, fine-tuning."""
    descent = Descent(optimiser=optimiser, steps=optimiser.epochs * steps_per_epoch(len(examples), optimiser), seed=seed)
    yield from descend(model, training_steps(examples, optimiser, seed, pad), retain_nll, descent)


def learning_rate(step: int, steps: int, optimiser: OptimiserParams) -> float:
    """Linear warm-up, then half a cosine down to zero (Loshchilov and Hutter 2017, SGDR, equation 5, without restarts); `step` counts from 1."""
    warmup = math.ceil(optimiser.warmup_fraction * steps)
    if step <= warmup:
        return optimiser.learning_rate * step / warmup
    done = (step - 1 - warmup) / max(1, steps - warmup)
    return optimiser.learning_rate * 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))


def moved(batch: Batch, device: torch.device) -> Batch:
    """The micro-batch on a device."""
    return replace(batch, forget=_moved(batch.forget, device), retain=_moved(batch.retain, device))


def _moved(rows: Sequences | None, device: torch.device) -> Sequences | None:
    if rows is None or rows.input_ids.device == device:
        return rows
    tensors = {name: getattr(rows, name).to(device, non_blocking=True) for name in ("input_ids", "attention_mask", "labels", "index")}
    return Sequences(**tensors)


def _accumulate(model: torch.nn.Module, batches: Sequence[Batch], loss_of: LossOf, dtype: str) -> dict[str, float]:
    """Sum the gradients of all micro-batches; the losses add up to that of the whole optimiser batch."""
    device = device_of(model)
    losses: dict[str, float] = defaultdict(float)
    for batch in batches:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == "bfloat16"):
            loss = loss_of(model, moved(batch, device))
        if loss.requires_grad:  # a method may have nothing to say about one side
            loss.backward()  # type: ignore[no-untyped-call]
        value = loss.item()
        for side in ("loss", "forget" if batch.forget is not None else "retain"):
            losses[side] += value
    return dict(losses)


def _adamw(model: torch.nn.Module, settings: OptimiserParams) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019); norms and biases are not decayed."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise ConfigError("descend: no parameter of the model may change; check `lora` and the model's requires_grad")
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=settings.learning_rate, fused=True)


def _require_finite(loss: float, step: int) -> None:
    if not math.isfinite(loss):
        raise ConfigError(f"step {step}: the loss is {loss}, expected a finite number; lower optimiser.learning_rate in params.yaml")
