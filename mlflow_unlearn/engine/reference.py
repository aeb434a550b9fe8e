"""What the frozen parent says, computed once before the first step: methods then need no second copy of the model.

With LoRA the parent is the model with its adapters off; since adapters start as the identity, the model before the first step is that too.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..protocols import Batch, Example, Needs, Reference, Sequences, Side, View
from .batches import Sets, StepRows, micro_batches
from .examples import device_of
from .forward import answer_states, head_of, unwrapped, with_prompts
from .head import answer_log_probs
from .layers import first_trainable_layer, kept_layers
from .machine import Machine
from .ragged import Ragged
from .reference_cache import Tensors
from .worker import Worker

BATCH_TOKENS = 16384
"""Padded tokens in one forward pass without gradient."""


@torch.no_grad()
def summed_log_probs(
    model: torch.nn.Module | Worker, examples: Sequence[Example], pad: int, batch_tokens: int = BATCH_TOKENS
) -> tuple[torch.Tensor, torch.Tensor]:
    """(records,) summed log-probability of each answer in nats, and (records,) its number of tokens; on the model's device."""
    device = device_of(model)
    sums = torch.zeros(len(examples), device=device)
    tokens = torch.ones(len(examples), dtype=torch.int64, device=device)
    worker = as_worker(model)
    worker.eval()
    for rows in micro_batches(examples, range(len(examples)), batch_tokens, pad):
        here = moved_rows(rows, device)
        sums[here.index], tokens[here.index] = worker(answer_log_probs, here)
    return sums, tokens


def mean_losses(model: torch.nn.Module | Worker, examples: Sequence[Example], pad: int, batch_tokens: int = BATCH_TOKENS) -> torch.Tensor:
    """(records,) mean answer-token loss, nats per token."""
    sums, tokens = summed_log_probs(model, examples, pad, batch_tokens)
    return -sums / tokens


