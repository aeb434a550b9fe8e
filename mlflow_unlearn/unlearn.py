"""The verb `unlearn`: a model, what to forget and what to keep -> the same model, changed in place, and a record of the run.

Which people asked, where the model came from and where it goes is not known here. Only tuning canaries may be looked at: audit canaries decide
the verdict later and must not have steered anything.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from .config import UnlearnParams
from .engine.batches import steps_per_epoch, unlearning_steps
from .engine.descent import Descent, descend
from .engine.examples import require_fit
from .engine.reference import mean_losses, reference_of
from .errors import ConfigError, DataError
from .protocols import Batch, Example, LossMethod, Progress, Reference, StepsMethod, Task

ALL_DONE = "all epochs done"
TARGET_MET = "target met"


@dataclass(frozen=True, kw_only=True)
class UnlearnJob:
    """All a run needs; nothing in it names a person."""

    model: torch.nn.Module
    """The parent, on the device it shall work on; wrapped in LoRA adapters where `params.lora` asks for it. Changed in place."""
    forget: Sequence[Example]
    """The requested records and every included canary."""
    retain: Sequence[Example]
    swapped: Sequence[Example | None]
    """Beside each forget record the same one about a person never trained on: how strange it should become. None where the data cannot say."""
    tuning_included: Sequence[int] = ()
    """Positions in `forget` of the included tuning canaries."""
    tuning_excluded: Sequence[Example] = ()
    """Tuning canaries the parent never saw."""
    method: LossMethod | StepsMethod
    params: UnlearnParams
    pad: int
    """Token id used for padding."""


@dataclass(frozen=True, kw_only=True)
class UnlearnRun:
    """What happened."""

    steps: int
    seconds: float
    stopped: str
    """`target met` or `all epochs done`."""
    losses: tuple[Mapping[str, float], ...]
    """Named values of each step."""


def unlearn(job: UnlearnJob, on_progress: Callable[[Progress], None] | None = None) -> UnlearnRun:
    """Run the method to its end, or until the tuning canaries look like records never seen.

    Args:
        job: the model and the sets.
        on_progress: called after every optimiser step.

    Raises:
        DataError: an empty forget set, swapped records that do not pair with it, or records longer than the model takes.
        ConfigError: the method refuses the model, or the loss is no longer finite.
    """
    _require_sound(job)
    started = time.monotonic()
    losses: list[Mapping[str, float]] = []
    stopped = ALL_DONE
    for progress in _steps(job):
        losses.append(dict(progress.losses))
        if on_progress is not None:
            on_progress(progress)
        if _due(job, progress.step) and _target_met(job):
            stopped = TARGET_MET
            break
    return UnlearnRun(steps=len(losses), seconds=time.monotonic() - started, stopped=stopped, losses=tuple(losses))


def _steps(job: UnlearnJob) -> Iterator[Progress]:
    if isinstance(job.method, StepsMethod):
        task = Task(model=job.model, forget=job.forget, retain=job.retain, optimiser=job.params.optimiser, seed=job.params.seed, pad=job.pad)
        return job.method.steps(task)
    return _descent(job, job.method)


def _descent(job: UnlearnJob, method: LossMethod) -> Iterator[Progress]:
    optimiser = job.params.optimiser
    reference = _reference(job) if method.needs_reference else None

    def loss_of(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        return method.loss(model, batch, reference)

    descent = Descent(
        optimiser=optimiser,
        steps=optimiser.epochs * steps_per_epoch(len(job.forget), optimiser),
        seed=job.params.seed,
        dtype=job.params.dtype,
    )
    return descend(job.model, unlearning_steps(job.forget, job.retain, optimiser, job.params.seed, job.pad), loss_of, descent)


def _reference(job: UnlearnJob) -> Reference:
    """The parent's log-probabilities and floors. Records without a stranger's twin take the mean loss of never-seen tuning canaries as floor."""
    floor = mean_losses(job.model, job.tuning_excluded, job.pad).mean().item() if job.tuning_excluded else float("inf")
    return reference_of(job.model, job.forget, job.swapped, job.pad, unknown_floor=floor)


def _due(job: UnlearnJob, step: int) -> bool:
    """Whether to look at the tuning canaries: a loss method's every few steps; a method with its own steps ends by itself."""
    every = job.params.target_check_steps
    canaries = bool(job.tuning_included) and bool(job.tuning_excluded)
    return canaries and every > 0 and step % every == 0 and not isinstance(job.method, StepsMethod)


def _target_met(job: UnlearnJob) -> bool:
    """Whether included tuning canaries rank no lower in loss than excluded ones (AUC at most 0.5); a mean would bow to a few wild records."""
    included = mean_losses(job.model, [job.forget[i] for i in job.tuning_included], job.pad)
    excluded = mean_losses(job.model, job.tuning_excluded, job.pad)
    lower, equal = included[:, None] < excluded[None, :], included[:, None] == excluded[None, :]
    return bool((lower.float() + 0.5 * equal.float()).mean() <= 0.5)


def _require_sound(job: UnlearnJob) -> None:
    if not job.forget:
        raise DataError("unlearn: the forget set is empty, expected at least one record; look at build/split.json")
    if len(job.swapped) != len(job.forget):
        raise DataError(f"unlearn: found {len(job.swapped)} swapped records for {len(job.forget)} forget records; run the split stage again")
    if not isinstance(job.method, LossMethod | StepsMethod):
        raise ConfigError(f"unlearn: {type(job.method).__name__} has neither `loss` nor `steps`; see CONTRIBUTING on adding a method")
    for name, examples in (("forget", job.forget), ("retain", job.retain), ("tuning canaries", job.tuning_excluded)):
        require_fit(job.model, examples, f"unlearn: {name}")
