"""A model as it is after its weights were rounded to the precision it is deployed in.

Forgetting that lives in small changes of weights is rounded away with them: 4-bit models brought 83 % of what had been forgotten back, against 21 %
in full precision (Zhang et al. 2025, arXiv:2410.16454). Only weights are rounded; the arithmetic stays as it is, so that every precision can be
looked at on any machine. As bitsandbytes, GPTQ and AWQ do by default, the integer formats round the linear layers and leave embeddings and output
head alone; adapters that were not merged are rounded as layers of their own. A runtime that rounds activations too, or other layers, is not covered.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

import torch
from scipy import stats as distributions
from torch import Tensor

from ..errors import ConfigError
from .forward import unwrapped

INT4_GROUP = 32
"""Weights of one row that share a scale, as in GGUF's Q4_0; GPTQ and AWQ usually take 128, which rounds more coarsely."""
NF4_BLOCK = 64
"""QLoRA's block (Dettmers et al. 2023, arXiv:2305.14314, section 3)."""
FULL = "fp32"


def at_precision(model: Any, name: str) -> Any:
    """A copy of the model with rounded weights, in the dtype it had; `fp32` is the model itself.

    Raises:
        ConfigError: a precision that is not known, or one that this architecture cannot be rounded to.
    """
    if name == FULL:
        return model
    if name not in ROUNDINGS:
        raise ConfigError(f"policy.yaml: deployed_precisions: '{name}' is not known; known are {', '.join((FULL, *ROUNDINGS))}")
    rounded = copy.deepcopy(model)
    with torch.no_grad():
        for weight in _weights(rounded, name):
            weight.copy_(ROUNDINGS[name](weight.float()).to(weight.dtype))
    return rounded.eval()


def _weights(model: Any, name: str) -> list[Tensor]:
    """What is rounded, (outputs, inputs) each: every parameter for float formats, linear layers but the output head for integer ones.

    A rounding that skips what it does not know would look like a model that nothing comes back in.

    Raises:
        ConfigError: matrices in layers that are not linear, such as experts held in one block.
    """
    if name in _FLOATS:
        return list(model.parameters())
    head, found, unknown = unwrapped(model).get_output_embeddings(), dict[int, Tensor](), set[str]()
    for layer in model.modules():
        if layer is head or isinstance(layer, _LEFT):
            continue
        for weight in (each for each in layer.parameters(recurse=False) if each.ndim > 1):
            if isinstance(layer, torch.nn.Linear):
                found[id(weight)] = weight
            elif type(layer).__name__ == _TRANSPOSED:
                found[id(weight)] = weight.T
            else:
                unknown.add(type(layer).__name__)
    if unknown:
        raise ConfigError(
            f"policy.yaml: deployed_precisions: '{name}' rounds linear layers and cannot round {', '.join(sorted(unknown))}; leave it out"
        )
    return list(found.values())


def _float(weight: Tensor, dtype: torch.dtype) -> Tensor:
    return weight.to(dtype).float()


def _integers(weight: Tensor, largest: int, group: int | None) -> Tensor:
    """Symmetric: a scale for each group of a row, or for the whole row, so that its largest weight is the largest integer."""
    grouped = _grouped(weight, group or weight.shape[-1])
    scale = grouped.abs().amax(-1, keepdim=True) / largest
    levels = torch.round(grouped / scale.clamp(min=torch.finfo(torch.float32).tiny)).clamp(-largest, largest)
    return _ungrouped(levels * scale, weight)


def _normal_floats(weight: Tensor, block: int) -> Tensor:
    """The nearest of sixteen levels, times the largest weight of the block."""
    grouped = _grouped(weight.flatten()[None], block)
    scale = grouped.abs().amax(-1, keepdim=True)
    levels = nf4_levels().to(weight.device)
    edges = (levels[1:] + levels[:-1]) / 2
    return _ungrouped(
        levels[torch.bucketize(grouped / scale.clamp(min=torch.finfo(torch.float32).tiny), edges)] * scale, weight.flatten()[None]
    ).reshape(weight.shape)


@cache
def nf4_levels() -> Tensor:
    """(16,) QLoRA's normal-float levels in [-1, 1], 0 among them: quantiles of the normal, 8 above zero and 7 below (appendix E)."""
    offset = (1 / 32 + 1 / 30) / 2
    above = distributions.norm.ppf([offset + (0.5 - offset) * i / 8 for i in range(8)])
    below = distributions.norm.ppf([offset + (0.5 - offset) * i / 7 for i in range(7)])
    levels = torch.tensor(sorted([*(-above), 0.0, *below]), dtype=torch.float64)
    return (levels / levels.abs().max()).float()


def _grouped(weight: Tensor, size: int) -> Tensor:
    """(rows, groups, size), the last group of a row filled up with zeros."""
    padded = torch.nn.functional.pad(weight, (0, -weight.shape[-1] % size))
    return padded.reshape(len(weight), -1, size)


def _ungrouped(grouped: Tensor, like: Tensor) -> Tensor:
    return grouped.flatten(-2)[..., : like.shape[-1]]


_FLOATS = frozenset({"bf16", "fp16"})
_LEFT = (torch.nn.Embedding, torch.nn.Conv1d)
"""Layers whose matrices stay as they are."""
_TRANSPOSED = "Conv1D"
"""GPT-2's linear layer, whose weight is (inputs, outputs)."""
ROUNDINGS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "bf16": partial(_float, dtype=torch.bfloat16),
    "fp16": partial(_float, dtype=torch.float16),
    "int8": partial(_integers, largest=127, group=None),
    "int4": partial(_integers, largest=7, group=INT4_GROUP),
    "nf4": partial(_normal_floats, block=NF4_BLOCK),
}
"""Name in policy.yaml -> float32 weights as they come back from that precision."""