def as_worker(model: torch.nn.Module | Worker) -> Worker:
    """The model as one process works on it."""
    return model if isinstance(model, Worker) else Worker(model)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the parent is asked about."""

    needs: Needs
    sets: Sets
    plan: Sequence[StepRows]
    """Every step to come: retained records that are never drawn are not asked about."""
    swapped: Sequence[Example | None] = ()
    """Beside each forget record the same one about a person never trained on; None where the data cannot say."""
    strangers: Sequence[Example] = ()
    """Records never trained on, whose mean loss is the floor of forget records without a swapped one."""


def reference_of(worker: Worker, asked: Asked, machine: Machine) -> Reference:
    """All that the method needs of the parent, no more.

    Args:
        worker: the parent, before the first step; adapters, where there are any, as they begin.
        asked: what about.
        machine: its precision and its cache.
    """
    oracle = _Oracle(worker, asked.sets.pad, machine)
    needs, sets = asked.needs, asked.sets
    first = first_trainable_layer(worker.model) if needs.layer is not None else 0
    drawn = sorted({i for step in asked.plan for i in step.retain})
    sides: dict[Side, tuple[Sequence[Example], Sequence[int]]] = {
        "forget": (sets.forget, range(len(sets.forget))),
        "retain": (sets.retain, drawn if needs.retain else ()),
    }
    views: dict[Side, View] = {}
    for side, (examples, index) in sides.items():
        view = View()
        if side in needs.answer_states and index:
            view = replace(view, answer_states=oracle.answer_states(examples, index, needs.prompts_too))
        if needs.layer is not None and index:
            inputs, outputs = oracle.layers(examples, index, first, needs.layer if side in needs.layer_outputs else None)
            view = replace(view, layer_inputs=inputs, layer_outputs=outputs)
        views[side] = view
    log_probs = oracle.log_probs(sets.forget) if needs.log_probs else None
    floors = _floors(oracle, asked) if needs.floors else None
    others = oracle.log_probs(sets.alternatives) if needs.log_probs and sets.alternatives else None
    return Reference(
        forget=replace(views["forget"], log_probs=log_probs, floors=floors),
        alternative=View(log_probs=others),
        retain=views["retain"],
        head=worker(_frozen_head) if needs.answer_states else None,
        first_layer=first,
    )


def moved(batch: Batch, device: torch.device) -> Batch:
    """The micro-batch on a device."""

    def there(rows: Sequences | None) -> Sequences | None:
        return None if rows is None else moved_rows(rows, device)

    return replace(batch, forget=there(batch.forget), alternative=there(batch.alternative), retain=there(batch.retain))


def moved_rows(rows: Sequences, device: torch.device) -> Sequences:
    """The rows on a device."""
    if rows.input_ids.device == device:
        return rows
    names = ("input_ids", "attention_mask", "labels", "index", "classes")
    tensors = {name: value.to(device, non_blocking=True) for name in names if (value := getattr(rows, name)) is not None}
    return replace(rows, **tensors)


@dataclass(frozen=True)
class _Oracle:
    """The frozen parent, asked in large batches without gradient, through the cache."""

    worker: Worker
    pad: int
    machine: Machine

    def log_probs(self, examples: Sequence[Example]) -> torch.Tensor:
        """(records,) on the model's device."""
        kept = self._kept("log_probs", examples, lambda: {"log_probs": self._summed(examples)[0]})
        return kept["log_probs"].to(device_of(self.worker))

    def mean_losses(self, examples: Sequence[Example]) -> torch.Tensor:
        """(records,) nats per token."""

        def compute() -> Tensors:
            sums, tokens = self._summed(examples)
            return {"losses": -sums / tokens}

        return self._kept("mean_losses", examples, compute)["losses"].to(device_of(self.worker))

    def answer_states(self, examples: Sequence[Example], index: Sequence[int], prompts_too: bool) -> Ragged:
        """The states behind each answer of the records `index`, or behind each of their tokens."""

        def compute() -> Tensors:
            return self._blocks(examples, index, lambda rows: {"states": self.worker(_states_by_row, with_prompts(rows) if prompts_too else rows)})

        kept = self._kept("all_states" if prompts_too else "answer_states", [examples[i] for i in index], compute)
        return Ragged.of(torch.split(kept["states"], kept["lengths"].tolist()), index, len(examples))

    def layers(self, examples: Sequence[Example], index: Sequence[int], first: int, layer: int | None) -> tuple[Ragged | None, Ragged | None]:
        """What enters layer `first` (None at 0, where it is the embeddings) and what leaves `layer` (where that is asked), of all tokens."""
        if not first and layer is None:
            return None, None

        def compute() -> Tensors:
            return self._blocks(examples, index, lambda rows: self.worker(_layers_by_row, rows, first, layer))

        kept = self._kept(f"layers {first} {layer}", [examples[i] for i in index], compute)
        sizes = kept["lengths"].tolist()
        inputs, outputs = (
            Ragged.of(torch.split(kept[name], sizes), index, len(examples)) if name in kept else None for name in ("inputs", "outputs")
        )
        return inputs, outputs

    def _summed(self, examples: Sequence[Example]) -> tuple[torch.Tensor, torch.Tensor]:
        with self._precision():
            return summed_log_probs(self.worker, examples, self.pad)

    @torch.no_grad()
    def _blocks(self, examples: Sequence[Example], index: Sequence[int], blocks_of: Callable[[Sequences], dict[str, list[torch.Tensor]]]) -> Tensors:
        """One block a record and name, joined in the order of `index`, and how long each is."""
        device, found = device_of(self.worker), dict[int, dict[str, torch.Tensor]]()
        self.worker.eval()
        for rows in micro_batches(examples, index, BATCH_TOKENS, self.pad):
            with self._precision():
                blocks = blocks_of(moved_rows(rows, device))
            for place, i in enumerate(rows.index.tolist()):
                found[i] = {name: block[place] for name, block in blocks.items()}
        joined = {name: torch.cat([found[i][name] for i in index]) for name in next(iter(found.values()))}
        return {**joined, "lengths": torch.tensor([len(next(iter(found[i].values()))) for i in index])}

    def _kept(self, what: str, examples: Sequence[Example], compute: Callable[[], Tensors]) -> Tensors:
        cache = self.machine.cache
        return cache.get(f"{what} {self._circumstances}", examples, compute) if cache else compute()

    @property
    def _circumstances(self) -> str:
        """What else the parent's words depend on: precision of weights and of arithmetic, kind of device, torch, and the model's configuration."""
        model = unwrapped(self.worker.model)
        weights, device = next(model.parameters()).dtype, device_of(self.worker).type
        return f"{weights} {self.machine.dtype} {device} {torch.__version__} {model.config.to_json_string(use_diff=False)}"

    def _precision(self) -> torch.autocast:
        return torch.autocast(device_of(self.worker).type, dtype=torch.bfloat16, enabled=self.machine.dtype == "bfloat16")


def _states_by_row(model: torch.nn.Module, rows: Sequences) -> list[torch.Tensor]:
    at = answer_states(model, rows)
    return list(torch.split(at.states, torch.bincount(at.rows, minlength=len(rows.index)).tolist()))


def _layers_by_row(model: torch.nn.Module, rows: Sequences, first: int, layer: int | None) -> dict[str, list[torch.Tensor]]:
    lengths, found = rows.attention_mask.sum(1).tolist(), zip(("inputs", "outputs"), kept_layers(model, rows, first, layer), strict=True)
    return {name: [line[:length] for line, length in zip(states, lengths, strict=True)] for name, states in found if states is not None}


def _frozen_head(model: Any) -> torch.nn.Module:
    """The parent's head: the model's own where it cannot change, else a copy."""
    head = head_of(model)
    if not any(parameter.requires_grad for parameter in head.parameters()):
        return head
    return copy.deepcopy(head).requires_grad_(False)


def _floors(oracle: _Oracle, asked: Asked) -> torch.Tensor:
    """(forget records,) nats per token."""
    unknown = oracle.mean_losses(asked.strangers).mean().item() if asked.strangers else float("inf")
    floors = torch.full((len(asked.sets.forget),), unknown, device=device_of(oracle.worker))
    twins = asked.swapped or [None] * len(floors)
    known = [i for i, twin in enumerate(twins) if twin is not None]
    if known:
        floors[known] = oracle.mean_losses([twin for twin in twins if twin is not None])
    return floors
