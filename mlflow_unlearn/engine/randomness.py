"""Randomness that leaves no trace: torch draws initial weights and dropout from one global generator, which belongs to the caller."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def private_randomness(seed: int) -> Iterator[None]:
    """Inside, torch's default generators start from `seed`; afterwards they stand where they stood before."""
    devices = list(range(torch.cuda.device_count()))
    with torch.random.fork_rng(devices=devices):
        for generator in (torch.default_generator, *(torch.cuda.default_generators[i] for i in devices)):
            generator.manual_seed(seed)
        yield
