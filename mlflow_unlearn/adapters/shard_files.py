"""A shard's weights as one safetensors file whose tensor names begin with the shard's, so that the files of an ensemble lie side by side."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ..ensembles import tensor_prefix
from ..errors import StoreError


def write_weights(path: Path, shard: int, weights: Mapping[str, torch.Tensor]) -> None:
    """Replace the file; without weights it is removed: the shard is empty and its model the base.

    Raises:
        StoreError: the disk refuses.
    """
    if not weights:
        path.unlink(missing_ok=True)
        return
    named = {f"{tensor_prefix(shard)}{key}": value.detach().cpu().contiguous() for key, value in weights.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".aside.") as aside:
            new = Path(aside) / path.name
            save_file(named, new)
            with new.open("rb") as stream:
                os.fsync(stream.fileno())
            new.rename(path)
    except (OSError, SafetensorError) as error:  # its writer has an error of its own for a full disk
        raise StoreError(f"{path}: the weights could not be saved ({error}); free some space and run again") from error


def read_weights(path: Path, shard: int, device: str = "cpu") -> dict[str, torch.Tensor]:
    """The weights under their own names."""
    return {key.removeprefix(tensor_prefix(shard)): value for key, value in load_file(path, device=device).items()}
