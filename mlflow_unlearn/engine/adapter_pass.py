"""One pass over a frozen base for micro-batches of several shards, each through its own adapter, with the gradients of the adapters.

A shard's bits are the same in any company. The shape of its micro-batch depends on its own records alone; only micro-batches of one shape share a
pass; the base's products give a row the same bits whatever other rows there are (BLAS kernels do from a few rows on: lengths are multiples of 16);
an adapter's products run shard by shard inside one batched product.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..digests import sha256_json
from ..params import LoraParams
from ..protocols import Example, Sequences
from .adapter_layers import AdaptedLayer, AdapterStack, frozen, twin
from .batches import collate, cut
from .examples import answer_tokens, device_of
from .forward import IGNORED, head_of
from .head import PIECE_LOGITS, PIECE_LOGITS_ELSEWHERE, cross_entropy
from .machine import Machine
from .memory import set_activation_checkpointing
from .packing import may_pack, packs_of

STEP = 16
"""Lengths, and numbers of tokens with loss, are multiples of it."""


@dataclass(frozen=True, kw_only=True)
class Micro:
    """Rows of one shard as they run."""

    input_ids: Tensor
    """(rows, length) int64; rows of packs where these are shorter."""
    position_ids: Tensor | None
    attention_mask: Tensor | None
    """(rows, length), or (rows, 1, length, length) for packs; None where the causal mask is all."""
    places: Tensor
    """(tokens,) int64: which of the flattened states predict a token with loss; the first one again where filled up."""
    targets: Tensor
    """(tokens,) int64."""
    weights: Tensor
    """(tokens,) float32: what a token counts in the loss of its optimiser batch; 0 where filled up."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Equal for micro-batches that may share a pass."""
        mask = 0 if self.attention_mask is None else self.attention_mask.ndim
        return self.input_ids.shape[1], self.input_ids.shape[0], mask, len(self.places)

    @property
    def tokens(self) -> int:
        """Padding included."""
        return self.input_ids.numel()


@dataclass(frozen=True, kw_only=True)
class Part:
    """A micro-batch on its way through the pass."""

    row: int
    """Of the shard in the stacks."""
    micro: Micro
    seed: tuple[int, ...]
    """Of its dropout."""


def shaped(model: Any, examples: Sequence[Example], index: Sequence[int], token_budget: int, pad: int) -> list[Micro]:
    """One optimiser batch of one shard, cut and brought to shapes that others are likely to have too; the shortest first."""
    share = 1.0 / max(1, answer_tokens([examples[i] for i in index]))
    made = [_micro(model, collate(examples, piece, pad), share, pad) for piece in cut(examples, index, token_budget)]
    return sorted(made, key=lambda each: each.shape)


