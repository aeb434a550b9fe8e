"""How fast it comes back: a model is trained on something again, and looked at on the way.

A memory that was hidden returns in a few steps, one that is gone does not (arXiv:2406.13356 for benign relearning). Probes that teach the very
records can teach what was gone as well (arXiv:2506.00688): what is looked at must therefore not be among what is trained on, and is read against
records that were never seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ..params import OptimiserParams
from ..protocols import Example
from .descent import fit


def relearned(
    model: Any, examples: Sequence[Example], optimiser: OptimiserParams, seed: int, pad: int, every: Callable[[int, int], bool]
) -> Iterator[int]:
    """Train the model on examples, in place, and stop to be looked at in eval mode: yields the number of steps done, 0 first and the last always.

    Args:
        model: a causal language model or sequence classifier.
        examples: what is learned again.
        optimiser: how.
        seed: of the order.
        pad: token id used for padding.
        every: step and number of steps -> whether to stop there.
    """
    model.eval()
    yield 0
    for done in fit(model, examples, optimiser, seed, pad):
        if done.step == done.steps or every(done.step, done.steps):
            yield done.step
