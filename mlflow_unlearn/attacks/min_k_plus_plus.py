"""The Min-K%++ attack."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from ..protocols import Subject
from ..readings import lowest_mean

SMALLEST = 1e-6
"""Variance below which a place tells nothing; as in OpenUnlearning."""


@dataclass(frozen=True, kw_only=True)
class MinKPlusPlus:
    """Suspicion = mean of the lowest standardised log-probabilities of the answer's tokens: a member sits near a mode of what could have been said.

    A token's log-probability is taken relative to the mean and standard deviation of all log-probabilities at its place, each weighted by its own
    probability.

    Paper: Zhang et al. 2024, "Min-K%++: Improved Baseline for Detecting Pre-Training Data from Large Language Models" (arXiv:2404.02936), equation 3.

    Published code takes the variance as a difference of squares in the model's own precision, which is noise where the model is sure, and is not a
    number where the vocabulary is masked. Needs the whole distribution at each place, which a model behind an API does not show.
    """

    share: float = 0.4
    """Which share of the answer's tokens counts as lowest. At least one token."""

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ConfigError("share must be above 0 and at most 1")

    def suspicion(self, subject: Subject) -> NDArray[np.float64]:
        """(records,) standard deviations."""
        places = zip(subject.token_log_probs, subject.token_moments, strict=True)
        return np.array([lowest_mean(_standardised(tokens, moments), self.share) for tokens, moments in places], dtype=np.float64)


def _standardised(tokens: NDArray[np.float64], moments: NDArray[np.float64]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = (tokens - moments[:, 0]) / np.sqrt(np.maximum(moments[:, 1], SMALLEST))
    return found


EXPORT = MinKPlusPlus