class AdapterPass:
    """A base at work with the adapters of a group of shards."""

    def __init__(self, base: Any, layers: Sequence[AdaptedLayer], lora: LoraParams, shards: int, machine: Machine) -> None:
        self.weights, self.gradients = (AdapterStack(layers, shards, device_of(base)) for _ in range(2))
        self.scale, self.dropout, self.machine = lora.alpha / lora.rank, lora.dropout, machine
        self.model = twin(base, layers, self._forward)
        self.parts: Sequence[Part] = ()
        self._gathered: tuple[AdapterStack, AdapterStack] | None = None
        self.matrices, self.into = self.weights.matrices(0, 0), self.gradients.matrices(0, 0)
        self.anchor = torch.zeros((), requires_grad=True)
        """Makes the first adapted layer's output require a gradient, since neither its input nor a leaf of autograd does."""

    def recompute(self, token_budget: int) -> None:
        """Make activations again in the backward pass where the machine says so. The twin stays in eval mode: the base's own dropout is off."""
        on = set_activation_checkpointing(self.model, self.machine.activation_checkpointing, token_budget, self.machine.dtype)
        for module in self.model.modules():
            if getattr(module, "gradient_checkpointing", None) is not None:
                module.training = on

    def add(self, parts: Sequence[Part]) -> list[float]:
        """Add the gradients of micro-batches of one shape to those of their shards.

        Returns:
            Each micro-batch's share of the loss of its optimiser batch, nats per token.
        """
        rows = [part.row for part in parts]
        if rows == list(range(rows[0], rows[0] + len(rows))):
            self.matrices, self.into = (stack.matrices(rows[0], rows[-1] + 1) for stack in (self.weights, self.gradients))
            return self._run(parts)
        weights, gradients = self._copies()
        torch.index_select(self.weights.rows, 0, torch.tensor(rows, device=weights.rows.device), out=weights.rows[: len(rows)])
        gradients.rows[: len(rows)].zero_()
        self.matrices, self.into = weights.matrices(0, len(rows)), gradients.matrices(0, len(rows))
        losses = self._run(parts)
        for place, row in enumerate(rows):
            self.gradients.rows[row] += gradients.rows[place]
        return losses

    def _run(self, parts: Sequence[Part]) -> list[float]:
        self.parts = parts
        with self._precision():
            losses = _losses(self.model, [part.micro for part in parts])
        torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
        return [float(loss.detach()) for loss in losses]

    def mask(self, number: int, states: Tensor) -> Tensor | None:
        """Dropout of one layer's input, (shards, tokens, inputs): each shard's own draw, which comes out again when activations are made again."""
        if not self.dropout:
            return None
        masks = torch.empty_like(states)
        for mask, part in zip(masks, self.parts, strict=True):
            generator = torch.Generator(states.device).manual_seed(int(sha256_json([*part.seed, number])[:12], 16))
            mask.bernoulli_(1.0 - self.dropout, generator=generator)
        return masks.div_(1.0 - self.dropout)

    def _forward(self, number: int, module: Any, states: Tensor) -> Tensor:
        made: Tensor = _Adapted.apply(states, self.anchor, number, module, self)  # type: ignore[no-untyped-call]
        return made

    def _copies(self) -> tuple[AdapterStack, AdapterStack]:
        """Weights and gradients of shards that are not neighbours in the stacks."""
        if self._gathered is None:
            size, device = len(self.weights.rows), self.weights.rows.device
            self._gathered = AdapterStack(self.weights.layers, size, device), AdapterStack(self.weights.layers, size, device)
        return self._gathered

    def _precision(self) -> AbstractContextManager[Any]:
        kind = self.weights.rows.device.type
        return torch.autocast(kind, dtype=torch.bfloat16, enabled=self.machine.dtype == "bfloat16")


