"""The verb `unlearn`: a model, what to forget and what to keep -> the same model, changed in place, and a record of the run.

Which people asked, where the model came from and where it goes is not known here. Only tuning data may be looked at: audit canaries decide the
verdict later and must not have steered anything.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from .engine.examples import require_fit
from .engine.memory import ran_out
from .engine.selection import Selection, TuningSets
from .engine.unlearning import forget_by_loss
from .errors import ConfigError, DataError, DivergedError, UnlearnError
from .params import SelectionParams
from .protocols import LossMethod, Progress, StepsMethod, Task

ALL_DONE = "all epochs done"


@dataclass(frozen=True, kw_only=True)
class UnlearnJob:
    """All a run needs; nothing in it names a person."""

    task: Task
    """The parent, wrapped in LoRA adapters where those are asked for, and the sets."""
    method: LossMethod | StepsMethod
    tuning: TuningSets
    """What choosing the best step and stopping may look at."""
    selection: SelectionParams = field(default_factory=SelectionParams)


@dataclass(frozen=True, kw_only=True)
class UnlearnRun:
    """What happened."""

    steps: int
    """Optimiser steps done."""
    kept_step: int
    """The step whose weights the model has now."""
    seconds: float
    stopped: str
    """`target met`, `all epochs done`, or why it diverged."""
    losses: tuple[Mapping[str, float], ...]
    """Named values of each step."""
    notes: tuple[str, ...] = ()
    """What a reader of the run should know."""


def unlearn(job: UnlearnJob, on_progress: Callable[[Progress], None] | None = None) -> UnlearnRun:
    """Run the method to its end, or until the tuning canaries look like records never seen; a loss method's best step is kept.

    Args:
        job: the model and the sets.
        on_progress: called after every optimiser step.

    Raises:
        DataError: an empty forget set, swapped records that do not pair with it, or records that the model cannot take.
        ConfigError: the method refuses the model.
        DivergedError: the loss is no longer finite and no earlier step was found good.
        UnlearnError: memory ran out, for a single record or outside the gradients.
    """
    _require_sound(job)
    started = time.monotonic()
    selection = Selection(tuning=job.tuning, params=job.selection) if isinstance(job.method, LossMethod) else None
    log = _Log(notes=_notes(job, selection))
    try:
        for progress in _steps(job, selection):
            log.add(progress)
            if on_progress is not None:
                on_progress(progress)
    except DivergedError as error:
        if selection is None or selection.best is None:
            raise
        log.stopped = f"diverged: {error}"
    except (MemoryError, RuntimeError) as error:
        if not ran_out(error):
            raise
        raise UnlearnError(f"out of memory: {error}; use unlearn.lora, dtype: bfloat16 or more processes in params.yaml") from error
    kept = len(log.losses)
    if selection is not None and selection.best is not None:
        kept = selection.best.step
        selection.restore()
        if excess := selection.excess(selection.best):
            log.notes.append(
                f"no step looked at kept utility: step {kept} exceeds the margin by {excess:.3f} nats per token on watched retained records, the "
                "others by more; raise the method's retain_weight or lower optimiser.learning_rate"
            )
    seconds = time.monotonic() - started
    return UnlearnRun(steps=len(log.losses), kept_step=kept, seconds=seconds, stopped=log.stopped, losses=tuple(log.losses), notes=tuple(log.notes))


@dataclass(kw_only=True)
class _Log:
    losses: list[Mapping[str, float]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    stopped: str = ALL_DONE

    def add(self, progress: Progress) -> None:
        self.losses.append(dict(progress.losses))
        self.notes.extend(progress.notes)
        self.stopped = progress.stop or self.stopped


def _steps(job: UnlearnJob, selection: Selection | None) -> Iterator[Progress]:
    if isinstance(job.method, LossMethod):
        return forget_by_loss(job.task, job.method, selection)
    return job.method.steps(job.task)


def _notes(job: UnlearnJob, selection: Selection | None) -> list[str]:
    notes, forget, retain = [], len(job.task.forget), len(job.task.retain)
    if retain and forget > retain:
        notes.append(f"{forget} records to forget and only {retain} to retain: each retained one is drawn about {forget / retain:.1f} times an epoch")
    if selection is not None and job.selection.every and not (job.tuning.included and job.tuning.excluded):
        notes.append("no tuning canaries: nothing could be seen of how far the forgetting went, so the run does not stop early")
    if selection is not None and job.selection.every and not job.tuning.kept:
        notes.append("too few retained records to watch some that no verdict measures: a step that damages what is retained is not told apart")
    return notes


def _require_sound(job: UnlearnJob) -> None:
    task = job.task
    if not task.forget:
        raise DataError("unlearn: the forget set is empty, expected at least one record; look at build/split.json")
    if task.swapped and len(task.swapped) != len(task.forget):
        raise DataError(f"unlearn: found {len(task.swapped)} swapped records for {len(task.forget)} forget records; run the split stage again")
    if not isinstance(job.method, LossMethod | StepsMethod):
        raise ConfigError(f"unlearn: {type(job.method).__name__} has neither `loss` nor `steps`; see CONTRIBUTING on adding a method")
    sets = {
        "forget": task.forget,
        "retain": task.retain,
        "alternatives": task.alternatives,
        "swapped records": [twin for twin in task.swapped if twin is not None],
        "strangers": task.strangers,
        "tuning canaries": [*job.tuning.included, *job.tuning.excluded],
        "watched records": job.tuning.kept,
    }
    for name, examples in sets.items():
        require_fit(task.model, examples, f"unlearn: {name}")
