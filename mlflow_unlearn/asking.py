"""One metric or attack put to one set: a value a record, in the set's order, with what has none kept apart from what is broken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from .errors import UnlearnError, UnmeasurableError
from .protocols import Attack, Metric, PartialMetric, Subject
from .records import Direction

Values = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one model says of every record of a benchmark; plain numbers, so that the model itself can be let go."""

    values: Mapping[str, Values]
    """`set/measure` -> (records,); not a number where the record lacks what the measure needs."""
    absent: Mapping[str, str] = field(default_factory=dict)
    """`set/measure` -> why it could not be had."""


@dataclass(frozen=True, kw_only=True)
class Suspicion:
    """An attack in the place of a metric."""

    direction: ClassVar[Direction] = Direction.NEAR_CENTRE

    attack: Attack

    def values(self, subject: Subject) -> Values:
        """(records,) suspicions, higher = more likely a member."""
        return self.attack.suspicion(subject)


def measured(subjects: Mapping[str, Subject], asked: Mapping[str, Metric]) -> Measured:
    """Put each metric to its set.

    Args:
        subjects: set name -> the set as the model sees it; an empty set counts as missing.
        asked: `set/measure` -> what is measured there.

    Raises:
        UnlearnError: a value is not finite.
    """
    values, absent = {}, {}
    for where, measure in asked.items():
        subject = subjects.get(where.split("/")[0])
        if subject is None or not len(subject.answers):
            absent[where] = "the data do not have this set"
            continue
        try:
            values[where] = _values(measure, subject, where)
        except UnmeasurableError as error:
            absent[where] = str(error)
    return Measured(values=values, absent=absent)


def _values(measure: Metric, subject: Subject, where: str) -> Values:
    known = measure.defined(subject) if isinstance(measure, PartialMetric) else np.ones(len(subject.answers), dtype=np.bool_)
    if not known.any():
        lacking = measure.lacking if isinstance(measure, PartialMetric) else "what it needs"
        raise UnmeasurableError(f"no record of the set has {lacking}")
    values = measure.values(subject)
    broken = int((~np.isfinite(values[known])).sum())
    if broken:
        raise UnlearnError(
            f"{where}: {broken} of {int(known.sum())} values are not numbers, expected finite ones; the weights have most likely diverged: "
            "lower the learning rate and make the model again"
        )
    return np.where(known, values, np.nan)
