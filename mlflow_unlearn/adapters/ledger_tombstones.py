"""Entries of the ledger about what was erased: tombstones, people who lawfully return, and new keys."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import chain

from ..errors import LedgerError
from ..reasons import LIFTS, refuse_other
from ..records import State, Tombstones
from .ledger_book import LedgerBook, Page
from .ledger_requests import entry_of, in_force, lifted_subjects, load, tags_of
from .ledger_state import Entry, Grave

KINDS = ("subject", "record", "canary")
_LETTERS = {"subjects": "s", "records": "r", "contents": "c", "sketches": "n"}
SKETCH_CHARACTERS = 4096


class TombstoneEntries(LedgerBook):
    """What must not come back, until it lawfully does."""

    def erased(self) -> tuple[frozenset[str], frozenset[str]]:
        """Keyed tags of subjects and of records that closed requests removed for good, canaries that went with them included.

        People who lawfully returned are not among them.
        """

        def read(page: Page) -> tuple[frozenset[str], frozenset[str]]:
            closed = [entry for entry in page.state.entries.values() if entry.closed_by is not None]
            load(page, closed)
            pairs = [in_force(page, entry, tags_of(page, entry, ("subject",)), tags_of(page, entry, ("record",))) for entry in closed]
            canaries = [tags_of(page, entry, ("canary",)) for entry in closed]
            return frozenset(chain.from_iterable(s for s, _ in pairs)), frozenset(chain(*(r for _, r in pairs), *canaries))

        return self._read(read)

    def bury(self, request_id: str, tombstones: Tombstones | Sequence[Tombstones], at: datetime) -> None:
        """Keep what a request erased, so that it is recognised if it comes back; what was buried before is not buried again.

        Args:
            request_id: an open or closed request.
            tombstones: all of it as one, or one value a person: only then can one person's records and texts be lifted without the others'.
            at: when.

        Raises:
            LedgerError: no such request, a refused one, no tag key, or a sketch that is too long.
        """
        graves = [tombstones] if isinstance(tombstones, Tombstones) else list(tombstones)
        wanted = sorted({tuple(_written(grave)) for grave in graves} - {()})

        def bury(page: Page) -> None:
            if entry_of(page, request_id).request.state is State.REFUSED:
                raise LedgerError(f"{request_id}: it is refused, so nothing was erased for it")
            if page.state.key_id is None:
                raise LedgerError(f"{request_id}: tombstones need the id of the key their tags are made with; open the ledger with key_id")
            known = {grave for number, old in page.state.graves.items() if old.request_id == request_id for grave in _graves(page, number, old)}
            new = [grave for grave in wanted if grave not in known]
            lines = [f"{place} {line}" for place, grave in enumerate(new) for line in grave]
            if lines:
                page.append("buried", request_id, {"key_id": page.state.key_id}, at, {"grave": lines})

        self._write(bury)

    def tombstones(self) -> Mapping[str, Tombstones]:
        """Key id -> everything buried under that key for requests that were not refused, without what was lifted."""

        def read(page: Page) -> dict[str, Tombstones]:
            lines: dict[str, set[str]] = {}
            page.load((*page.state.graves, *page.state.lifts))
            for number, grave in page.state.graves.items():
                if entry_of(page, grave.request_id).request.state is not State.REFUSED:
                    lines.setdefault(grave.key_id, set()).update(_not_lifted(page, number, grave))
            return {key: _read_back(found) for key, found in lines.items() if found}

        return self._read(read)

    def lift(self, whom: str | Collection[str], basis: str, at: datetime) -> int:
        """Let people be in the data again: all that one closed request erased, or the people of these subject tags, whichever request it was.

        Their records and texts are lifted with them where they were buried as one person's; what was buried together with others stays. What is
        erased afterwards is not lifted.

        Args:
            whom: a request id, or subject tags.
            basis: one of `reasons.LIFTS`.
            at: when.

        Returns:
            How many people and single records the lift concerns; 0 when nothing of it was in force any more, and then nothing is written.

        Raises:
            LedgerError: another basis, or a request that is not closed.
        """
        refuse_other(basis, LIFTS, "tombstone lift")

        def lift(page: Page) -> int:
            count, subjects = _of_request(page, whom) if isinstance(whom, str) else _of_people(page, whom)
            if count:
                request_id = whom if isinstance(whom, str) else None
                page.append("lifted", request_id or "", {"request_id": request_id, "basis": basis}, at, {"subject": subjects})
            return count

        return self._write(lift)

    def held_tags(self) -> frozenset[str]:
        """Tags of open and closed requests that are in force: what a new key needs to have translated."""
        return self._read(lambda page: frozenset(chain.from_iterable(tag for tags in _by_kind(page).values() for tag in tags.values())))

    def rekey(self, mapping: Mapping[str, str], key_id: str, at: datetime) -> int:
        """Go on with another tag key: from here on the tags of requests are those of the new key. Earlier events stay as they are.

        An open request is translated completely. Of a closed one, what the mapping knows is added and the old tags stay beside it; tombstones
        stay under the old key, since the data they were made of are gone.

        Args:
            mapping: tag under the old key -> tag under the new key, from reading every dataset revision.
            key_id: check value of the new key.
            at: when.

        Returns:
            How many requests changed.

        Raises:
            LedgerError: the mapping lacks a tag of an open request.
        """

        def rekey(page: Page) -> int:
            held = _by_kind(page)
            lacking = {
                name: count
                for name, tags in held.items()
                if page.state.entries[name].closed_by is None and (count := sum(tag not in mapping for each in tags.values() for tag in each))
            }
            if lacking:
                named = ", ".join(f"{count} of {name}" for name, count in sorted(lacking.items()))
                raise LedgerError(
                    f"tag-key rotate: no readable data of this project hold some tags of open requests ({named}); "
                    "close or refuse these requests first, or fetch the data of every revision"
                )
            for name, tags in held.items():
                page.append("tags", name, {}, at, {kind: _translated(page.state.entries[name], found, mapping) for kind, found in tags.items()})
            page.append("key", "", {"key_id": key_id, "before": page.state.key_id}, at)
            return len(held)

        changed = self._write(rekey)
        self.key_id = key_id
        return changed


def _written(grave: Tombstones) -> list[str]:
    """A grave as lines: a letter for the kind, then the tag."""
    if any(len(sketch) > SKETCH_CHARACTERS for sketch in grave.sketches):
        raise LedgerError(f"ledger: a sketch is longer than {SKETCH_CHARACTERS} characters; expected the hex text of fingerprints.py")
    return sorted({letter + tag for name, letter in _LETTERS.items() for tag in getattr(grave, name)})


def _read_back(lines: Collection[str]) -> Tombstones:
    found = {name: [line[1:] for line in lines if line[0] == letter] for name, letter in _LETTERS.items()}
    sketches = tuple(sorted(found.pop("sketches")))
    return Tombstones(**{name: frozenset(tags) for name, tags in found.items()}, sketches=sketches)


def _graves(page: Page, number: int, grave: Grave) -> Iterator[tuple[str, ...]]:
    """The lines of each grave that one event dug."""
    graves: dict[str, list[str]] = {}
    for line in page.lines(number, grave.sets, "grave"):
        place, _, rest = line.partition(" ")
        graves.setdefault(place, []).append(rest)
    yield from (tuple(lines) for lines in graves.values())


def _not_lifted(page: Page, number: int, grave: Grave) -> Iterator[str]:
    """Lines in force: without lifted people, and without everything in a grave all of whose people were lifted."""
    later = {at: lift for at, lift in page.state.lifts.items() if at > number}
    if any(lift.request_id == grave.request_id for lift in later.values()):
        return
    lifted = {f"s{tag}" for tag in lifted_subjects(page, later)}
    for lines in _graves(page, number, grave):
        people = {line for line in lines if line[0] == "s"}
        if not people or people - lifted:
            yield from (line for line in lines if line not in lifted)


def _of_request(page: Page, request_id: str) -> tuple[int, list[str]]:
    entry = entry_of(page, request_id)
    if entry.closed_by is None:
        state = entry.request.state
        raise LedgerError(f"{request_id}: it is {state}; only what a closed request erased can be lifted, an open one is refused as withdrawn")
    subjects, records = in_force(page, entry, tags_of(page, entry, ("subject",)), tags_of(page, entry, ("record",)))
    buried = [grave for number, old in page.state.graves.items() if old.request_id == request_id for grave in _not_lifted(page, number, old)]
    return len(subjects) + len(records) or len(buried), []


def _of_people(page: Page, tags: Collection[str]) -> tuple[int, list[str]]:
    closed = [entry for entry in page.state.entries.values() if entry.closed_by is not None]
    load(page, closed)
    page.load(page.state.graves)
    gone = {tag for entry in closed for tag in in_force(page, entry, tags_of(page, entry, ("subject",)), set())[0]}
    gone |= {line[1:] for number, grave in page.state.graves.items() for line in _not_lifted(page, number, grave) if line[0] == "s"}
    found = sorted(gone & set(tags))
    return len(found), found


def _by_kind(page: Page) -> dict[str, dict[str, set[str]]]:
    """Request -> kind -> tags in force, of every request that was not refused and has any."""
    found = {}
    load(page, page.state.entries.values())
    for name, entry in page.state.entries.items():
        held = {kind: tags_of(page, entry, (kind,)) for kind in KINDS}
        held["subject"], held["record"] = in_force(page, entry, held["subject"], held["record"])
        if entry.request.state is not State.REFUSED and any(held.values()):
            found[name] = held
    return found


def _translated(entry: Entry, tags: set[str], mapping: Mapping[str, str]) -> list[str]:
    new = {mapping[tag] for tag in tags if tag in mapping}
    return sorted(new if entry.closed_by is None else new | tags)
