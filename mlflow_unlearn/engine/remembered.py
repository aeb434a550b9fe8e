"""What a model said of a set of records, kept on disk, so that nothing is asked twice: not by a run that goes on after a kill, and not of a parent
that many unlearned models are compared with.

A file holds one property of one set under a digest of the weights, of what was done to them and of the records' tokens. Answers are texts about
people: the folder belongs under build/raw.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any, cast
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from ..digests import write_atomically
from ..protocols import Shadows, Subject

Ragged = Sequence[NDArray[Any]]


@dataclass(frozen=True, kw_only=True, eq=False)
class RememberedSubject:
    """A `protocols.Subject` that answers from the folder where it can, and asks the model where it must."""

    ask: Callable[[], Subject]
    """The set as the model sees it; called at most once, on the first question that the folder cannot answer."""
    answers: Sequence[str]
    """Per record, the true answer."""
    folder: Path
    key: str
    """Digest of all that decides what is said: weights, records, batches."""

    @cached_property
    def token_log_probs(self) -> Ragged:
        """See `protocols.Subject`."""
        return self._ragged("token_log_probs")

    @cached_property
    def token_hits(self) -> Ragged:
        """See `protocols.Subject`."""
        return self._ragged("token_hits")

    @cached_property
    def token_moments(self) -> Ragged:
        """See `protocols.Subject`."""
        return self._ragged("token_moments")

    @cached_property
    def paraphrased_log_probs(self) -> Ragged:
        """See `protocols.Subject`."""
        return self._ragged("paraphrased_log_probs")

    @cached_property
    def wrong_log_probs(self) -> Sequence[Ragged]:
        """See `protocols.Subject`."""
        counts = self._kept("wrong_counts", lambda: [np.array([len(each) for each in self._live.wrong_log_probs])])[0]
        flat = iter(self._kept("wrong_log_probs", lambda: [one for each in self._live.wrong_log_probs for one in each]))
        return [[next(flat) for _ in range(count)] for count in counts]

    @cached_property
    def gradient_norms(self) -> NDArray[np.float64]:
        """See `protocols.Subject`."""
        return self._kept("gradient_norms", lambda: [self._live.gradient_norms])[0]

    @cached_property
    def reference_log_probs(self) -> Ragged:
        """See `protocols.Subject`; asked anew, since the key says nothing of the reference."""
        return self._live.reference_log_probs

    @cached_property
    def prefixed_log_probs(self) -> Ragged:
        """See `protocols.Subject`; asked anew, since the key says nothing of the prefix."""
        return self._live.prefixed_log_probs

    @property
    def shadows(self) -> Shadows:
        """See `protocols.Subject`."""
        return self._live.shadows

    @cached_property
    def generations(self) -> Sequence[str]:
        """See `protocols.Subject`."""
        path = self.folder / f"{self.key}.generations.json"
        if path.is_file():
            try:
                return cast("list[str]", json.loads(path.read_text(encoding="utf-8")))
            except ValueError:
                path.unlink()  # cut short: asked again
        found = list(self._live.generations)
        write_atomically(path, json.dumps(found, ensure_ascii=False).encode())
        return found

    @cached_property
    def _live(self) -> Subject:
        return self.ask()

    def _ragged(self, name: str) -> Ragged:
        return self._kept(name, lambda: getattr(self._live, name))

    def _kept(self, name: str, ask: Callable[[], Ragged]) -> list[NDArray[Any]]:
        path = self.folder / f"{self.key}.{name}.npz"
        if path.is_file():
            try:
                with np.load(BytesIO(path.read_bytes()), allow_pickle=False) as kept:
                    pieces = np.split(kept["flat"], kept["ends"][:-1]) if len(kept["ends"]) else []
                if name.startswith("wrong") or name == "gradient_norms" or len(pieces) == len(self.answers):
                    return pieces
            except (BadZipFile, ValueError, KeyError, OSError, EOFError):
                path.unlink()  # cut short or damaged: asked again
        found = [np.asarray(each) for each in ask()]
        ends = np.cumsum([len(each) for each in found], dtype=np.int64)
        _write(path, flat=np.concatenate(found) if found else np.empty(0), ends=ends)
        return found


def _write(path: Path, **arrays: NDArray[Any]) -> None:
    sink = BytesIO()
    np.savez(sink, allow_pickle=False, **arrays)
    write_atomically(path, sink.getvalue())
