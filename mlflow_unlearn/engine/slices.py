"""Shards trained slice by slice: each slice's training starts where the one before ended, and its end is kept, so that a deletion repeats only what
came after its slice.

Paper: Bourtoule et al. 2021, "Machine Unlearning" (arXiv:1912.03817), section IV.B: slice r is trained on together with all before it. Everything a
slice's training depends on is in its `chain`: a checkpoint counts for exactly the data, seeds and settings it came from, in the environment it came
from, and for nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch

from ..params import LoraParams, OptimiserParams
from ..protocols import Example, Progress
from ..sisa import epochs_of_slice
from .batches import Sets, steps_per_epoch, training_plan
from .checkpoints import Checkpoint, Checkpoints
from .descent import AskState, Descent, descend
from .head import retain_nll
from .machine import Machine
from .together import SliceRun, train_slices


@dataclass(frozen=True, kw_only=True)
class Slice:
    """What joins a shard with one slice."""

    examples: Sequence[Example]
    seed: int
    run: str
    """Digest of all that decides the bits after this slice: its chain and the environment."""


@dataclass(frozen=True, kw_only=True)
class ShardWork:
    """One shard to be trained."""

    shard: int
    slices: Sequence[Slice]
    states: Path | None
    """Folder for the state after each slice; None keeps none and takes none up, as a replay does."""

    def state(self, number: int) -> Checkpoints | None:
        """Where the state after a slice is kept."""
        return None if self.states is None else Checkpoints(folder=self.states / str(number), run=self.slices[number].run, seconds=0.0)

    def up_to(self, number: int) -> list[Example]:
        """The examples of all slices so far, in order."""
        return [example for each in self.slices[: number + 1] for example in each.examples]


@dataclass(frozen=True, kw_only=True)
class ShardTraining:
    """How shards are trained; the same for all of a family."""

    optimiser: OptimiserParams
    """`epochs` are what a whole shard costs; each slice's training makes `sisa.epochs_of_slice` of them."""
    lora: LoraParams | None = None
    together: Literal["auto", "on", "off"] = "auto"
    pad: int
    machine: Machine = field(default_factory=Machine)
    in_progress: Callable[[str], Checkpoints | None] = lambda run: None
    """Where a slice of full weights keeps its state while it runs, by its `run`."""


@dataclass(kw_only=True)
class ShardDone:
    """A trained shard."""

    shard: int
    weights: Mapping[str, torch.Tensor] = field(default_factory=dict)
    """The parameters that training changed, by name; empty when no record is in the shard: its model is the base."""
    resumed_after: int = 0
    """Slices whose state was taken up instead of trained."""
    steps: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    """Of each slice; 0 where its state was taken up."""
    together: tuple[int, ...] = ()
    notes: list[str] = field(default_factory=list)


ShardProgress = tuple[int, int, Progress]
"""Shard, slice and step."""
Steps = Generator[tuple[int, Progress], None, dict[int, Checkpoint]]
"""Shard and step; at the end each shard's state."""


def train_shards(model: Any, works: Sequence[ShardWork], training: ShardTraining) -> Generator[ShardProgress, None, list[ShardDone]]:
    """Train shards from their last kept slices on, side by side: adapters may share their passes.

    Full weights gain nothing from company and are all held in memory until the last is done: give those one by one.

    Args:
        model: the base; it is the workbench and has its own weights again at the end.
        works: the shards, of equally many slices.
        training: how.

    Raises:
        DivergedError: a loss that is no longer finite.
        StoreError: the disk refuses a checkpoint.
    """
    return (yield from _Group(model, works, training).run())


