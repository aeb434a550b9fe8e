"""The logit lens: what a model would answer if it ended after a layer.

A memory that the last layers were taught to hide may still stand in the middle ones. The model's own final norm and head are applied to what leaves
the layer (nostalgebraist 2020, "interpreting GPT: the logit lens"); a middle layer was never trained for that, so that a low figure shows little,
and a difference between forgotten and never-seen records shows much.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .layers import decoder_list, require_layer


@contextmanager
def ending_after(model: Any, layer: int) -> Iterator[Any]:
    """The same model without the decoder layers above `layer`, counted from 0, as long as the context lasts.

    Raises:
        ConfigError: an architecture whose layers are not found, or that has no such layer.
    """
    require_layer(model, layer)
    owner, name, layers = decoder_list(model)
    setattr(owner, name, layers[: layer + 1])
    try:
        yield model
    finally:
        setattr(owner, name, layers)
