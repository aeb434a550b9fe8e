"""Whether what the model writes is varied, or the same words again and again."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ..protocols import Subject
from ..records import Direction

WEIGHTS = {2: 2 / 3, 3: 4 / 3}
"""Words in a run to the weight of its entropy; the mean of the two weighted entropies is taken."""


@dataclass(frozen=True, kw_only=True)
class Fluency:
    """Weighted entropy of the pairs and triples of words in the greedy answer, bits; 0 where one run repeats, or there are fewer than three words.

    Paper: Meng et al. 2022, "Locating and Editing Factual Associations in GPT" (arXiv:2202.05262), section 3.3 and its code, where the text is split
    by NLTK; here by letters and digits, and every other sign but space for itself.

    Grows with the length of the answer, so that two models are to be compared on the same questions with the same limit. Does not see whether
    sentences make sense: random words are as varied as can be. Needs no second model and no download; it is not the score that OpenUnlearning
    calls fluency, which a classifier of gibberish gives.
    """

    direction: ClassVar[Direction] = Direction.NEAR_CENTRE

    def values(self, subject: Subject) -> NDArray[np.float64]:
        """(records,) bits."""
        return np.array([_weighted_entropy(_words(text)) for text in subject.generations], dtype=np.float64)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+|[^\w\s]", text)


def _weighted_entropy(words: Sequence[str]) -> float:
    return float(np.mean([weight * _entropy(Counter(zip(*(words[i:] for i in range(n)), strict=False))) for n, weight in WEIGHTS.items()]))


def _entropy(counts: Counter[tuple[str, ...]]) -> float:
    """Bits."""
    shares = np.array(list(counts.values()), dtype=np.float64) / max(1, counts.total())
    return float(-(shares * np.log2(shares)).sum())


EXPORT = Fluency