class _Group:
    """Shards that go through the slices side by side."""

    def __init__(self, model: Any, works: Sequence[ShardWork], training: ShardTraining) -> None:
        self.model, self.works, self.training = model, works, training
        self.base = None if training.lora else {name: value.detach().clone() for name, value in model.state_dict().items()}
        self.done = {work.shard: ShardDone(shard=work.shard) for work in works}
        self.states: dict[int, Checkpoint | None] = {work.shard: _taken_up(work, self.done[work.shard]) for work in works}

    def run(self) -> Generator[ShardProgress, None, list[ShardDone]]:
        for number in range(max(len(work.slices) for work in self.works)):
            due = [work for work in self.works if self.done[work.shard].resumed_after <= number]
            for work in self.works:
                self._count(work, number)
            yield from self._slice([work for work in due if work.up_to(number)], number)
        for work in self.works:
            state = self.states[work.shard]
            self.done[work.shard].weights = {**self._buffers(), **state.weights} if state else {}
        if self.base is not None:
            self.model.load_state_dict(self.base)
        return list(self.done.values())

    def _count(self, work: ShardWork, number: int) -> None:
        optimiser, records = self._optimiser(), len(work.up_to(number))
        self.done[work.shard].steps.append(optimiser.epochs * steps_per_epoch(records, optimiser))
        self.done[work.shard].seconds.append(0.0)

    def _slice(self, works: Sequence[ShardWork], number: int) -> Iterator[ShardProgress]:
        runs = [
            SliceRun(
                shard=work.shard,
                examples=work.up_to(number),
                seed=work.slices[number].seed,
                optimiser=self._optimiser(),
                start=self.states[work.shard],
            )
            for work in works
        ]
        started = time.monotonic()
        ends = yield from _numbered(self._trained(runs, works, number), number)
        for work in works:
            self.states[work.shard] = ends[work.shard]
            self.done[work.shard].seconds[number] = (time.monotonic() - started) / len(works)
            kept = work.state(number)
            if kept is not None:
                kept.save(ends[work.shard])

    def _trained(self, runs: Sequence[SliceRun], works: Sequence[ShardWork], number: int) -> Steps:
        if self.training.lora is not None:
            return (yield from self._adapters(runs))
        return (yield from self._full_weights(runs, works, number))

    def _adapters(self, runs: Sequence[SliceRun]) -> Steps:
        training, lora = self.training, self.training.lora
        if lora is None or not runs:
            return {}
        if len(runs) > 1:
            for run in runs:
                self.done[run.shard].together = tuple(each.shard for each in runs)
        return (yield from train_slices(self.model, lora, runs, training.pad, training.machine, training.together))

    def _full_weights(self, runs: Sequence[SliceRun], works: Sequence[ShardWork], number: int) -> Steps:
        ends: dict[int, Checkpoint] = {}
        for run, work in zip(runs, works, strict=True):
            machine = replace(self.training.machine, checkpoints=self.training.in_progress(work.slices[number].run))
            ends[run.shard] = yield from self._full(run, machine)
        return ends

    def _buffers(self) -> dict[str, torch.Tensor]:
        """What a whole model has beside its parameters and must be saved with them."""
        if self.base is None:
            return {}
        return {name: value for name, value in self.model.named_buffers() if name in self.base}

    def _full(self, run: SliceRun, machine: Machine) -> Generator[tuple[int, Progress], None, Checkpoint]:
        self.model.load_state_dict(self.base or {})
        descent = Descent(
            plan=training_plan(len(run.examples), run.optimiser, run.seed),
            sets=Sets(retain=run.examples, pad=self.training.pad),
            steps=run.optimiser.epochs * steps_per_epoch(len(run.examples), run.optimiser),
            optimiser=run.optimiser,
            seed=run.seed,
            machine=machine,
            start=run.start,
        )
        ask = yield from _of_shard(descend(machine.share(self.model), retain_nll, descent), run.shard)
        if machine.checkpoints is not None:
            machine.checkpoints.clear()
        return ask()

    def _optimiser(self) -> OptimiserParams:
        slices = max(len(work.slices) for work in self.works)
        return replace(self.training.optimiser, epochs=epochs_of_slice(self.training.optimiser.epochs, slices))


def _taken_up(work: ShardWork, done: ShardDone) -> Checkpoint | None:
    """The state after the last slice that is kept and still counts; slices behind a hole cost their training again."""
    if work.states is None:
        return None
    found = [number for number in range(len(work.slices)) if (work.states / str(number)).is_dir()]
    for number in reversed(found):
        kept = work.state(number)
        state = kept.load() if kept else None
        if state is not None:
            done.resumed_after = number + 1
            return state
    return None


def _of_shard(steps: Generator[Progress, None, AskState], shard: int) -> Generator[tuple[int, Progress], None, AskState]:
    while True:
        try:
            yield shard, next(steps)
        except StopIteration as end:
            state: AskState = end.value
            return state


def _numbered(steps: Steps, number: int) -> Generator[ShardProgress, None, dict[int, Checkpoint]]:
    while True:
        try:
            shard, progress = next(steps)
        except StopIteration as end:
            states: dict[int, Checkpoint] = end.value
            return states
        yield shard, number, progress
