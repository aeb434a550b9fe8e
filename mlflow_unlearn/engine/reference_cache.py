"""What the frozen parent says, kept from run to run under a digest of all it depends on: weights, tokens (and so data and template), precision.

The files hold log-probabilities and hidden states of people's records: they belong into the git-ignored raw folder, which purging removes.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ..errors import StoreError
from ..protocols import Example

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class ReferenceCache:
    """A folder of tensors that can always be computed again."""

    folder: Path
    model_digest: str
    """Tensor digest of the parent."""

    def get(self, what: str, examples: Sequence[Example], compute: Callable[[], Tensors]) -> Tensors:
        """The tensors of `what` for these examples: read if they are there and whole, else computed and kept.

        Args:
            what: what is kept, with everything but model and tokens that it depends on, e.g. `answer_states float32`.
            examples: the records, in order.
            compute: makes the tensors.

        Raises:
            StoreError: the disk refuses.
        """
        path = self.folder / f"{self._digest(what, examples)}.safetensors"
        kept = self._read(path)
        if kept is None:
            kept = compute()
            self._keep(path, kept)
        return kept

    @staticmethod
    def _read(path: Path) -> Tensors | None:
        """What the file holds; None where there is none, and a damaged one is as good as none."""
        with suppress(FileNotFoundError, NotADirectoryError, SafetensorError):
            tensors: Tensors = load_file(path)
            return tensors
        return None

    def _digest(self, what: str, examples: Sequence[Example]) -> str:
        digest = hashlib.sha256(f"{self.model_digest}\n{what}\n".encode())
        for example in examples:
            digest.update(f"{example.prompt_length} {example.label} {' '.join(map(str, example.tokens))}\n".encode())
        return digest.hexdigest()

    def _keep(self, path: Path, tensors: Tensors) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self.folder, prefix=".aside.") as aside:
                file = Path(aside) / "new"
                save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, file)
                with file.open("rb") as stream:
                    os.fsync(stream.fileno())
                file.rename(path)
        except (OSError, SafetensorError) as error:
            raise StoreError(f"{path.parent}: what the parent says could not be kept ({error}); free some space and run again") from error
