"""Adapters of several shards over one base, trained side by side: in the same passes where that is faster and gives the same bits, else in turn.

Every shard has its own plan, schedule, clipping and AdamW; shards that are done drop out. Passes are shared while the micro-batches of one
shard alone leave the machine underfilled.
"""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from ..errors import DivergedError, UnlearnError
from ..params import LoraParams, OptimiserParams
from ..protocols import Example, Progress
from .adapter_layers import adapted_layers
from .adapter_pass import AdapterPass, Micro, Part, shaped
from .batches import steps_per_epoch, training_plan
from .checkpoints import Checkpoint
from .descent import learning_rate
from .machine import Machine
from .memory import ran_out

TRIALS = 2
"""Passes of a kind that are run both ways before the faster one is kept."""
SAMPLES = 2
"""Shards, the first and the last, that run in turn as well in such a trial: enough to compare bits and time, and cheap beside the others."""
WORTH = 0.95
"""Passes are shared where they take at most this share of the time in turn: less is within what two timings of one thing differ by."""
CLEARLY = 0.7
"""One trial is enough where they take at most this share: the first one only underrates sharing, which then runs first, in cold caches."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SliceRun:
    """One slice of one shard."""

    shard: int
    examples: Sequence[Example]
    seed: int
    """Of the order of the records, of dropout, and of the adapter's first weights where nothing came before."""
    optimiser: OptimiserParams
    start: Checkpoint | None
    """The state after the slice before; None begins."""


def train_slices(
    base: Any, lora: LoraParams, runs: Sequence[SliceRun], pad: int, machine: Machine, together: Literal["auto", "on", "off"]
) -> Generator[tuple[int, Progress], None, dict[int, Checkpoint]]:
    """Train one slice of each shard; the base stays as it is, and its own dropout is off.

    Args:
        base: a Hugging Face model on its device.
        lora: the same for all shards.
        runs: one a shard.
        pad: token id used for padding.
        machine: precision and recomputation; there is one process, and nothing is kept within a slice.
        together: `on` shares all passes of equal shapes, `auto` those that were faster shared; neither where the bits would be others.

    Yields:
        Shard and step, with `loss`, `retain`, `gradient_norm` before clipping and `learning_rate`.

    Returns:
        Shard -> its end: the adapter under peft's names, AdamW's moments, history.

    Raises:
        ConfigError: `lora` names no layer of the base, or a start is of other layers.
        DivergedError: a loss or gradient is not finite; that step was not taken.
        UnlearnError: not enough memory for one micro-batch.
    """
    return (yield from _Group(base, lora, runs, pad, _Choice(together, machine)).run()) if runs else {}


class _Shard:
    """One shard's own part: plan, schedule and AdamW."""

    def __init__(self, row: int, run: SliceRun, work: AdapterPass) -> None:
        self.row, self.run, self.work = row, run, work
        self.parameter = work.weights.rows[row].detach().requires_grad_()
        self.parameter.grad = work.gradients.rows[row]
        decay = run.optimiser.weight_decay
        self.optimiser = torch.optim.AdamW([self.parameter], lr=run.optimiser.learning_rate, weight_decay=decay, fused=True)
        self.steps = run.optimiser.epochs * steps_per_epoch(len(run.examples), run.optimiser)
        self.plan = training_plan(len(run.examples), run.optimiser, run.seed)
        self.history: list[dict[str, float]] = []
        self.notes: list[str] = []
        if run.start is None:
            work.weights.begin(row, run.seed)
        else:
            work.weights.put(row, run.start.weights)
            self.optimiser.load_state_dict(copy.deepcopy(dict(run.start.optimiser)))  # AdamW writes into the moments that it is given

    def micros(self, pad: int) -> list[Micro]:
        """The next optimiser batch."""
        return shaped(self.work.model, self.run.examples, next(self.plan).retain, self.run.optimiser.token_budget, pad)

    def clear(self) -> None:
        """Forget the gradient."""
        self.work.gradients.rows[self.row].zero_()

    def step(self, step: int, loss: float, notes: Sequence[str]) -> Progress:
        """One optimiser step."""
        settings = self.run.optimiser
        rate = learning_rate(step, self.steps, settings)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        norm = float(torch.nn.utils.clip_grad_norm_([self.parameter], settings.max_grad_norm))
        for what, value in (("loss", loss), ("gradient norm", norm)):
            if not math.isfinite(value):
                raise DivergedError(
                    f"shard {self.run.shard}, step {step}: the {what} is {value}, expected a finite number; lower exact.optimiser.learning_rate in "
                    "params.yaml"
                )
        self.optimiser.step()
        self.clear()
        losses = {"loss": loss, "retain": loss, "gradient_norm": norm, "learning_rate": rate}
        self.history.append(losses)
        self.notes += notes
        return Progress(step=step, steps=self.steps, losses=losses, notes=tuple(notes))

    def state(self) -> Checkpoint:
        """Where the shard stands."""
        return Checkpoint(
            step=len(self.history),
            weights=self.work.weights.adapter(self.row),
            optimiser=copy.deepcopy(self.optimiser.state_dict()),
            token_budget=self.run.optimiser.token_budget,
            history=tuple(self.history),
            notes=tuple(self.notes),
        )


