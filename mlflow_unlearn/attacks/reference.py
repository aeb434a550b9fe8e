"""The reference model attack."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..protocols import Subject
from ..readings import mean_log_probs


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Suspicion = how much more likely, per token, the answer is to the model than to a reference model that never saw it.

    Paper: Carlini et al. 2021 (arXiv:2012.07805), section 5.2, comparison with another model; Watson et al. 2022, "On the Importance of Difficulty
    Calibration in Membership Inference Attacks" (arXiv:2111.08440), section 3.

    As good as the reference: one of other data or another size is surprised by other things, and the difference then tells the models apart instead
    of the members.
    """

    def suspicion(self, subject: Subject) -> NDArray[np.float64]:
        """(records,) nats per token.

        Raises:
            UnmeasurableError: the evaluation was given no reference model.
        """
        reference = mean_log_probs(subject.reference_log_probs)
        return mean_log_probs(subject.token_log_probs) - np.maximum(reference, LOWEST)


LOWEST = -1e4
"""A reference that finds an answer impossible finds it so by this much: members it cannot write are not told apart by infinity."""

EXPORT = Reference
