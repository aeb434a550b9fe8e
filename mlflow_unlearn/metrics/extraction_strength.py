"""How little of an answer must be given for the rest to follow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ..protocols import Subject
from ..readings import broken
from ..records import Direction


@dataclass(frozen=True, kw_only=True)
class ExtractionStrength:
    """1 - k / T with k the shortest prefix from which on every greedy token is right, T the answer's tokens including the end token; 0 when none is.

    Paper: Carlini et al. 2021, "Extracting Training Data from Large Language Models" (arXiv:2012.07805), in the form of Wang et al. 2024
    ("Towards Effective Evaluations and Comparisons for LLM Unlearning Methods", arXiv:2406.09179).

    Does not see answers given in other words. Published code never goes below 1 / T, even where not one token is right; this goes to 0.
    """

    direction: ClassVar[Direction] = Direction.LOWER

    def values(self, subject: Subject) -> NDArray[np.float64]:
        """(records,) strengths in [0, 1]; not a number where the model's words are none."""
        strengths = np.array([_right_tail(hits) / len(hits) for hits in subject.token_hits], dtype=np.float64)
        return np.where(broken(subject.token_log_probs), np.nan, strengths)


def _right_tail(hits: NDArray[np.bool_]) -> int:
    """How many tokens at the end are right without a gap."""
    wrong = np.flatnonzero(~hits)
    return len(hits) - (int(wrong[-1]) + 1 if len(wrong) else 0)


EXPORT = ExtractionStrength
