"""Subjects written out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from simulated import SimulatedSubject


@pytest.fixture
def by_hand() -> SimulatedSubject:
    """Four records: all known, one late miss, only the end known, nothing known."""
    hits = [[1, 1, 1, 1], [1, 1, 0, 1], [0, 0, 0, 1], [0, 0]]
    return SimulatedSubject(
        token_log_probs=[np.log([0.5, 0.5, 1.0, 1.0]), np.log([0.25, 1.0]), np.array([-np.inf, 0.0]), np.log([0.1])],
        token_hits=[np.array(row, dtype=bool) for row in hits],
        generations=["the red house", "the red", "house the", ""],
        answers=["the red house", "the red house", "the red house", "blue"],
    )