@dataclass
class _Kind:
    """Passes of as many shards and about as many tokens."""

    same: bool = True
    """Whether shared passes gave the bits of those in turn, as far as anyone looked."""
    in_turn: list[float] = field(default_factory=list)
    shared: list[float] = field(default_factory=list)
    """Seconds a token of each trial."""

    @property
    def ratio(self) -> float:
        """Time shared as a share of the time in turn."""
        return min(self.shared, default=math.inf) / min(self.in_turn, default=1.0)

    def to_be_tried(self, wish: str) -> bool:
        """Whether another pass has to run both ways; where the time does not decide, one is enough to compare the bits."""
        if not self.same:
            return False
        enough = 1 if wish == "on" or self.ratio <= CLEARLY else TRIALS
        return len(self.shared) < enough


class _Choice:
    """Runs passes shared or in turn."""

    def __init__(self, wish: Literal["auto", "on", "off"], machine: Machine) -> None:
        self.wish, self.machine = wish, machine
        self.kinds: dict[tuple[int, int], _Kind] = {}
        self.notes: list[str] = []
        """Not yet reported."""

    def add(self, work: AdapterPass, parts: Sequence[Part]) -> list[float]:
        """Losses of micro-batches of one shape; their gradients are added up."""
        if self.wish == "off" or len(parts) == 1:
            return _in_turn(work, parts)
        kind = self.kinds.setdefault((len(parts), parts[0].micro.tokens.bit_length()), _Kind())
        if kind.to_be_tried(self.wish):
            return self._tried(kind, work, parts)
        shared = kind.same and (self.wish == "on" or kind.ratio <= WORTH)
        return work.add(parts) if shared else _in_turn(work, parts)

    def _tried(self, kind: _Kind, work: AdapterPass, parts: Sequence[Part]) -> list[float]:
        """All in one pass, and some in turn as well."""
        gradients, before = work.gradients.rows, work.gradients.rows.clone()
        started = _now(work)
        losses = work.add(parts)
        shared = _now(work) - started
        places = [round(i * (len(parts) - 1) / (SAMPLES - 1)) for i in range(SAMPLES)]
        rows = [parts[place].row for place in places]
        found = gradients[rows]
        gradients[rows] = before[rows]
        started = _now(work)
        expected = _in_turn(work, [parts[place] for place in places])
        in_turn = (_now(work) - started) / SAMPLES * len(parts)
        kind.same = torch.equal(found, gradients[rows]) and [losses[place] for place in places] == expected
        if not kind.same:
            gradients.copy_(before)
            losses = _in_turn(work, parts)
            self.say(f"{len(parts)} shards with {parts[0].micro.tokens} tokens each run in turn: in one pass the last bits would be others here")
        tokens = sum(part.micro.tokens for part in parts)
        kind.shared.append(shared / tokens)
        kind.in_turn.append(in_turn / tokens)
        return losses

    def say(self, text: str) -> None:
        """For the log and for whoever reads the progress."""
        log.warning(text)
        self.notes.append(text)

    def said(self) -> tuple[str, ...]:
        """What was not yet reported."""
        notes, self.notes = tuple(self.notes), []
        return notes


