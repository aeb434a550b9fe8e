"""The Min-K% attack."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from ..protocols import Subject
from ..readings import lowest_mean


@dataclass(frozen=True, kw_only=True)
class MinK:
    """Suspicion = mean log-probability of the least likely tokens of the answer: a member has few outliers.

    Paper: Shi et al. 2024, "Detecting Pretraining Data from Large Language Models" (arXiv:2310.16789), equation 1.

    Does not calibrate for the vocabulary (Min-K%++ does).
    """

    share: float = 0.4
    """Which share of the answer's tokens counts as least likely; MUSE uses 0.4. At least one token."""

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ConfigError("share must be above 0 and at most 1")

    def suspicion(self, subject: Subject) -> NDArray[np.float64]:
        """(records,) nats per token, at most 0."""
        return np.array([lowest_mean(tokens, self.share) for tokens in subject.token_log_probs], dtype=np.float64)


EXPORT = MinK
