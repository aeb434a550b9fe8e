"""Probability of the true answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ..protocols import Subject
from ..readings import mean_log_probs
from ..records import Direction


@dataclass(frozen=True, kw_only=True)
class Probability:
    """exp(mean log-probability of the answer's tokens, end token included): the geometric mean of the token probabilities, in [0, 1].

    Paper: Maini et al. 2024, "TOFU" (arXiv:2401.06121; length-normalised probability).

    Does not show what sampling or another phrasing would bring out.
    """

    direction: ClassVar[Direction] = Direction.LOWER

    def values(self, subject: Subject) -> NDArray[np.float64]:
        """(records,) probabilities."""
        return np.exp(mean_log_probs(subject.token_log_probs))


EXPORT = Probability
