"""How much of the true answer the model's own answer contains, in order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ..protocols import Subject
from ..readings import rouge_l
from ..records import Direction


@dataclass(frozen=True, kw_only=True)
class RougeLRecall:
    """Longest common subsequence of stemmed words between the greedy and the true answer, over the true answer's words, in [0, 1].

    Paper: Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries"; used as in Maini et al. 2024 (arXiv:2401.06121).

    Does not tell a remembered fact from a template: "lives in" counts as much as the town. Read it beside the hold-out.
    """

    direction: ClassVar[Direction] = Direction.LOWER

    def values(self, subject: Subject) -> NDArray[np.float64]:
        """(records,) recalls."""
        return rouge_l(subject.answers, subject.generations, stems=True)[:, 0]


EXPORT = RougeLRecall
