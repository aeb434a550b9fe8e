"""The descent loop: AdamW on whatever parameters may change, one optimiser step for each optimiser batch."""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch

from ..errors import ConfigError, DivergedError, UnlearnError
from ..params import OptimiserParams
from ..protocols import Batch, Example, Progress
from .batches import Sets, StepRows, batches_of, steps_per_epoch, training_plan
from .checkpoints import Checkpoint
from .examples import device_of
from .head import retain_nll
from .machine import Machine
from .memory import ran_out, set_activation_checkpointing
from .randomness import private_randomness
from .reference import moved
from .selection import Selection
from .worker import Worker

LossOf = Callable[[torch.nn.Module, Batch], torch.Tensor]
AskState = Callable[[], Checkpoint]

TARGET_MET = "target met"

RANK_SEEDS = 1_000_003
"""Between the seeds of two processes: their rows get dropout of their own."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Descent:
    """How to descend, and on what."""

    plan: Iterable[StepRows]
    """Every optimiser batch, from the first step on."""
    sets: Sets
    steps: int
    """Optimiser steps the schedule is laid out for."""
    optimiser: OptimiserParams
    seed: int
    """For dropout; the order of the records has its own."""
    machine: Machine
    selection: Selection | None = None
    """Looks at the model every few steps; None looks never."""
    start: Checkpoint | None = None
    """The end of an earlier descent, from which this one goes on with a plan and a schedule of its own; None begins with the model as it is."""


def descend(worker: Worker, loss_of: LossOf, descent: Descent) -> Generator[Progress, None, AskState]:
    """Change the model in place, one optimiser step after another, and report each; a run that was killed reports its earlier steps again first.

    Args:
        worker: the model, perhaps shared among processes.
        loss_of: `(model, micro-batch)` to a scalar; over the micro-batches of an optimiser batch they sum to its loss.
        descent: how.

    Yields:
        After every step: `loss`, its `forget` and `retain` parts where there are any, `gradient_norm` before clipping, `learning_rate`.

    Returns:
        What gives the state after the last step, for a descent that goes on from there.

    Raises:
        ConfigError: nothing may change.
        DivergedError: a loss or gradient is not finite (that step was not taken), or the selection found the model ruined.
    """
    run = _Run(worker, descent)
    yield from run.resumed()
    for step, rows in enumerate(islice(descent.plan, run.done, None), start=run.done + 1):
        progress = run.step(step, rows, loss_of)
        yield progress
        if progress.stop:
            break
    return run.state


def fit(
    model: torch.nn.Module, examples: Sequence[Example], optimiser: OptimiserParams, seed: int, pad: int, machine: Machine | None = None
) -> Generator[Progress, None, AskState]:
    """Plain training on `examples`, in place: mean answer-token loss, `optimiser.epochs` passes: training, retraining, fine-tuning."""
    machine = machine or Machine()
    descent = Descent(
        plan=training_plan(len(examples), optimiser, seed),
        sets=Sets(retain=examples, pad=pad),
        steps=optimiser.epochs * steps_per_epoch(len(examples), optimiser),
        optimiser=optimiser,
        seed=seed,
        machine=machine,
    )
    return (yield from descend(machine.share(model), retain_nll, descent))


def learning_rate(step: int, steps: int, optimiser: OptimiserParams) -> float:
    """Linear warm-up, then the schedule down to zero; `step` counts from 1.

    The cosine is that of Loshchilov and Hutter 2017, "SGDR" (arXiv:1608.03983), equation 5, without restarts.
    """
    warmup = math.ceil(optimiser.warmup_fraction * steps)
    if step <= warmup:
        return optimiser.learning_rate * step / warmup
    done = min(1.0, (step - 1 - warmup) / max(1, steps - warmup))
    share = {"cosine": 0.5 * (1.0 + math.cos(math.pi * done)), "linear": 1.0 - done, "constant": 1.0}
    return optimiser.learning_rate * share[optimiser.schedule]


class _Run:
    """One descent: the optimiser, the micro-batch budget, and what has been reported."""

    def __init__(self, worker: Worker, descent: Descent) -> None:
        self.worker, self.descent = worker, descent
        self.optimiser = _adamw(worker, descent.optimiser)
        self.budget = descent.optimiser.token_budget
        self.history: list[Mapping[str, float]] = []
        self.done = 0
        self.notes: list[str] = []
        """Not yet reported."""
        self.said: list[str] = []
        """All so far."""
        machine = descent.machine
        set_activation_checkpointing(worker.model, machine.activation_checkpointing, self.budget, machine.dtype)

    def resumed(self) -> Iterator[Progress]:
        """Take up the state of a killed run; else begin."""
        checkpoints, selection = self.descent.machine.checkpoints, self.descent.selection
        kept = checkpoints.load() if checkpoints else None
        if kept is None:
            if self.descent.start is not None:
                self.worker.restore(self.descent.start.weights)
                self.worker.restore_optimiser(self.optimiser, self.descent.start.optimiser)
            if selection:
                selection.begin(self.worker)
            return
        self.worker.restore(kept.weights)
        self.worker.restore_optimiser(self.optimiser, kept.optimiser)
        self.budget, self.history, self.done = kept.token_budget, list(kept.history), kept.step
        self.said = list(kept.notes)
        if selection:
            selection.begin(self.worker, kept.selection)
        self._note(f"taken up after step {kept.step}")
        notes, self.notes = tuple(self.said), []
        for step, losses in enumerate(kept.history, start=1):
            yield Progress(step=step, steps=self.descent.steps, losses=losses, notes=notes if step == 1 else ())

    def step(self, step: int, rows: StepRows, loss_of: LossOf) -> Progress:
        """One optimiser step, a look at the tuning data where one is due, a checkpoint where one is due."""
        descent = self.descent
        rate = learning_rate(step, descent.steps, descent.optimiser)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        losses = self._gradient(step, rows, loss_of)
        norm = self.worker.clip(descent.optimiser.max_grad_norm)
        _require_finite(step, losses["loss"], norm)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.worker.eval()
        losses |= {"gradient_norm": norm, "learning_rate": rate}
        stop = self._look(step, losses)
        self.history.append(losses)
        if stop is None:
            self._keep()
        notes, self.notes = tuple(self.notes), []
        return Progress(step=step, steps=descent.steps, losses=losses, notes=notes, stop=stop)

    def _gradient(self, step: int, rows: StepRows, loss_of: LossOf) -> dict[str, float]:
        """Gradients of one optimiser batch; where memory runs out, once more with micro-batches half the size."""
        while True:
            try:
                return self._accumulate(step, rows, loss_of)
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not ran_out(error):
                    raise
                if self.worker.size > 1:  # the others are waiting inside another step
                    raise UnlearnError(
                        f"out of memory in one of {self.worker.size} processes with micro-batches of {self.budget} padded tokens; lower "
                        "optimiser.token_budget in params.yaml"
                    ) from error
                self._halve(rows, error)

    def _accumulate(self, step: int, rows: StepRows, loss_of: LossOf) -> dict[str, float]:
        """Sum the gradients of all micro-batches; the losses add up to that of the whole optimiser batch."""
        worker, device = self.worker, device_of(self.worker)
        losses: dict[str, float] = defaultdict(float)
        worker.train()
        with private_randomness(self.descent.seed + step + RANK_SEEDS * worker.rank):
            for batch in batches_of(rows, self.descent.sets, self.budget * worker.size):
                part, counts = worker.part(batch)
                with torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.descent.machine.dtype == "bfloat16"):
                    loss = worker(loss_of, moved(part, device))
                if loss.requires_grad:  # a method may have nothing to say about one side
                    (loss * counts).backward()
                value = loss.item() * counts / worker.size
                for side in ("loss", "forget" if batch.forget is not None else "retain"):
                    losses[side] += value
        return worker.summed(losses)

    def _halve(self, rows: StepRows, error: BaseException) -> None:
        self.optimiser.zero_grad(set_to_none=True)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        sides = [(each.forget or each.retain, each.alternative) for each in batches_of(rows, self.descent.sets, 1)]
        longest = max(sum(side.input_ids.shape[1] for side in pair if side is not None) for pair in sides)
        if self.budget <= longest:
            raise UnlearnError(
                f"out of memory with a single record of {longest} tokens in the micro-batch ({type(error).__name__}); use unlearn.lora, "
                "dtype: bfloat16, activation_checkpointing: on, or more processes in params.yaml"
            ) from error
        self.budget = max(longest, min(self.budget, longest * max(len(rows.forget), len(rows.retain))) // 2)
        self._note(f"out of memory: micro-batches of at most {self.budget} padded tokens from here on; the result is the same up to rounding")

    def _look(self, step: int, losses: dict[str, float]) -> str | None:
        selection = self.descent.selection
        if selection is None or not selection.due(step, self.descent.steps):
            return None
        losses |= selection.look(self.worker, step).values()
        return TARGET_MET if selection.target_met() else None

    def _keep(self) -> None:
        checkpoints = self.descent.machine.checkpoints
        if checkpoints is None or not self.worker.said(checkpoints.due()):
            return
        state = self.state()
        if self.worker.rank == 0:
            checkpoints.save(state)

    def state(self) -> Checkpoint:
        """Where the run stands; every process must ask, rank 0 gets it whole."""
        selection = self.descent.selection
        return Checkpoint(
            step=len(self.history),
            weights=self.worker.trained(),
            optimiser=self.worker.optimiser_state(self.optimiser),
            token_budget=self.budget,
            history=tuple(self.history),
            notes=tuple(self.said),
            selection=selection.state() if selection else {},
        )

    def _note(self, text: str) -> None:
        log.warning(text)
        self.notes.append(text)
        self.said.append(text)


def _adamw(worker: Worker, settings: OptimiserParams) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019); norms and biases are not decayed."""
    parameters = [parameter for parameter in worker.parameters() if parameter.requires_grad]
    if not parameters:
        raise ConfigError("descend: no parameter of the model may change; check `lora` and the model's requires_grad")
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=settings.learning_rate, fused=True)


def _require_finite(step: int, loss: float, norm: float) -> None:
    for what, value in (("loss", loss), ("gradient norm", norm)):
        if not math.isfinite(value):
            raise DivergedError(f"step {step}: the {what} is {value}, expected a finite number; lower optimiser.learning_rate in params.yaml")
