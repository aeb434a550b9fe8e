"""An attack on an ensemble, calibrated by the shards that never saw the record.

Every record lies in one shard, so that the others say how hard it is for models like these. Taking that away takes the luck of the coins with it:
which records happened to be included, and how hard those are. An included canary that was forgotten and one that was never seen stay exchangeable,
since no other shard saw either.

This is difficulty calibration with reference models (Watson et al. 2022, arXiv:2111.08440), which here cost nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..protocols import Attack, Subject
from .ensemble import EnsembleSubject


@dataclass(frozen=True)
class CalibratedAttack:
    """An attack whose suspicion of a record is what its shard's model gives above the mean of the other shards'; on one model the attack as it is."""

    attack: Attack

    def suspicion(self, subject: Subject) -> NDArray[np.float64]:
        """(records,) higher = more likely a member."""
        own = self.attack.suspicion(subject)
        if not isinstance(subject, EnsembleSubject) or len(subject.ensemble.experts.alive) < 2:
            return own
        alive = subject.ensemble.experts.alive
        by_shard = np.stack([self.attack.suspicion(subject.under(shard)) for shard in alive])
        answering = np.array([[shard == own_shard for own_shard in subject.shards] for shard in alive])
        reference: NDArray[np.float64] = np.where(answering, 0.0, by_shard).sum(0) / (~answering).sum(0)
        return own - reference
