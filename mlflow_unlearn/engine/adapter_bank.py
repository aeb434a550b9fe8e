"""One base and an adapter a shard, all in memory: any shard's model, and batches whose rows go through the adapter of their own shard each.

Rows of a batch are brought into the order of their shards, run through the base together, and each layer adds the adapters' part: shard by shard
where rows are long, and in one batched product with as many rows for each shard where they are not (measured: docs/benchmarks.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..errors import ConfigError
from ..params import LoraParams
from .adapter_layers import AdapterStack, adapted_layers, frozen, twin
from .examples import device_of
from .experts import Answer

SHORT = 8
"""Tokens a row up to which all shards' rows share one batched product: products of a few rows cost as much as the call."""
SPARE = 4
"""Times as many rows as there are that such a product may have; the others fill up the shards with fewer."""


class AdapterExperts:
    """The shards of an ensemble of adapters: an `ensemble.Experts`."""

    def __init__(self, base: Any, adapters: Mapping[int, Mapping[str, Tensor]], lora: LoraParams) -> None:
        """Take the base as it is, without copying it, and a copy of each adapter.

        Args:
            base: a Hugging Face model on its device.
            adapters: shard -> its tensors under peft's names.
            lora: the same for all.

        Raises:
            ConfigError: there is no adapter, or one is of other layers.
        """
        if not adapters:
            raise ConfigError("an ensemble needs at least one shard that can answer; every shard is empty or switched off")
        self.alive, self.config, self._base = tuple(sorted(adapters)), base.config, base
        self._layers, self._scale = adapted_layers(base, lora), lora.alpha / lora.rank
        self._stack = AdapterStack(self._layers, len(self.alive), device_of(base))
        for row, shard in enumerate(self.alive):
            self._stack.put(row, adapters[shard])
        self._experts: dict[int, torch.nn.Module] = {}

    def expert(self, shard: int) -> torch.nn.Module:
        """One shard's model over the base's own tensors."""
        if shard not in self._experts:
            row = self.alive.index(shard)
            route = _Route(self._stack, self._scale)
            route.runs = _runs([row], self._stack.rows.device)
            self._experts[shard] = twin(self._base, self._layers, route.forward)
        return self._experts[shard]

    def routed(self, shards: Sequence[int]) -> torch.nn.Module:
        """Each row by its shard's adapter, over one pass of the base."""
        if len(set(shards)) == 1:
            return self.expert(shards[0])
        return _Routed(*self._routing, [self.alive.index(shard) for shard in shards])

    @cached_property
    def _routing(self) -> tuple[torch.nn.Module, _Route]:
        """The twin that all routed models share, and what tells it whose rows come."""
        route = _Route(self._stack, self._scale)
        return twin(self._base, self._layers, route.forward), route


@dataclass(frozen=True, kw_only=True)
class _Runs:
    """Rows of a batch in the order of their adapters."""

    adapters: tuple[int, ...]
    """Of each row of the batch as the caller has it, the row of the stack."""
    order: Tensor | None
    """Places of the caller's rows in the new order; None where they stand in it."""
    back: Tensor | None
    counts: tuple[tuple[int, int], ...]
    """Row of the stack and how many rows of the batch, ascending."""
    first: int
    """Of the stack's rows that are needed; `last` is behind them."""
    last: int
    filled: Tensor | None
    """((last - first) x most,) places of rows in the new order, as many for each adapter; None where all have as many."""
    taken: Tensor | None
    """(rows,) places in `filled` of the rows in the new order."""

    @property
    def slots(self) -> int:
        """Rows of a product with as many for each adapter."""
        return (self.last - self.first) * max(count for _, count in self.counts)


