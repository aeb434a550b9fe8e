"""Who may read, write and delete below the server's artifacts destination: nobody a blocked model, nobody again what is registered.

A look costs microseconds, whatever the number of versions: the places are kept in memory, and asked for again aside. What was seen once counts until
the warden counts anew, so that rows which vanish from the database open nothing at once. Where nobody can know, the answer is no.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..adapters.gate_tables import KeptRows
from ..adapters.guarded_locations import GuardedLocations, Stamp, upwards
from ..adapters.storage_locations import Storage, elsewhere, place_below
from ..errors import LineageError, StoreError, UnlearnError

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

REFRESH_S = 2.0
"""After so long the database is asked again, aside of whoever looks;"""
STALE_S = 2 * REFRESH_S
"""after so long before the next answer."""
THOROUGH_S = 60.0
"""After so long every location is read, also where nothing seems to have changed."""
_MODEL = re.compile(r"(?:^|/)models/m-[^/]+(?:/|$)")
_RUN = re.compile(r"(?:^|/)[0-9a-f]{32}/artifacts(?:/|$)")
_WHOLE_RUN = re.compile(r"(?:^|/)[0-9a-f]{32}/artifacts$")
_STATEMENTS = "unlearn"
"""Folder of a run that holds what is signed about its model."""
_OWN = "belongs to this server itself, or holds what does: its keys and its state"
_UNKNOWN_FOLDER = "no folder of the server; start it with --artifacts-destination"


@dataclass(frozen=True, kw_only=True)
class _Known:
    """What was seen."""

    blocks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    registered: frozenset[str] = frozenset()
    above_blocks: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Folder -> blocked places within it."""
    above_registered: frozenset[str] = frozenset()
    stamp: Stamp = ()
    block_stamp: Stamp = ()


