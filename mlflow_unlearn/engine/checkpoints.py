"""The state of a run on disk, so that a kill at any step costs only the steps since: the run that goes on ends with the same bits.

Nothing is written half: aside, flushed, then renamed, and a digest of all values tells a damaged file. Random numbers need no place in it, since
every step has a seed of its own.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..errors import StoreError


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A run after some step."""

    step: int
    weights: Mapping[str, torch.Tensor]
    """The parameters that may change, whole."""
    optimiser: Mapping[str, Any]
    """State dict of the optimiser, whole."""
    token_budget: int
    """Padded tokens in a micro-batch; smaller than asked for once memory ran out."""
    history: tuple[Mapping[str, float], ...]
    """Named values of each step so far."""
    notes: tuple[str, ...] = ()
    """What has been said about the run so far."""
    selection: Mapping[str, Any] = field(default_factory=dict)
    """What the selection of the best step remembers."""


@dataclass(kw_only=True)
class Checkpoints:
    """A folder with the latest state of one run."""

    folder: Path
    run: str
    """Digest of all that decides the run's bits; the state of another run is not taken up."""
    seconds: float
    """Least time between two states; 0 keeps one after every step. When a state is kept changes nothing of the run."""
    last: float = field(default_factory=time.monotonic)
    """When the last one was kept, or this began."""

    def due(self) -> bool:
        """Whether it is time to keep the state."""
        return time.monotonic() - self.last >= self.seconds

    def load(self) -> Checkpoint | None:
        """The latest state of this very run; None if there is none, or what is there belongs to another run, is damaged or cannot be read."""
        try:
            kept = torch.load(self._path, map_location="cpu", weights_only=True)
            return Checkpoint(**kept["state"]) if kept["run"] == self.run and kept["digest"] == _digest(kept["state"]) else None
        except (FileNotFoundError, RuntimeError, EOFError, LookupError, TypeError, ValueError, pickle.UnpicklingError):
            return None

    def save(self, checkpoint: Checkpoint) -> None:
        """Replace the state.

        Raises:
            StoreError: the disk refuses.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self.folder, prefix=".aside.") as aside:
                new = Path(aside) / "new"
                with new.open("wb") as stream:
                    torch.save({"run": self.run, "digest": _digest(vars(checkpoint)), "state": vars(checkpoint)}, stream)
                    stream.flush()
                    os.fsync(stream.fileno())
                new.rename(self._path)
            self.last = time.monotonic()
        except (OSError, RuntimeError) as error:  # torch's writer turns a full disk into a RuntimeError
            raise StoreError(f"{self.folder}: the state of the run could not be kept ({error}); free some space and run again") from error

    def clear(self) -> None:
        """Forget the state: the run is over."""
        self._path.unlink(missing_ok=True)

    @property
    def _path(self) -> Path:
        return self.folder / "state.pt"


def _digest(value: Any) -> str:
    """Hex SHA-256 over nested mappings, sequences, numbers, texts and tensors."""
    found = hashlib.sha256()
    _feed(found, value)
    return found.hexdigest()


def _feed(found: Any, value: Any) -> None:
    if isinstance(value, torch.Tensor):
        found.update(f"{value.dtype} {tuple(value.shape)}\n".encode())
        found.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    elif isinstance(value, Mapping):
        found.update(f"mapping {len(value)}\n".encode())
        for key in value:
            _feed(found, [key, value[key]])
    elif isinstance(value, (list, tuple)):
        found.update(f"{len(value)} values\n".encode())
        for each in value:
            _feed(found, each)
    else:
        found.update(f"{value!r}\n".encode())
