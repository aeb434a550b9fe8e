"""The loss attack."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..protocols import Subject
from ..readings import mean_log_probs


@dataclass(frozen=True, kw_only=True)
class Loss:
    """Suspicion = mean log-probability of the answer's tokens: members have a lower loss.

    Paper: Yeom et al. 2018, "Privacy Risk in Machine Learning" (arXiv:1709.01604), adversary 2.

    Does not calibrate for how hard a record is, so that a difficult member may look like a stranger.
    """

    def suspicion(self, subject: Subject) -> NDArray[np.float64]:
        """(records,) nats per token, at most 0."""
        return mean_log_probs(subject.token_log_probs)


EXPORT = Loss
