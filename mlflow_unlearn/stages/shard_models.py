"""A base at work on shards: rows to tokens, training or its repetition, weights to a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from ..adapters import bases, models
from ..adapters.bases import BaseFiles
from ..adapters.shard_files import write_weights
from ..documents import decode
from ..engine.batches import steps_per_epoch
from ..engine.checkpoints import Checkpoints
from ..engine.examples import encode, encode_classes, require_fit
from ..engine.machine import Machine
from ..engine.slices import ShardDone, ShardTraining, ShardWork, Slice, train_shards
from ..errors import ConfigError
from ..exactness import Family, ShardLog
from ..params import LoraParams, OptimiserParams
from ..protocols import Example, Record
from ..sisa import epochs_of_slice, stage_tokens
from .families import WEIGHTS
from .shard_plans import Planned, code_digest, lost_states, run_digest, slice_logs, weights_digest
from .workbench import Workbench


@dataclass(frozen=True)
class _Settings:
    """What a family's settings say, as values."""

    optimiser: OptimiserParams
    seed: int
    dtype: Literal["float32", "bfloat16"]
    template: str
    lora: LoraParams | None = None


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """A base in memory; loaded when it is first needed."""

    bench: Workbench
    family: Family
    base: BaseFiles

    @cached_property
    def settings(self) -> _Settings:
        """Of the family, not of params.yaml: a replay repeats what was done."""
        return decode(_Settings, dict(self.family.settings), "family.json: settings")

    @cached_property
    def environment(self) -> dict[str, str]:
        """What else decides the last bits."""
        _ = self._loaded  # which settles how many threads there are
        return models.environment()

    def steps_left(self, plan: Planned) -> int:
        """Optimiser steps of the slices that are not kept, at most."""
        records, epochs = 0, epochs_of_slice(self.settings.optimiser.epochs, self.family.slices)
        steps = []
        for each in plan.slices:
            records += len(each.records)
            steps.append(epochs * steps_per_epoch(records, self.settings.optimiser))
        return sum(steps[plan.kept_slices :])

    def train(self, plans: Sequence[Planned], on_step: Callable[[], object]) -> Iterator[tuple[Planned, ShardLog]]:
        """Train shards side by side, write each one's weights and say how they came about."""
        works = [self._work(plan, plan.folder / "slices") for plan in plans]
        for plan, work, done in zip(plans, works, self._done(works, on_step, resumable=True), strict=True):
            write_weights(plan.folder / WEIGHTS, plan.shard, done.weights)
            yield plan, self._log(plan, work, done)

    def replay(self, plans: Sequence[Planned], scratch: Path, on_step: Callable[[], object]) -> dict[int, str]:
        """Train shards once more from the base, taking up nothing; shard -> tensor digest. What is written to `scratch` is removed."""
        found = {}
        for done in self._done([self._work(plan, None) for plan in plans], on_step, resumable=False):
            write_weights(scratch / WEIGHTS, done.shard, done.weights)
            found[done.shard] = weights_digest(scratch)
            (scratch / WEIGHTS).unlink(missing_ok=True)
        return found

    def _done(self, works: Sequence[ShardWork], on_step: Callable[[], object], *, resumable: bool) -> list[ShardDone]:
        model, tokenizer = self._loaded
        steps = train_shards(model, works, self._training(tokenizer, resumable=resumable))
        while True:
            try:
                next(steps)
            except StopIteration as end:
                done: list[ShardDone] = end.value
                return done
            on_step()

    def _training(self, tokenizer: Any, *, resumable: bool) -> ShardTraining:
        params, exact = self.bench.params.unlearn, self.bench.params.exact
        minutes = params.checkpoint_minutes if resumable else None

        def in_progress(run: str) -> Checkpoints | None:
            return None if minutes is None else Checkpoints(folder=self.bench.scratch / "slices" / run[:16], run=run, seconds=60 * minutes)

        machine = Machine(dtype=self.settings.dtype, activation_checkpointing=params.activation_checkpointing)
        return ShardTraining(
            optimiser=self.settings.optimiser,
            lora=self.settings.lora,
            together=exact.together if exact else "auto",
            pad=tokenizer.pad_token_id,
            machine=machine,
            in_progress=in_progress,
        )

    def _work(self, plan: Planned, states: Path | None) -> ShardWork:
        slices = [Slice(examples=self.examples(each.records), seed=each.seed, run=run_digest(each.chain, self.environment)) for each in plan.slices]
        return ShardWork(shard=plan.shard, slices=slices, states=states)

    def examples(self, records: Sequence[Record]) -> list[Example]:
        """Records in the base's tokens.

        Raises:
            DataError: one is too long, or has a class that the model does not know.
        """
        model, tokenizer = self._loaded
        prompts, answers = [record.prompt for record in records], [record.answer for record in records]
        if self.base.task == "causal":
            found = encode(tokenizer, self.settings.template, prompts, answers)
        else:
            found = encode_classes(tokenizer, self.settings.template, prompts, answers, model.config.label2id)
        require_fit(model, found, "shards")
        return found

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        models.share_cores(self.bench.params.exact.processes if self.bench.params.exact else 1)
        dtype = self.settings.dtype if self.settings.lora else "float32"  # weights that change stay in float32
        model, tokenizer = bases.load(self.base, self.bench.params.unlearn.device, dtype)
        found, known = self.base.pinned, self.family.base
        if replace(found, reference=known.reference) != known:
            raise ConfigError(f"{self.base.reference}: not the base that family {self.family.family[:8]} was cut for; run `dvc repro`")
        return model, tokenizer

    def _log(self, plan: Planned, work: ShardWork, done: ShardDone) -> ShardLog:
        per_slice = [sum(len(example.tokens) for example in each.examples) for each in work.slices]
        tokens = stage_tokens(per_slice, self.settings.optimiser.epochs)
        return ShardLog(
            shard=plan.shard,
            family=self.family.family,
            base=self.family.base.tensor_digest,
            settings=self.family.settings,
            slices=slice_logs(plan, self.settings.optimiser.epochs, done.steps, done.seconds, tokens),
            tensor_digest=weights_digest(plan.folder),
            code=code_digest(),
            environment=self.environment,
            resumed_after=done.resumed_after,
            together=done.together,
            notes=(*lost_states(plan, done.resumed_after), *done.notes),
        )
