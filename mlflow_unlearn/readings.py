"""What several metrics and attacks read off the same numbers: mean log-probabilities, confidences and words in common."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

WORD = re.compile(r"[a-zA-Z0-9]")
"""What ROUGE counts as part of a word; a text without any scores 0 even against itself."""
CERTAIN = -1e-12
"""The highest log-probability that a confidence tells apart: one of exactly 0 is the rounding of a float32."""


def mean_log_probs(records: Iterable[Values]) -> Values:
    """(records,) mean log-probability of each record's tokens, nats; not a number where a record has none."""
    return np.array([tokens.mean() if len(tokens) else np.nan for tokens in records], dtype=np.float64)


def lowest_mean(tokens: Values, share: float) -> float:
    """Mean of the lowest share of a record's values, at least of one value."""
    count = max(1, math.floor(share * len(tokens)))
    return float(np.sort(tokens)[:count].mean())


def confidences(records: Iterable[Values]) -> Values:
    """(records,) log(p / (1 - p)), p the length-normalised probability of the record's tokens.

    Paper: Carlini et al. 2022, "Membership Inference Attacks From First Principles" (arXiv:2112.03570), section IV.C: scaled so, the confidences of
    many models in one record are about normal.
    """
    log_probs = np.minimum(mean_log_probs(records), CERTAIN)
    found: Values = log_probs - np.log(-np.expm1(log_probs))
    return found


def broken(records: Iterable[Values]) -> NDArray[np.bool_]:
    """(records,) whether a model said something of the record that is not a number: then its first choices mean nothing either."""
    return np.array([bool(np.isnan(tokens).any()) for tokens in records], dtype=np.bool_)


def rouge_l(answers: Sequence[str], said: Sequence[str], *, stems: bool) -> Values:
    """(records, 2) recall and F1 of the longest common subsequence of words, in [0, 1].

    Paper: Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries", section 3.1, with the counts of the package `rouge_score`.

    Args:
        answers: the true ones.
        said: what was written instead.
        stems: whether words count as equal that have the same English stem.
    """
    from rouge_score.rouge_scorer import RougeScorer  # a second of import

    scorer = RougeScorer(["rougeL"], use_stemmer=stems)

    def score(answer: str, own: str) -> tuple[float, float]:
        if answer == own and WORD.search(answer):  # most of what is retained; finding stems is the slow part
            return 1.0, 1.0
        found = scorer.score(answer, own)["rougeL"]
        return found.recall, found.fmeasure

    return np.array([score(*pair) for pair in zip(answers, said, strict=True)], dtype=np.float64).reshape(-1, 2)
