"""How much of the true answer to a question the model's own answer contains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from ..protocols import Subject
from ..readings import rouge_l
from ..records import Direction

STOPS = ("\n\n", "\nQuestion", "Question:")
"""Where an answer ends in which a model goes on to ask itself the next question; as in the paper's code."""


@dataclass(frozen=True, kw_only=True)
class KnowledgeMemorization:
    """ROUGE-L between the greedy and the true answer to a question, in [0, 1], without what the model writes behind its answer.

    Paper: Shi et al. 2024, "MUSE: Machine Unlearning Six-Way Evaluation for Language Models" (arXiv:2407.06460), KnowMem.

    The paper's code takes the F1 score, without stemming, and puts questions with answers before each question; the prompt here is the record's, and
    whoever makes the records decides what stands in it. OpenUnlearning takes the F1 score of stems.

    Does not tell a remembered fact from the words around it, and long answers lose F1 even where they contain the fact.
    """

    direction: ClassVar[Direction] = Direction.LOWER

    score: Literal["f1", "recall"] = "f1"
    """Whether words that the true answer does not have count against the model's."""

    def values(self, subject: Subject) -> NDArray[np.float64]:
        """(records,) scores."""
        said = [_first_answer(text) for text in subject.generations]
        return rouge_l(subject.answers, said, stems=False)[:, 1 if self.score == "f1" else 0]


def _first_answer(text: str) -> str:
    for stop in STOPS:
        text = text.split(stop)[0]
    return text


EXPORT = KnowledgeMemorization
