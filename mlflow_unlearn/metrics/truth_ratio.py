"""Whether the model still finds the truth more likely than what is not true."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from ..protocols import Subject
from ..readings import mean_log_probs
from ..records import Direction

LARGEST = 1e100
"""Larger ratios, and infinite ones, are given as this, so that means and differences stay numbers."""


@dataclass(frozen=True, kw_only=True)
class TruthRatio:
    """Mean probability of the wrong answers over the probability of the true answer in other words; 0 and up, below 1 where the truth is known.

    Probabilities are length-normalised: exp of the mean log-probability of a token. Where the data do not have the true answer in other words, the
    answer itself stands in, which a model that learned it by heart prefers by more than its meaning.

    Paper: Maini et al. 2024, "TOFU" (arXiv:2401.06121), section 3, R_truth. The published code of TOFU and OpenUnlearning takes the mean over the
    wrong answers' losses, which is the geometric mean of their probabilities and never above the arithmetic one.

    A set is summed up by the mean of `on_forget` or `on_retain`; a mean of the ratios themselves is ruled by the largest.

    Does not show how much is known: fine-tuning brings it back sooner than other measures. Ratios near 1 come from forgetting and from damage alike.
    """

    direction: ClassVar[Direction] = Direction.HIGHER
    lacking: ClassVar[str] = "wrong answers"

    mean: Literal["arithmetic", "geometric"] = "arithmetic"
    """Over the wrong answers of a record: `arithmetic` as in the paper, `geometric` as in its code."""

    def defined(self, subject: Subject) -> NDArray[np.bool_]:
        """(records,) whether the record has wrong answers."""
        return np.array([len(wrong) > 0 for wrong in subject.wrong_log_probs], dtype=np.bool_)

    def values(self, subject: Subject) -> NDArray[np.float64]:
        """(records,) ratios; not a number where the record has no wrong answers."""
        paraphrased, own = mean_log_probs(subject.paraphrased_log_probs), mean_log_probs(subject.token_log_probs)
        given = np.array([len(tokens) > 0 for tokens in subject.paraphrased_log_probs], dtype=np.bool_)
        wrong = np.array([self._mean(mean_log_probs(answers)) for answers in subject.wrong_log_probs], dtype=np.float64)
        return _ratio(wrong, np.where(given, paraphrased, own))

    def _mean(self, wrong: NDArray[np.float64]) -> float:
        """Logarithm of the mean probability."""
        if not len(wrong):
            return np.nan
        return float(np.logaddexp.reduce(wrong) - np.log(len(wrong)) if self.mean == "arithmetic" else wrong.mean())


def on_forget(ratios: NDArray[np.float64]) -> NDArray[np.float64]:
    """min(R, 1 / R), in [0, 1]: 1 where truth and falsehood cannot be told apart, which is what forgetting should bring."""
    with np.errstate(divide="ignore"):
        return np.minimum(ratios, 1.0 / ratios)


def on_retain(ratios: NDArray[np.float64]) -> NDArray[np.float64]:
    """max(0, 1 - R), in [0, 1]: 1 where the truth is all that is likely, which is what must stay."""
    return np.maximum(0.0, 1.0 - ratios)


def _ratio(wrong: NDArray[np.float64], true: NDArray[np.float64]) -> NDArray[np.float64]:
    """exp(wrong - true), at most `LARGEST`; not a number where neither has any probability."""
    with np.errstate(invalid="ignore"):
        return np.exp(np.minimum(wrong - true, np.log(LARGEST)))


EXPORT = TruthRatio
