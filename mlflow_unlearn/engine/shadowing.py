"""Shadow models for U-LiRA: trained on a random half of the records, then made to forget that half, as the model under test was.

Paper: Hayes et al. 2024, "Inexact Unlearning Needs More Careful Evaluations to Avoid a False Sense of Privacy" (arXiv:2403.01218); shadows of Carlini
et al. 2022, "Membership Inference Attacks From First Principles" (arXiv:2112.03570), section IV. Shadows come in pairs that share the records between
them, so that each record lies in half of the models, whatever their number, and more can be added later.

What a shadow said is kept as soon as it is known, and shadows that are known are not trained again. The files hold how sure models are of records
about people: the folder belongs under build/raw. Shadows made otherwise than the model under test (other settings, other data beside the records)
show less than there is to see.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from ..digests import sha256_json, write_atomically
from ..errors import ConfigError, DivergedError
from ..protocols import Shadows, Subject
from ..readings import confidences

Chosen = NDArray[np.bool_]
"""(records,) which of them."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a shadow is made: as the model under test was, but for the coins."""

    train: Callable[[Chosen, int], Any]
    """Which records to train on, beside all else that the model under test was trained on, and a seed, to a model."""
    unlearn: Callable[[Any, Chosen, int], Any]
    """A model, which records it is to forget, and a seed, to the model that has forgotten them."""
    ask: Callable[[Any], Subject]
    """A model to all records as it sees them."""
    settings: str
    """Digest of all that decides what the three do."""


@dataclass(frozen=True, kw_only=True)
class Casting:
    """How many shadows, over how many records."""

    records: int
    models: int
    seed: int
    """Of coins, trainings and unlearnings."""

    def __post_init__(self) -> None:
        if self.models < 2 or self.models % 2:
            raise ConfigError(f"shadows: found {self.models}, expected an even number from 2 on, so that each record lies in half of them")

    def trained_on(self, number: int) -> Chosen:
        """Fresh coins for each pair of shadows; the second of a pair has what the first has not."""
        heads = np.random.default_rng([self.seed, number // 2]).random(self.records) < 0.5
        return ~heads if number % 2 else heads


def cast(recipe: Recipe, casting: Casting, folder: Path) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """Make shadows one after another; a run that was killed goes on behind the last one that was kept.

    Args:
        recipe: how one is made.
        casting: how many.
        folder: where what they say is kept, one file a shadow under a digest of recipe and casting.

    Yields:
        The shadow's number, from 0, and its (records,) confidences log(p / (1 - p)).

    Raises:
        DivergedError: a shadow says what is not a number.
    """
    for number in range(casting.models):
        path = folder / f"{_key(recipe, casting, number)}.shadow.npz"
        known = _read(path, casting.records)
        if known is None:
            known = _made(recipe, casting, number)
            _keep(path, known)
        yield number, known


def shadows(recipe: Recipe, casting: Casting, folder: Path) -> Shadows:
    """All of them, for `attacks.lira`; errors as in `cast`."""
    said = [known for _, known in cast(recipe, casting, folder)]
    return Shadows(confidences=np.stack(said), trained_on=np.stack([casting.trained_on(number) for number in range(casting.models)]))


def _made(recipe: Recipe, casting: Casting, number: int) -> NDArray[np.float64]:
    chosen = casting.trained_on(number)
    of_training, of_unlearning = (int(seed) for seed in np.random.SeedSequence([casting.seed, number]).generate_state(2))
    model = recipe.unlearn(recipe.train(chosen, of_training), chosen, of_unlearning)
    said = confidences(recipe.ask(model).token_log_probs)
    broken = int(np.isnan(said).sum())
    if broken:
        raise DivergedError(f"shadow {number}: says of {broken} of {len(said)} records what is not a number; lower the learning rate it is made with")
    return said


def _key(recipe: Recipe, casting: Casting, number: int) -> str:
    """Not of how many shadows there are in all, so that more can be added."""
    return sha256_json([recipe.settings, casting.records, casting.seed, number])[:40]


def _read(path: Path, records: int) -> NDArray[np.float64] | None:
    """What a shadow said; None if it is not known, or the file was cut short or damaged."""
    try:
        with np.load(BytesIO(path.read_bytes()), allow_pickle=False) as kept:
            said: NDArray[np.float64] = kept["confidences"]
    except (BadZipFile, ValueError, KeyError, OSError, EOFError):
        return None
    return said if said.shape == (records,) else None


def _keep(path: Path, said: NDArray[np.float64]) -> None:
    sink = BytesIO()
    np.savez(sink, allow_pickle=False, confidences=said)
    write_atomically(path, sink.getvalue())
