"""How the rows of a dataset become tags: which columns, which key, whose record ids."""

from __future__ import annotations

from dataclasses import dataclass

from ..digests import keyed_tag
from ..params import Columns


@dataclass(frozen=True, kw_only=True)
class Schema:
    """How rows become tags."""

    dataset: str
    columns: Columns
    key: bytes
    earlier: tuple[Columns, ...] = ()
    """Names that the columns had in earlier revisions, tried in turn."""
    records_of: str | None = None
    """The dataset whose record ids these rows keep; None when the ids are its own."""

    @property
    def record_domain(self) -> str:
        """The dataset that a record id belongs to."""
        return self.records_of or self.dataset

    def record_tag(self, record_id: str) -> str:
        """Keyed tag of a record by its id, in data that have ids."""
        return keyed_tag(self.key, "record", self.record_domain, record_id)
