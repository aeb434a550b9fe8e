"""An attack on an ensemble, calibrated by the shards that never saw the record.

Every record lies in one shard, so that the others say how hard it is for models like these. Taking that away takes the luck of the coins with it:
which records happened to be included, and how hard those are. An included canary that was forgotten and one that was never seen stay exchangeable,
since no other shard saw either.

This is difficulty calibration with reference models (Watson et al. 2022, arXiv:2111.08440), which here cost nothing; the difference is taken in
shares of the reference, since what a member loses by being forgotten is about all of it. Measured on 800 canaries of the customers (docs/log.md):
members are told from strangers at AUC .998, as without calibration; with the plain difference at .853.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..protocols import Attack, Subject
from .ensemble import EnsembleSubject

SMALLEST = 1e-9
"""A smaller reference would make any difference a large one."""


@dataclass(frozen=True)
class CalibratedAttack:
    """An attack whose suspicion of a record is how far its shard's model is above the mean of the others, in shares of that mean's size.

    On one model, and where no other shard answers, it is the attack as it is.
    """

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
        return (own - reference) / np.maximum(np.abs(reference), SMALLEST)