class Custody:
    """Says no in words for people, or None. Paths are relative to `root`, a place of its storage; default: the artifacts destination."""

    def __init__(self, rows: KeptRows, engine: Engine, storage: Storage, own: Iterable[Path] = ()) -> None:
        """Nobody reads or writes what is the server's `own`: files and folders with its keys, to which a row in the database could lead."""
        self.storage = storage
        self._own = frozenset(os.path.realpath(each) for each in own)
        self._above_own = _above(self._own)
        self._locations = GuardedLocations(rows, engine, storage)
        self._known = _Known()
        self._asked_at = self._read_at = float("-inf")
        self._asking, self._aside = threading.RLock(), threading.Lock()

    def refusal_to_read(self, path: str, root: str | None = None) -> str | None:
        """Why a file, or a folder with all that it holds, cannot be read."""
        try:
            return self._blocked(self._place(path, root), self._look())
        except UnlearnError as error:
            return str(error)

    def refusal_at(self, uri: str) -> str | None:
        """Why the model at a location cannot be read; None for one where this server could not guard anything."""
        try:
            return self._blocked(self.storage.place(uri), self._look())
        except LineageError as error:
            return None if not uri or elsewhere(uri) else str(error)
        except UnlearnError as error:
            return str(error)

    def refusal_to_write(self, path: str, root: str | None = None, *, now: bool = False) -> str | None:
        """Why a file cannot be added or replaced; whether one may be replaced says `write_once`.

        Args:
            path: of the file.
            root: a place, if it is another than the destination.
            now: whether what was registered until this moment counts, also by another process.
        """
        try:
            place, known = self._place(path, root), self._look_now() if now else self._look()
        except UnlearnError as error:
            return str(error)
        if self._is_own(place):
            return f"{path or place}: {_OWN}"
        at = next((each for each in upwards(place) if each in known.registered), None)
        if at is None or _is_statement(place, at):
            return None
        return (
            f"{path or place}: belongs to a registered model version, whose files are written once: nothing is added, replaced or deleted there. "
            "Log the model anew and register what was logged as a new version."
        )

    def refusal_to_delete(self, path: str, root: str | None = None) -> str | None:
        """Why a file, or a folder with all that it holds, cannot be deleted."""
        try:
            place, known = self._place(path, root), self._look_now()
        except UnlearnError as error:
            return str(error)
        if place in self._above_own or self._is_own(place):
            return f"{path or place}: {_OWN}"
        if place not in known.above_registered and not any(each in known.registered for each in upwards(place)):
            return None
        return (
            f"{path or place}: holds files of a registered model version, which are not deleted as long as it is registered. "
            "Delete the version first, then the run or the logged model."
        )

    def write_once(self, path: str, root: str | None = None) -> bool:
        """Whether a file that is there may not be replaced: every file of a logged model, registered or not."""
        place = self._place(path, root)
        below = self.storage.inside(place)
        name = place if below is None else below
        model = _MODEL.search(name)
        return model is not None and _RUN.search(name[: model.start()]) is None

    def reload(self, all: bool = False) -> None:
        """Ask the database now.

        Args:
            all: forget what is no longer there; else what was seen before counts as well.

        Raises:
            StoreError: the database does not answer.
        """
        with self._asking:
            self._ask(_Known() if all else self._known)

    def _ask(self, known: _Known) -> None:
        began = time.monotonic()
        thorough = known == _Known() or began - self._read_at > THOROUGH_S
        self._known = self._seen(known, thorough)
        self._asked_at = began
        self._read_at = began if thorough else self._read_at

    def _seen(self, known: _Known, thorough: bool) -> _Known:
        stamp, block_stamp = self._locations.stamp(), self._locations.block_stamp()
        registered, above, blocks = known.registered, known.above_registered, known.blocks
        if thorough or stamp != known.stamp:
            registered = known.registered | self._locations.registered()
            above = known.above_registered | _above(registered - known.registered)
        if thorough or block_stamp != known.block_stamp:
            blocks = {**known.blocks, **self._locations.blocks()}
        within = _within(blocks) if blocks is not known.blocks else known.above_blocks
        return _Known(blocks=blocks, registered=registered, above_blocks=within, above_registered=above, stamp=stamp, block_stamp=block_stamp)

    def _look(self) -> _Known:
        age = self._age()
        if age > STALE_S:
            with self._asking:
                if self._age() > STALE_S:  # nobody asked while this one waited
                    self._ask(self._known)
        elif age > REFRESH_S and self._aside.acquire(blocking=False):
            threading.Thread(target=self._reload_aside, name="unlearn-custody", daemon=True).start()
        return self._known

    def _look_now(self) -> _Known:
        """The same with all that was registered until now."""
        if self._locations.stamp() != self._known.stamp:
            self.reload()
        return self._look()

    def _age(self) -> float:
        return time.monotonic() - self._asked_at

    def _reload_aside(self) -> None:
        try:
            self.reload()
        except UnlearnError:
            return  # who looks next after STALE_S asks, and is told
        finally:
            self._aside.release()

    def _place(self, path: str, root: str | None) -> str:
        root = root or self.storage.root
        if root is None:
            raise StoreError(f"{path}: {_UNKNOWN_FOLDER}")
        return place_below(root, path)

    def _is_own(self, place: str) -> bool:
        return any(each in self._own for each in upwards(place))

    def _blocked(self, place: str, known: _Known) -> str | None:
        if place in self._above_own or self._is_own(place):
            return f"{place}: {_OWN}"
        for each in (*upwards(place), *known.above_blocks.get(place, ())):
            body = known.blocks.get(each)
            if body is not None and _holds(body):
                return _words(body)
        return None


def install(custody: Custody | None) -> None:
    """Let the artifact repositories of this process ask a custody; None takes it away."""
    global _installed
    _installed = custody


def installed() -> Custody | None:
    """The custody of this process."""
    return _installed


_installed: Custody | None = None


def _is_statement(place: str, registered: str) -> bool:
    """What is signed about a version is written after it was registered, beside its files or, where they are the whole run, below them."""
    return _WHOLE_RUN.search(registered) is not None and place.startswith(f"{registered}/{_STATEMENTS}/")


def _above(places: Iterable[str]) -> frozenset[str]:
    """Every folder above a place; models share most of theirs."""
    found: set[str] = set()
    for place in places:
        for above in upwards(place.rpartition("/")[0]):
            if above in found:
                break
            found.add(above)
    return frozenset(found)


def _within(places: Iterable[str]) -> dict[str, frozenset[str]]:
    within: defaultdict[str, set[str]] = defaultdict(set)
    for place in places:
        for above in upwards(place.rpartition("/")[0]):
            within[above].add(place)
    return {above: frozenset(each) for above, each in within.items()}


def _holds(body: Mapping[str, Any]) -> bool:
    """A block whose beginning cannot be read has begun."""
    try:
        return datetime.fromisoformat(body["since"]) <= datetime.now(UTC)
    except (KeyError, TypeError, ValueError):
        return True


def _words(body: Mapping[str, Any]) -> str:
    version = f"models:/{body.get('name', '?')}/{body.get('version', '?')}"
    return f"{version} is blocked, nobody reads its files through this server: {body.get('words', 'the gate says no')}"
