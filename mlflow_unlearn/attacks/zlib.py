"""The loss attack, in view of how much there is to say."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..protocols import Subject
from ..readings import mean_log_probs


@dataclass(frozen=True, kw_only=True)
class Zlib:
    """Suspicion = mean log-probability of the answer's tokens over the bytes that zlib needs for its text: what repeats itself is likely to anybody.

    Paper: Carlini et al. 2021, "Extracting Training Data from Large Language Models" (arXiv:2012.07805), section 5.2, ratio of log-perplexity to zlib
    entropy; with the sign turned, since both are small for members.

    Does not calibrate short answers, whose bytes are mostly zlib's own header; and of two equally likely answers the longer is the more suspicious.
    """

    def suspicion(self, subject: Subject) -> NDArray[np.float64]:
        """(records,) nats per token and byte, at most 0."""
        sizes = np.array([len(zlib.compress(answer.encode())) for answer in subject.answers], dtype=np.float64)
        return mean_log_probs(subject.token_log_probs) / sizes


EXPORT = Zlib
