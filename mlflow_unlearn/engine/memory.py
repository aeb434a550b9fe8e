"""When memory is short: smaller micro-batches after running out, and activations made again where they would not fit."""

from __future__ import annotations

from typing import Any, Literal

import torch

from .forward import unwrapped

FITS = 0.6
"""Share of the free memory that kept activations may take; the rest is for gradients, logits and fragmentation."""

BYTES_A_TOKEN_AND_WIDTH = 34
"""Bytes kept per token, layer and unit of width by a transformer block in half precision without recomputation, but for the attention matrix, which
fused kernels do not keep (Korthikanti et al. 2022, "Reducing Activation Recomputation in Large Transformer Models", arXiv:2205.05198, equation 1)."""


def ran_out(error: BaseException) -> bool:
    """Whether an error means that there was not enough memory, on an accelerator or in the machine."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and "DefaultCPUAllocator: can't allocate memory" in str(error)
    )


def set_activation_checkpointing(model: Any, wish: Literal["auto", "on", "off"], token_budget: int, dtype: str) -> bool:
    """Turn recomputation of activations on or off.

    Args:
        model: a Hugging Face model, on its device.
        wish: `auto` turns it on where the activations of one micro-batch would take most of the free memory of a CUDA device.
        token_budget: most padded tokens in one micro-batch.
        dtype: precision of the arithmetic.

    Returns:
        Whether it is on.
    """
    on = wish == "on" or (wish == "auto" and not _fits(model, token_budget, dtype))
    causal = unwrapped(model)
    if on:
        causal.activation_checkpointing_enable()
    elif causal.is_activation_checkpointing:
        causal.activation_checkpointing_disable()
    return on


def _fits(model: Any, token_budget: int, dtype: str) -> bool:
    device = next(model.parameters()).device
    if device.type != "cuda":  # a machine's own memory is large, and swaps
        return True
    bytes_a_number = 1.0 if dtype == "bfloat16" else 2.0
    config = model.config
    needed = token_budget * config.num_hidden_layers * config.hidden_size * BYTES_A_TOKEN_AND_WIDTH * bytes_a_number
    free, _ = torch.cuda.mem_get_info(device)
    return bool(needed < FITS * free)
