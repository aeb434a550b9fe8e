"""The likelihood ratio attack, against models that have unlearned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats as distributions

from ..errors import ConfigError, UnmeasurableError
from ..protocols import Shadows, Subject
from ..readings import confidences

Values = NDArray[np.float64]

SMALLEST = 1e-3
"""Standard deviations below this are taken for it: shadows that agree to the last bit would make every other model infinitely unlikely."""
FURTHEST = 1e3
"""Confidences are cut at it on both sides: an answer of probability 0 is at minus infinity, where normals say nothing."""


@dataclass(frozen=True, kw_only=True)
class Lira:
    """Suspicion = log N(phi; in) - log N(phi; out), with one normal for each record and side over the confidences phi of shadow models.

    `in` are shadow models that were trained on the record and then made to forget it, as the model under test was; `out` never saw it. The question
    is then whether forgetting left what never seeing would not have.

    Paper: Carlini et al. 2022, "Membership Inference Attacks From First Principles" (arXiv:2112.03570), algorithm 1 and, for one side, equation 4;
    Hayes et al. 2024, "Inexact Unlearning Needs More Careful Evaluations to Avoid a False Sense of Privacy" (arXiv:2403.01218), U-LiRA.

    As strong as the shadows: too few, or trained and unlearned otherwise, and members hide. The whole record speaks through one number.
    """

    mode: Literal["online", "offline"] = "online"
    """`online` compares both sides. `offline` needs no shadow that was trained on the record: how far phi lies above those that were not."""
    few: int = 64
    """With fewer shadows on a side of a record, the side's standard deviation is that of all records together, as in the paper's section VI."""

    def __post_init__(self) -> None:
        if self.few < 2:
            raise ConfigError("few must be at least 2: one model has no standard deviation")

    def suspicion(self, subject: Subject) -> Values:
        """(records,) nats; for `offline`, the log-odds of phi under what never saw the record.

        Raises:
            UnmeasurableError: there are no shadow models, or none on a side of some record.
        """
        phi, shadows = _cut(confidences(subject.token_log_probs)), subject.shadows
        _require_sides(shadows, self.mode)
        outside = _Normals.fitted(shadows, ~shadows.trained_on, self.few)
        if self.mode == "offline":
            above = outside.standardised(phi)
            odds: Values = distributions.norm.logcdf(above) - distributions.norm.logsf(above)
            return odds
        return _Normals.fitted(shadows, shadows.trained_on, self.few).log_density(phi) - outside.log_density(phi)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Normals:
    """One a record."""

    mean: Values
    deviation: Values

    @classmethod
    def fitted(cls, shadows: Shadows, side: NDArray[np.bool_], few: int) -> _Normals:
        """Moments over the models of a side; the deviation is the unbiased one, of all records together where a record has few models."""
        counts, values = side.sum(0), np.where(side, _cut(shadows.confidences), 0.0)
        mean = values.sum(0) / counts
        squares = np.where(side, (values - mean) ** 2, 0.0).sum(0)
        together = squares.sum() / max(1, (counts - 1).sum())
        variance = np.where(counts < few, together, squares / np.maximum(1, counts - 1))
        return cls(mean=mean, deviation=np.maximum(np.sqrt(variance), SMALLEST))

    def standardised(self, phi: Values) -> Values:
        """(records,) deviations above the mean."""
        return (phi - self.mean) / self.deviation

    def log_density(self, phi: Values) -> Values:
        """(records,) nats."""
        found: Values = distributions.norm.logpdf(phi, self.mean, self.deviation)
        return found


def _cut(phi: Values) -> Values:
    return np.clip(phi, -FURTHEST, FURTHEST)


def _require_sides(shadows: Shadows, mode: str) -> None:
    sides = {"that never saw them": ~shadows.trained_on} | ({"trained on them": shadows.trained_on} if mode == "online" else {})
    for what, side in sides.items():
        missing = int((side.sum(0) == 0).sum())
        if missing:
            raise UnmeasurableError(
                f"lira: {missing} of {side.shape[1]} records have no shadow model {what}, expected at least one; train more shadows, half of them on "
                "each record" + (", or set `mode: offline`" if what == "trained on them" else "")
            )


EXPORT = Lira
