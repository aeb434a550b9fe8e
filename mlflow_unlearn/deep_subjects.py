"""What a probe of the deep audit works on: both models, the canaries, and what the quick audit heard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from .audit import AuditJob, Loaded, State
from .audit_sets import subject_of
from .errors import UnmeasurableError
from .evaluate import EXCLUDED, INCLUDED, Subjects
from .measurements import Curve
from .protocols import Record, Subject

SIDES = (INCLUDED, EXCLUDED)


@dataclass(frozen=True, kw_only=True, eq=False)
class Deep:
    """What a probe works on."""

    job: AuditJob
    parent: State
    state: State
    """The unlearned model."""
    before: Subjects
    after: Subjects
    """What both said to the quick audit."""
    curves: dict[str, Curve] = field(default_factory=dict)
    """Filled by the probes that relearn."""

    def records(self, name: str) -> Sequence[Record]:
        """One set.

        Raises:
            UnmeasurableError: it is empty.
        """
        if not (found := self.job.sets.records.get(name, ())):
            raise UnmeasurableError(f"there are no records of {name}")
        return found

    def subject(self, loaded: Loaded, records: Sequence[Record]) -> Subject:
        """Records as a loaded model sees them."""
        return subject_of(loaded, self.job.sets, records, self.job.params)
