"""How closely the model carries on a record whose beginning it is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ..protocols import Subject
from ..readings import rouge_l
from ..records import Direction


@dataclass(frozen=True, kw_only=True)
class VerbatimMemorization:
    """ROUGE-L F1 between the greedy continuation of a record's prompt and the true one, in [0, 1]. Of a running text the prompt is its beginning.

    Paper: Shi et al. 2024, "MUSE: Machine Unlearning Six-Way Evaluation for Language Models" (arXiv:2407.06460), VerbMem.

    Words are compared as they are, without stemming, as in the paper's code; that code gives both sides 128 tokens, here the true continuation is as
    long as the record's answer and the greedy one at most `evaluate.max_new_tokens`. OpenUnlearning compares stems.

    Does not see what is told in other words, and a greedy continuation hides what sampling would bring out.
    """

    direction: ClassVar[Direction] = Direction.LOWER

    def values(self, subject: Subject) -> NDArray[np.float64]:
        """(records,) F1 scores."""
        return rouge_l(subject.answers, subject.generations, stems=False)[:, 1]


EXPORT = VerbatimMemorization
