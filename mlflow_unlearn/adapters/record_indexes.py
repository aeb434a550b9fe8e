"""The record indexes of all configured datasets, asked as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..errors import StoreError
from ..lineage import DatasetRevision
from .record_index import RecordIndex, Updated


@dataclass(frozen=True)
class RecordIndexes:
    """One index a dataset; a dataset revision says by its name which one it belongs to."""

    by_name: Mapping[str, RecordIndex]
    main: str

    def update(self, states: Sequence[DatasetRevision]) -> Updated:
        """Index what is new, dataset by dataset, in the order given."""
        done = [index.update(own) for index, own in self._shared_out(states)]
        unreadable = {md5: error for each in done for md5, error in each.unreadable.items()}
        return Updated(new_files=sum(each.new_files for each in done), unreadable=unreadable)

    def matches(self, states: Sequence[DatasetRevision], *, subjects: Sequence[str], records: Sequence[str]) -> Mapping[str, int]:
        """DVC md5 -> number of its records that belong to one of `subjects` or are one of `records`; states without any are left out."""
        found: dict[str, int] = {}
        for index, own in self._shared_out(states):
            for md5, count in index.matches(own, subjects=subjects, records=records).items():
                found[md5] = max(count, found.get(md5, 0))  # equal bytes may belong to two datasets
        return found

    def held(
        self, states: Sequence[DatasetRevision], *, subjects: Sequence[str] = (), records: Sequence[str] = (), contents: Sequence[str] = ()
    ) -> Mapping[str, frozenset[str]]:
        """DVC md5 -> those of the tags that a state holds; states without any are left out."""
        found: dict[str, frozenset[str]] = {}
        for index, own in self._shared_out(states):
            for md5, tags in index.held(own, subjects=subjects, records=records, contents=contents).items():
                found[md5] = tags | found.get(md5, frozenset())
        return found

    def unknown(self, *, subjects: Sequence[str], records: Sequence[str]) -> tuple[list[int], list[int]]:
        """Positions in `subjects` and in `records` that no state of any dataset ever held."""
        absent = [index.unknown(subjects=subjects, records=records) for index in self.by_name.values()]
        people, single = ([set(each[kind]) for each in absent] for kind in (0, 1))
        return sorted(set.intersection(*people)), sorted(set.intersection(*single))

    def rows(self, states: Sequence[DatasetRevision]) -> list[tuple[str, str]]:
        """(record tag, content tag) of everything in the union of `states`, each wording of a record once."""
        return list(dict.fromkeys(row for index, own in self._shared_out(states) for row in index.rows(own)))

    def size(self, state: DatasetRevision) -> dict[str, int]:
        """`records` and `subjects` (people) of one state, each counted once."""
        return self._of(state).size(state)

    def summary(self, state: DatasetRevision) -> dict[str, int]:
        """The size of a state in which every record id occurs once.

        Raises:
            DataError: a record id occurs twice.
        """
        return self._of(state).summary(state)

    def records_of_files(self, states: Sequence[DatasetRevision], paths: Sequence[str]) -> list[str]:
        """Record tags in files of the main dataset, named relative to it, in any of its `states`; sorted."""
        return self.by_name[self.main].records_of_files([state for state in states if state.name == self.main], paths)

    def removed_between(self, old: DatasetRevision, new: DatasetRevision) -> list[str]:
        """Tags of the records that `old` holds and `new` does not; sorted."""
        return self._of(old).removed_between(old, new)

    def _of(self, state: DatasetRevision) -> RecordIndex:
        index = self.by_name.get(state.name)
        if index is None:
            raise StoreError(f"dataset {state.name}: not in params.yaml (data.name or data.also), so it has no index; add it there")
        return index

    def _shared_out(self, states: Sequence[DatasetRevision]) -> list[tuple[RecordIndex, list[DatasetRevision]]]:
        names = dict.fromkeys(state.name for state in states)
        grouped = {name: [state for state in states if state.name == name] for name in names}
        return [(self._of(own[0]), own) for own in grouped.values()]
