"""Low-rank adapters of many shards over one frozen base: which layers have one, and the numbers of all shards, a row each.

Paper: Hu et al. 2021, "LoRA" (arXiv:2106.09685), section 4.1: a linear layer gives W x + (alpha / rank) B A x, with A of small random numbers and B
zero at the start. Parametrisation and tensor names are peft's, so that a shard's adapter is a file that peft loads.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..errors import ConfigError
from ..params import LoraParams
from .randomness import private_randomness

PEFT_PREFIX = "base_model.model."
"""Before a module's path in peft's tensor names."""
CLASSIFIER_HEADS = ("score", "classifier")
"""Where sequence classifiers keep their head, as peft looks for it."""
ALIGNED = 16
"""Numbers between possible starts of a matrix: 64 bytes, since a BLAS may choose its kernel by alignment."""

Matrices = tuple[Tensor, Tensor]
"""A, (shards, rank, inputs), and B, (shards, outputs, rank)."""


@dataclass(frozen=True, kw_only=True)
class AdaptedLayer:
    """A linear layer with an adapter."""

    path: str
    inputs: int
    outputs: int
    rank: int
    start: int
    """Where A begins in a shard's row."""

    @property
    def down(self) -> slice:
        """Places of A in a shard's row."""
        return slice(self.start, self.start + self.rank * self.inputs)

    @property
    def up(self) -> slice:
        """Places of B."""
        first = _aligned(self.down.stop)
        return slice(first, first + self.outputs * self.rank)

    def named(self, row: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Both matrices of a shard's row as views, under peft's names."""
        yield f"{PEFT_PREFIX}{self.path}.lora_A.weight", row[self.down].view(self.rank, self.inputs)
        yield f"{PEFT_PREFIX}{self.path}.lora_B.weight", row[self.up].view(self.outputs, self.rank)


def adapted_layers(base: Any, lora: LoraParams) -> tuple[AdaptedLayer, ...]:
    """The layers of the base that get an adapter, in the base's own order.

    Raises:
        ConfigError: `lora.target_modules` names what is no linear layer of this base, or the head.
    """
    head = _head(base)
    linear = {name: module for name, module in base.named_modules() if _is_linear(module) and module is not head}
    wanted = lora.target_modules
    if not isinstance(wanted, str):
        unknown = [name for name in wanted if not any(_named(path, name) for path in linear)]
        if unknown or not wanted:
            raise ConfigError(
                f"params.yaml: lora.target_modules: found {', '.join(unknown) or 'nothing'}, expected names of linear layers other than the head; "
                f"this base has {', '.join(sorted({path.rpartition('.')[2] for path in linear}))}"
            )
        linear = {path: module for path, module in linear.items() if any(_named(path, name) for name in wanted)}
    layers, start = [], 0
    for path, module in linear.items():
        layers.append(AdaptedLayer(path=path, rank=lora.rank, start=start, **_widths(module)))
        start = _aligned(layers[-1].up.stop)
    return tuple(layers)


class AdapterStack:
    """Numbers of the same adapter layers for several shards: weights, or their gradients."""

    def __init__(self, layers: Sequence[AdaptedLayer], shards: int, device: torch.device) -> None:
        self.layers = tuple(layers)
        self.rows = torch.zeros(shards, _aligned(self.layers[-1].up.stop), device=device)
        """(shards, width) float32; between the matrices of a row there are zeros."""
        self._views: dict[tuple[int, int], list[Matrices]] = {}

    def matrices(self, first: int, last: int) -> list[Matrices]:
        """Both matrices of every layer for the shards of rows `first` to before `last`, as views."""
        if (first, last) not in self._views:
            rows = self.rows[first:last]
            self._views[first, last] = [
                (rows[:, each.down].view(-1, each.rank, each.inputs), rows[:, each.up].view(-1, each.outputs, each.rank)) for each in self.layers
            ]
        return self._views[first, last]

    def begin(self, row: int, seed: int) -> None:
        """Give a row its first weights, which depend on the seed alone: A from kaiming_uniform(a=sqrt(5)), B zero."""
        with torch.no_grad(), private_randomness(seed):
            for down, up in self.matrices(row, row + 1):
                down.copy_(torch.nn.init.kaiming_uniform_(torch.empty(down.shape[1:]), a=math.sqrt(5)))
                up.zero_()

    def adapter(self, row: int) -> dict[str, Tensor]:
        """A row's matrices under peft's names, copied to the processor."""
        return {name: value.detach().cpu().clone() for layer in self.layers for name, value in layer.named(self.rows[row])}

    def put(self, row: int, adapter: Mapping[str, Tensor]) -> None:
        """Take over what `adapter` gave.

        Raises:
            ConfigError: it is not of these layers and this rank.
        """
        own = {name: value for layer in self.layers for name, value in layer.named(self.rows[row])}
        wrong = own.keys() ^ adapter.keys() | {name for name in own.keys() & adapter.keys() if own[name].shape != adapter[name].shape}
        if wrong:
            raise ConfigError(f"adapter: {len(wrong)} tensors are not those of this base and `lora` (first: {min(wrong)}); train the shard again")
        with torch.no_grad():
            for name, value in own.items():
                value.copy_(adapter[name])


def twin(base: Any, layers: Sequence[AdaptedLayer], forward: Callable[[int, Any, Tensor], Tensor]) -> Any:
    """A model of its own over the base's tensors, frozen and in eval mode, whose adapted layers compute something else.

    Args:
        base: a Hugging Face model; nothing about it changes.
        layers: those to adapt.
        forward: from the number of a layer, the twin's own linear module and its input to the output.
    """
    parameters = {id(value): torch.nn.Parameter(value.detach(), requires_grad=False) for value in base.parameters()}
    shared = {id(value): value for value in (*base.buffers(), base.config)}
    made = copy.deepcopy(base, {**parameters, **shared}).eval()
    for number, layer in enumerate(layers):
        module = made.get_submodule(layer.path)
        module.forward = partial(forward, number, module)  # a partial, unlike a closure, follows into copies of the twin
    return made


def frozen(module: Any, states: Tensor) -> Tensor:
    """What a twin's linear module gives without its adapter."""
    plain: Tensor = type(module).forward(module, states)
    return plain


def _head(base: Any) -> torch.nn.Module | None:
    """What turns states into logits."""
    output: torch.nn.Module | None = base.get_output_embeddings()
    return output if output is not None else next((found for name in CLASSIFIER_HEADS if (found := getattr(base, name, None)) is not None), None)


def _is_linear(module: Any) -> bool:
    """Transformers' Conv1D, which gpt2 has, is a linear layer whose weight is transposed."""
    return isinstance(module, torch.nn.Linear) or type(module).__name__ == "Conv1D"


def _widths(module: Any) -> dict[str, int]:
    outputs, inputs = module.weight.shape if isinstance(module, torch.nn.Linear) else module.weight.T.shape
    return {"inputs": inputs, "outputs": outputs}


def _named(path: str, name: str) -> bool:
    return path == name or path.endswith(f".{name}")


def _aligned(number: int) -> int:
    return -(-number // ALIGNED) * ALIGNED