class _Adapted(torch.autograd.Function):
    """A frozen linear layer and the adapters of a group; the adapters' gradients are added where they are kept."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, anchor: Tensor, number: int, module: Any, work: AdapterPass) -> Tensor:
        made = frozen(module, states)
        down, up = (each.to(made.dtype) for each in work.matrices[number])
        rows = states.reshape(len(down), -1, states.shape[-1]).to(made.dtype)
        mask = work.mask(number, rows)
        dropped = rows if mask is None else rows * mask
        inner = torch.bmm(dropped, down.mT)
        made.view(len(up), -1, up.shape[1]).baddbmm_(inner, up.mT, alpha=work.scale)
        ctx.save_for_backward(dropped, inner, mask)
        ctx.kept = down, up, *work.into[number], module, work.scale, states.shape, states.dtype
        return made

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        dropped, inner, mask = ctx.saved_tensors
        down, up, into_down, into_up, module, scale, shape, dtype = ctx.kept
        above = upstream.reshape(len(up), -1, up.shape[1]).to(up.dtype)
        of_inner = torch.bmm(above, up).mul_(scale)
        into_up.add_(torch.bmm(above.mT, inner), alpha=scale)
        into_down.add_(torch.bmm(of_inner.mT, dropped))
        if not ctx.needs_input_grad[0]:
            return None, None, None, None, None
        of_states = (above.flatten(0, 1) @ _weight(module).to(up.dtype)).view_as(dropped)
        if mask is None:
            of_states.baddbmm_(of_inner, down)
        else:
            of_states.addcmul_(torch.bmm(of_inner, down), mask)
        return of_states.view(shape).to(dtype), None, None, None, None


def _weight(module: Any) -> Tensor:
    """(outputs, inputs)."""
    weight: Tensor = module.weight
    return weight if isinstance(module, torch.nn.Linear) else weight.T


def _micro(model: Any, rows: Sequences, share: float, pad: int) -> Micro:
    """Padded to the next multiple of 16; rows in packs where that is shorter."""
    if rows.classes is not None:
        return _classified(model, rows, rows.classes, share, pad)
    labels = rows.labels[:, 1:]
    owners, places = (labels != IGNORED).nonzero(as_tuple=True)
    packs = packs_of(rows) if may_pack(model, rows) and not isinstance(head_of(model), torch.nn.Identity) else None
    if packs is None:
        length = _length(model, rows.input_ids.shape[1] - 1)
        input_ids, positions, mask = _wider(rows.input_ids[:, :-1], length, pad), None, None
        found = owners * length + places
    else:
        old = packs.input_ids.shape[1]
        length = _rounded(old)  # a pack may be longer than the model's positions, which start again with each row
        input_ids, positions, mask = (
            _wider(packs.input_ids, length, pad),
            _wider(packs.position_ids, length, 0),
            _square(packs.attention_mask, length),
        )
        flat = packs.places[owners, places - rows.shared]
        found = flat // old * length + flat % old
    tokens = _rounded(max(1, len(found)))
    return Micro(
        input_ids=input_ids,
        position_ids=positions,
        attention_mask=mask,
        places=_wider(found[None], tokens, 0)[0],
        targets=_wider(labels[owners, places][None], tokens, 0)[0],
        weights=_wider(torch.full((1, len(found)), share), tokens, 0)[0],
    )


def _classified(model: Any, rows: Sequences, classes: Tensor, share: float, pad: int) -> Micro:
    length = _length(model, rows.input_ids.shape[1])
    return Micro(
        input_ids=_wider(rows.input_ids, length, pad),
        position_ids=None,
        attention_mask=_wider(rows.attention_mask, length, 0),
        places=torch.arange(len(classes)),
        targets=classes,
        weights=torch.full((len(classes),), share),
    )


def _losses(model: Any, micros: Sequence[Micro]) -> list[Tensor]:
    """Each micro-batch's share of the loss of its optimiser batch."""
    device = device_of(model)
    states, head = _states(model, micros, device)
    each = len(states) // len(micros)
    places = torch.cat([micro.places + each * number for number, micro in enumerate(micros)]).to(device)
    targets, weights = (torch.cat([getattr(micro, name) for micro in micros]).to(device) for name in ("targets", "weights"))
    picked, count = states.index_select(0, places), len(micros[0].places)
    whole = getattr(head, "out_features", 1) * len(places) <= PIECE_LOGITS.get(device.type, PIECE_LOGITS_ELSEWHERE)
    # Where the head works in pieces, they must be those of a shard that runs alone.
    cuts = [slice(start, start + count) for start in range(0, len(places), count)]
    nats = torch.cat([cross_entropy(head, picked[piece], targets[piece]) for piece in ([slice(None)] if whole else cuts)])
    return [(nats * weights)[piece].sum() for piece in cuts]


def _states(model: Any, micros: Sequence[Micro], device: torch.device) -> tuple[Tensor, torch.nn.Module]:
    """(rows x length, width) states and the head; (rows, classes) logits of a classifier."""
    names = [name for name in ("input_ids", "position_ids", "attention_mask") if getattr(micros[0], name) is not None]
    given = {name: torch.cat([getattr(micro, name) for micro in micros]).to(device) for name in names}
    head = head_of(model)
    if isinstance(head, torch.nn.Identity):
        return model(**given, use_cache=False).logits.flatten(0, -2), head
    return model.base_model(**given, use_cache=False).last_hidden_state.flatten(0, 1), head


def _length(model: Any, tokens: int) -> int:
    """Rounded up, but not beyond the last position that the model has."""
    limit = getattr(model.config, "max_position_embeddings", None) or tokens + STEP
    return max(tokens, min(_rounded(tokens), limit))


def _rounded(number: int) -> int:
    return -(-number // STEP) * STEP


def _wider(values: Tensor, length: int, fill: int) -> Tensor:
    return torch.nn.functional.pad(values, (0, length - values.shape[1]), value=fill)


def _square(mask: Tensor, length: int) -> Tensor:
    """(packs, 1, length, length): what is added sees itself alone."""
    grown = torch.eye(length, dtype=torch.bool).expand(len(mask), 1, length, length).clone()
    grown[:, :, : mask.shape[2], : mask.shape[3]] = mask
    return grown
