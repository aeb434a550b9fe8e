"""The gradient norm attack."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..protocols import Subject


@dataclass(frozen=True, kw_only=True)
class GradientNorm:
    """Suspicion = minus the L2 norm of the whole gradient of the answer's mean loss, in eval mode: training has brought members near a minimum.

    Paper: Wang et al. 2024, "Pandora's White-Box" (arXiv:2402.17012), gradient norm baseline; Nasr et al. 2019 (arXiv:1812.00910) for gradients as
    a sign of membership.

    OpenUnlearning averages the norms of single tensors and draws dropout while it does. Costs a backward pass a record, and a model that was left
    where its gradients are small for everybody hides members.
    """

    def suspicion(self, subject: Subject) -> NDArray[np.float64]:
        """(records,) at most 0."""
        return -np.asarray(subject.gradient_norms, dtype=np.float64)


EXPORT = GradientNorm
