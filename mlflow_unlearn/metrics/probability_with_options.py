"""Probability of the true answer among the answers offered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ..protocols import Subject
from ..readings import mean_log_probs
from ..records import Direction


@dataclass(frozen=True, kw_only=True)
class ProbabilityWithOptions:
    """P(answer) / (P(answer) + sum of P(wrong answers)), in [0, 1], with length-normalised probabilities.

    Paper: Maini et al. 2024, "TOFU" (arXiv:2401.06121), section 3, for questions about real authors and world facts; lengths are normalised as in
    its code. OpenUnlearning leaves records without wrong answers out and gives the values of the others to the wrong records.

    Guessing gives 1 / (1 + wrong answers), not 0, and data with more wrong answers look harder. Does not show whether the answer would be given
    without being offered.
    """

    direction: ClassVar[Direction] = Direction.LOWER
    lacking: ClassVar[str] = "wrong answers"

    def defined(self, subject: Subject) -> NDArray[np.bool_]:
        """(records,) whether the record has wrong answers."""
        return np.array([len(wrong) > 0 for wrong in subject.wrong_log_probs], dtype=np.bool_)

    def values(self, subject: Subject) -> NDArray[np.float64]:
        """(records,) shares; not a number where the record has no wrong answers, or no answer any probability."""
        options = zip(mean_log_probs(subject.token_log_probs), subject.wrong_log_probs, strict=True)
        return np.array([_share(own, mean_log_probs(wrong)) for own, wrong in options], dtype=np.float64)


def _share(own: float, wrong: NDArray[np.float64]) -> float:
    if not len(wrong):
        return np.nan
    with np.errstate(invalid="ignore"):
        return float(np.exp(own - np.logaddexp.reduce([own, *wrong])))


EXPORT = ProbabilityWithOptions