class _Group:
    """Shards in step with one another."""

    def __init__(self, base: Any, lora: LoraParams, runs: Sequence[SliceRun], pad: int, choice: _Choice) -> None:
        self.pad, self.choice = pad, choice
        self.work = AdapterPass(base, adapted_layers(base, lora), lora, len(runs), choice.machine)
        self.work.recompute(max(run.optimiser.token_budget for run in runs))
        self.shards = [_Shard(row, run, self.work) for row, run in enumerate(runs)]

    def run(self) -> Generator[tuple[int, Progress], None, dict[int, Checkpoint]]:
        for step in range(1, max(shard.steps for shard in self.shards) + 1):
            due = [shard for shard in self.shards if step <= shard.steps]
            losses = self._gradients(step, due)
            notes = self.choice.said()
            for shard in due:
                yield shard.run.shard, shard.step(step, losses[shard.row], notes)
                notes = ()
        return {shard.run.shard: shard.state() for shard in self.shards}

    def _gradients(self, step: int, due: Sequence[_Shard]) -> dict[int, float]:
        """Row -> loss of its optimiser batch; where memory runs out, once more in turn."""
        batches = {shard.row: shard.micros(self.pad) for shard in due}
        while True:
            try:
                return self._added(step, due, batches)
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not ran_out(error):
                    raise
                self._less(due, batches, error)

    def _less(self, due: Sequence[_Shard], batches: dict[int, list[Micro]], error: BaseException) -> None:
        if self.choice.wish == "off" or len(due) == 1:
            raise UnlearnError(
                f"out of memory with a micro-batch of {max(each.tokens for some in batches.values() for each in some)} tokens of one shard; lower "
                "exact.optimiser.token_budget in params.yaml, which makes another family"
            ) from error
        for shard in due:
            shard.clear()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.choice.wish = "off"
        self.choice.say("out of memory: shards run in turn from here on; the result is the same")

    def _added(self, step: int, due: Sequence[_Shard], batches: dict[int, list[Micro]]) -> dict[int, float]:
        losses = dict.fromkeys(batches, 0.0)
        for parts in self._passes(step, due, batches):
            for part, loss in zip(parts, self.choice.add(self.work, parts), strict=True):
                losses[part.row] += loss
        return losses

    def _passes(self, step: int, due: Sequence[_Shard], batches: dict[int, list[Micro]]) -> Iterator[list[Part]]:
        """Micro-batches of equal shapes, each shard's in its own order; no more at once than one shard might have in a micro-batch."""
        waiting = {shard.row: list(enumerate(batches[shard.row])) for shard in due}
        while any(waiting.values()):
            shape = min(queue[0][1].shape for queue in waiting.values() if queue)
            taken = [shard for shard in due if waiting[shard.row] and waiting[shard.row][0][1].shape == shape]
            parts = []
            for shard in taken:
                number, micro = waiting[shard.row].pop(0)
                parts.append(Part(row=shard.row, micro=micro, seed=(shard.run.seed, step, number)))
            most = max(1, min(shard.run.optimiser.token_budget for shard in taken) // parts[0].micro.tokens)
            yield from (parts[first : first + most] for first in range(0, len(parts), most))


def _in_turn(work: AdapterPass, parts: Sequence[Part]) -> list[float]:
    return [loss for part in parts for loss in work.add([part])]


def _now(work: AdapterPass) -> float:
    """Seconds: of this process alone where it has one thread, so that a busy machine does not decide."""
    device = work.weights.rows.device
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.process_time() if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter()
