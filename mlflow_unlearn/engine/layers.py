"""Some decoder layers of a model and no more: for losses that look at what a layer makes of the tokens and not at the answers.

A run of the layers `first` to `layer` goes through the model's own forward, so that masks (sliding windows included), positions and rotary angles are
its own, bit for bit, whatever the architecture. For that time its list of layers is another one: it ends after `layer`, and where the inputs of
`first` are known already, the layers below are stand-ins that compute nothing. What is left above is the final norm of one pass. The layers that do
run are called themselves, so that the hooks of a sharded model and of adapters run too. (Leaving the forward by an exception would save that norm,
but would also skip every hook on the way out.)

Sequences are padded on the right and run without a mask, as in `forward`: what stands at padded places is meaningless and must not be used.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import ConfigError
from ..protocols import Sequences, View
from .forward import unwrapped


def decoder_layers(model: Any) -> torch.nn.ModuleList:
    """The decoder layers, in order.

    Raises:
        ConfigError: an architecture whose layers are not found.
    """
    return decoder_list(model)[2]


def require_layer(model: Any, layer: int) -> None:
    """Refuse a layer that the model does not have.

    Raises:
        ConfigError: with the number of layers.
    """
    found = len(decoder_list(model)[2])
    if not 0 <= layer < found:
        raise ConfigError(f"layer {layer}: the model has {found} decoder layers, counted from 0; set unlearn.method.layer to at most {found - 1}")


def first_trainable_layer(model: Any) -> int:
    """The lowest decoder layer that holds a parameter which may change; 0 too where one outside the layers may (embeddings, norms).

    Where none may change, the number of layers.
    """
    _, _, layers = decoder_list(model)
    inside = {id(parameter) for parameter in layers.parameters()}
    if any(parameter.requires_grad and id(parameter) not in inside for parameter in unwrapped(model).base_model.parameters()):
        return 0
    return next((i for i, each in enumerate(layers) if any(parameter.requires_grad for parameter in each.parameters())), len(layers))


@torch.no_grad()
def kept_layers(model: Any, rows: Sequences, first: int, layer: int | None) -> tuple[Tensor | None, Tensor | None]:
    """What enters layer `first` and what leaves layer `layer`, in one pass without gradient that ends there.

    Args:
        model: the parent.
        rows: a micro-batch.
        first: the lowest layer that may change.
        layer: the layer looked at; None: only what enters `first` is wanted, and the pass ends below it.

    Returns:
        (rows, length, width), None where `first` is 0, and (rows, length, width), None where `layer` is; in the precision that the model computes
        them in.

    Raises:
        ConfigError: the model has no such layer, or nothing up to it may change.
    """
    if layer is not None:
        _require_reach(model, first, layer)
        return _run(model, rows, first, layer, None)
    return (_run(model, rows, 0, first - 1, None)[1] if first else None), None


def layer_output(model: Any, rows: Sequences, layer: int, view: View, first: int) -> Tensor:
    """What leaves layer `layer`, with gradient; nothing above it is computed, nor below `first` where the view has kept what enters there.

    With dropout below `first`, the kept inputs are those without.

    Args:
        model: the model as it is now.
        rows: a micro-batch.
        layer: the layer looked at.
        view: what the parent says about the set that the rows come from.
        first: the layer that `view.layer_inputs` enter.

    Returns:
        (rows, length, width), in the precision that the model computes it in.

    Raises:
        ConfigError: the model has no such layer, or nothing up to it may change.
    """
    _require_reach(model, first, layer)
    kept = view.layer_inputs
    inputs = kept.padded(rows.index, rows.input_ids.shape[1]) if kept is not None else None
    return _run(model, rows, first, layer, inputs)[1]


def _require_reach(model: Any, first: int, layer: int) -> None:
    require_layer(model, layer)
    if first > layer:
        raise ConfigError(
            f"layer {layer}: none of the parameters that may change lies in it or below, so that nothing could change what it puts out; "
            "look at unlearn.method.parameters and unlearn.lora"
        )


class _Stand(torch.nn.Module):
    """Stands where a layer stood and has its attributes: some models ask a layer which kind of attention mask it wants."""

    def __init__(self, layer: torch.nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("layer"), name)


class _Skipped(_Stand):
    """Computes nothing."""

    def forward(self, *args: Any, **kwargs: Any) -> _Nothing:
        return _Nothing()


class _Nothing:
    """What a skipped layer puts out, whether the model takes it as it is or expects a tuple with it in front."""

    def __getitem__(self, place: int) -> _Nothing:
        return self


class _Watched(_Stand):
    """Keeps what enters and leaves; what enters may be replaced."""

    def __init__(self, layer: torch.nn.Module, inputs: Tensor | None = None) -> None:
        super().__init__(layer)
        self.entered, self.left = inputs, torch.empty(0)

    def forward(self, states: Tensor, *args: Any, **kwargs: Any) -> Any:
        self.entered = states if self.entered is None else self.entered
        output = self.layer(self.entered, *args, **kwargs)
        self.left = output[0] if isinstance(output, tuple) else output
        return output


def _run(model: Any, rows: Sequences, first: int, layer: int, inputs: Tensor | None) -> tuple[Tensor | None, Tensor]:
    """What enters `first` (None at 0) and what leaves `layer`; the layers below `first` run only where `inputs` of it are not given."""
    owner, name, layers = decoder_list(model)
    cut: list[torch.nn.Module] = list(layers)[: layer + 1]
    if inputs is not None:
        cut[:first] = [_Skipped(each) for each in cut[:first]]
    watched = {i: _Watched(cut[i], inputs if i == first else None) for i in {first, layer}}
    for i, each in watched.items():
        cut[i] = each
    setattr(owner, name, torch.nn.ModuleList(cut))
    try:
        unwrapped(model).base_model(input_ids=rows.input_ids, use_cache=False)
    finally:
        setattr(owner, name, layers)
    return watched[first].entered if first else None, watched[layer].left


def decoder_list(model: Any) -> tuple[torch.nn.Module, str, torch.nn.ModuleList]:
    """The module that holds the decoder layers, under which name, and the layers.

    Raises:
        ConfigError: an architecture whose layers are not found.
    """
    causal = unwrapped(model)
    count = causal.config.get_text_config(decoder=True).num_hidden_layers
    for owner in causal.base_model.modules():
        for name, each in owner.named_children():
            if isinstance(each, torch.nn.ModuleList) and len(each) == count:
                return owner, name, each
    raise ConfigError(
        f"{type(causal).__name__}: no list of {count} decoder layers was found in it; choose a method that looks at answers, such as npo"
    )