class _Route:
    """Whose rows come; each adapted layer of a twin looks here."""

    def __init__(self, stack: AdapterStack, scale: float) -> None:
        self.stack, self.scale = stack, scale
        self.runs: _Runs | None = None

    def forward(self, number: int, module: Any, states: Tensor) -> Tensor:
        """The frozen layer and each row's own adapter."""
        made = frozen(module, states)
        runs = self.runs
        if runs is None:
            raise ConfigError("adapters were asked without rows; call the module that `routed` gave")
        rows = states.reshape(len(runs.adapters), -1, states.shape[-1]).to(made.dtype)
        out = made.view(len(rows), -1, made.shape[-1])
        if len(runs.counts) > 1 and rows.shape[1] <= SHORT and runs.slots <= SPARE * len(rows):
            self._in_one(out, rows, number, runs)
        else:
            self._in_turn(out, rows, number, runs)
        return made

    def _in_turn(self, out: Tensor, rows: Tensor, number: int, runs: _Runs) -> None:
        start = 0
        for adapter, count in runs.counts:
            down, up = (each[0].to(out.dtype) for each in self.stack.matrices(adapter, adapter + 1)[number])
            own, into = rows[start : start + count].flatten(0, 1), out[start : start + count].flatten(0, 1)
            into.addmm_(own @ down.T, up.T, alpha=self.scale)
            start += count

    def _in_one(self, out: Tensor, rows: Tensor, number: int, runs: _Runs) -> None:
        down, up = (each.to(out.dtype) for each in self.stack.matrices(runs.first, runs.last)[number])
        if runs.filled is None or runs.taken is None:
            inner = torch.bmm(rows.view(len(down), -1, rows.shape[-1]), down.mT)
            out.view(len(up), -1, out.shape[-1]).baddbmm_(inner, up.mT, alpha=self.scale)
        else:
            inner = torch.bmm(rows.index_select(0, runs.filled).view(len(down), -1, rows.shape[-1]), down.mT)
            out.add_(torch.bmm(inner, up.mT).view(-1, *out.shape[1:]).index_select(0, runs.taken), alpha=self.scale)


class _Routed(torch.nn.Module):
    """A twin whose rows belong to shards."""

    def __init__(self, model: Any, route: _Route, adapters: Sequence[int]) -> None:
        super().__init__()
        self.model, self.config, self._route = model, model.config, route
        self._runs = _runs(adapters, route.stack.rows.device)

    def forward(self, input_ids: Tensor, past_key_values: _Cache | None = None, **given: Any) -> Answer:
        """Logits row by row, in the caller's order; so are the tensors among the keyword arguments."""
        runs = past_key_values.runs if past_key_values else self._runs
        tensors = {name: value for name, value in {"input_ids": input_ids, **given}.items() if isinstance(value, Tensor)}
        if runs.order is not None:
            tensors = {name: value.index_select(0, runs.order) for name, value in tensors.items()}
        self._route.runs = runs
        found = self.model(**{**given, **tensors}, past_key_values=past_key_values.cache if past_key_values else None)
        self._route.runs = None
        logits = found.logits if runs.back is None else found.logits.index_select(0, runs.back)
        return Answer(logits, _Cache(runs, getattr(found, "past_key_values", None)))


@dataclass
class _Cache:
    """The base's cache, in the order of the adapters, and whose row is whose."""

    runs: _Runs
    cache: Any

    def batch_select_indices(self, kept: Tensor) -> None:
        """Keep these rows of the caller's, in this order."""
        after = _runs([self.runs.adapters[i] for i in kept.tolist()], kept.device)
        places = kept if self.runs.back is None else self.runs.back[kept]
        self.cache.batch_select_indices(places if after.order is None else places[after.order])
        self.runs = after


def _runs(adapters: Sequence[int], device: torch.device) -> _Runs:
    order = sorted(range(len(adapters)), key=lambda i: adapters[i])
    counts = tuple((each, adapters.count(each)) for each in sorted(set(adapters)))
    first, last, most = counts[0][0], counts[-1][0] + 1, max(count for _, count in counts)
    filled = torch.zeros(last - first, most, dtype=torch.int64)
    taken, start = [], 0
    for each, count in counts:
        filled[each - first, :count] = torch.arange(start, start + count)
        taken += [(each - first) * most + i for i in range(count)]
        start += count
    even, sorted_already = len(taken) == filled.numel(), order == list(range(len(order)))
    return _Runs(
        adapters=tuple(adapters),
        order=None if sorted_already else torch.tensor(order, device=device),
        back=None if sorted_already else torch.tensor(order).argsort().to(device),
        counts=counts,
        first=first,
        last=last,
        filled=None if even else filled.flatten().to(device),
        taken=None if even else torch.tensor(taken, device=device),
    )
