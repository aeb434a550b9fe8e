"""The ReCaLL attack."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..protocols import Subject
from ..readings import CERTAIN, mean_log_probs


@dataclass(frozen=True, kw_only=True)
class Recall:
    """Suspicion = log-probability of the answer behind a prefix of records never trained on, over its log-probability alone.

    Both are below 0, so that a ratio above 1 says that the prefix made the answer less likely: it takes more from members than from strangers, whom
    it shows what such records look like.

    Paper: Xie et al. 2024, "ReCaLL: Membership Inference via Relative Conditional Log-Likelihoods" (arXiv:2406.15968), section 3.

    Depends on the prefix, which should be of the same kind as the records, and fits no model that takes only short texts. Does not work where the
    model does not use its context.
    """

    def suspicion(self, subject: Subject) -> NDArray[np.float64]:
        """(records,) ratios, at least 0.

        Raises:
            UnmeasurableError: the evaluation was given no prefix, or it does not fit.
        """
        alone, behind = (mean_log_probs(each) for each in (subject.token_log_probs, subject.prefixed_log_probs))
        found: NDArray[np.float64] = np.clip(behind, LOWEST, CERTAIN) / np.clip(alone, LOWEST, CERTAIN)
        return found


LOWEST = -1e4
"""Of what the model finds impossible: a ratio of infinities is no number."""

EXPORT = Recall
