"""Share of answer tokens that are the model's first choice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ..protocols import Subject
from ..readings import broken
from ..records import Direction


@dataclass(frozen=True, kw_only=True)
class ExactMemorization:
    """Fraction of positions, end token included, where the most likely token given the true prefix is the true one, in [0, 1].

    Paper: Tirumala et al. 2022, "Memorization Without Overfitting" (arXiv:2205.10770).

    Does not start at 0 for a model that knows nothing: words of the template are guessed without knowing the person. Read it beside the hold-out.
    """

    direction: ClassVar[Direction] = Direction.LOWER

    def values(self, subject: Subject) -> NDArray[np.float64]:
        """(records,) shares; not a number where the model's words are none."""
        shares = np.array([np.mean(hits) for hits in subject.token_hits], dtype=np.float64)
        return np.where(broken(subject.token_log_probs), np.nan, shares)


EXPORT = ExactMemorization
