"""The digests of a model's files, kept for as long as the files look the same from outside: hashing reads every byte, looking reads none."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from ..errors import StoreError, TamperedError
from ..lineage import ModelVersion
from ..verifier import RefusedError, UndecidedError, subject_of
from .file_listings import Listing, listing
from .gate_tables import KeptRows, take_turn
from .gate_views import lying_at, occupied
from .storage_locations import Storage

_KIND, _WEIGHTS = "subject", "weights"
"""Kept rows: the subjects by location, and where weights lie by their tensor digest."""
_PLACES = 100
"""Locations of equal weights that are remembered; the first ones where a version still is, so that nobody's copies push them out."""
_TRIES = 3
_IN_MEMORY = 1000
"""Models; some kilobytes each."""
_logger = logging.getLogger(__name__)

Subject = list[dict[str, Any]]


class KeptSubjects:
    """The subject of a statement about a model (`verifier.subject_of`), by location. It is hashed when the files were never seen as they are now."""

    def __init__(self, rows: KeptRows, engine: Engine, storage: Storage) -> None:
        self._rows, self._engine, self._storage = rows, engine, storage
        self._remembered: OrderedDict[str, tuple[str, Subject]] = OrderedDict()
        self._turns: dict[str, threading.Lock] = {}
        self._mine = threading.Lock()

    def subject(self, asked: str) -> Subject:
        """The digests of the files that lie there now; not to be changed by the caller.

        Two who ask for one location at a time hash it once; who asks for another one does not wait.

        Raises:
            LineageError: no such location, or one that can be read in two ways.
            StoreError: the files or the database do not answer, or no model lies there.
            TamperedError: the files are being written to, or are those of no model.
        """
        location = self._storage.canonical(asked)
        direct = self._storage.direct(location)
        found = self._in_memory(location, listing(direct))
        if found is not None:
            return found
        with self._turn(location):
            return self._kept(location, listing(direct), asked) or self._hashed(location, direct, asked)

    def with_weights(self, digest: str) -> tuple[ModelVersion, ...]:
        """Registered versions whose files had these weights when they were hashed last, in the order of their registration; nothing is hashed.

        Args:
            digest: `tensor_digest` of the weights.

        Raises:
            StoreError: the database does not answer.
        """
        try:
            with self._engine.connect() as connection:
                places = (self._rows.get(connection, _WEIGHTS, digest) or {}).items()
                spellings = [each for place, named in places if _weights(self._rows.get(connection, _KIND, place)) == digest for each in named]
                return lying_at(connection, spellings)
        except SQLAlchemyError as error:
            raise _silent(error) from error

    def forget(self, location: str) -> None:
        """Hash the location anew when it is asked for next.

        Raises:
            LineageError: no such location, or one that can be read in two ways.
            StoreError: the database does not answer.
        """
        location = self._storage.canonical(location)
        with self._mine:
            self._remembered.pop(location, None)
        try:
            with self._engine.begin() as connection:
                take_turn(connection)
                self._rows.remove(connection, _KIND, location)
        except SQLAlchemyError as error:
            raise _silent(error) from error

    def _turn(self, location: str) -> threading.Lock:
        with self._mine:
            return self._turns.setdefault(location, threading.Lock())

    def _in_memory(self, location: str, now: Listing) -> Subject | None:
        with self._mine:
            then, subject = self._remembered.get(location, ("", []))
        return subject if then == now.fingerprint else None

    def _kept(self, location: str, now: Listing, asked: str) -> Subject | None:
        if (found := self._in_memory(location, now)) is not None:
            return found
        try:
            with self._engine.connect() as connection:
                body = self._rows.get(connection, _KIND, location)
                placed = self._placed(connection, _weights(body), location)
        except SQLAlchemyError as error:
            raise _silent(error) from error
        if body is None or body.get("fingerprint") != now.fingerprint:
            return None
        subject: Subject = body["subject"]
        if placed:
            self._remember(location, now.fingerprint, subject)
        else:  # there was no room; by now there may be
            self._keep(location, now.fingerprint, subject, asked)
        return subject

    def _hashed(self, location: str, direct: str, asked: str) -> Subject:
        """No transaction is open meanwhile: it may take minutes."""
        for _ in range(_TRIES):
            before = listing(direct)
            subject = self._read(location)
            if (after := listing(direct)).fingerprint == before.fingerprint:
                if not after.racy:
                    self._keep(location, after.fingerprint, subject, asked)
                return subject
        raise TamperedError(
            f"{location}: is being written to, {_TRIES} readings found other files each time; wait until the model is logged, and ask again"
        )

    def _read(self, location: str) -> Subject:
        try:
            with self._storage.folder(location) as folder:
                return subject_of(folder)
        except RefusedError as error:
            raise TamperedError(f"{location}: {error}") from error
        except UndecidedError as error:
            raise StoreError(f"{location}: no model's files are there; look whether they were moved or deleted") from error
        except OSError as error:
            raise StoreError(f"{location}: cannot be read ({type(error).__name__}); look at the server's access to the model's files") from error

    def _keep(self, location: str, fingerprint: str, subject: Subject, asked: str) -> None:
        placed = True
        try:
            with self._engine.begin() as connection:
                take_turn(connection)
                self._rows.put(connection, _KIND, location, body := {"fingerprint": fingerprint, "subject": subject})
                self._place(connection, _weights(body), location, asked)
                placed = self._placed(connection, _weights(body), location)
        except SQLAlchemyError as error:
            _logger.warning("%s: its digests cannot be kept (%s); another server hashes it again", location, type(error).__name__)
        if placed:
            self._remember(location, fingerprint, subject)

    def _placed(self, connection: Connection, digest: str, location: str) -> bool:
        return not digest or location in (self._rows.get(connection, _WEIGHTS, digest) or {})

    def _place(self, connection: Connection, digest: str, location: str, asked: str) -> None:
        """Remember where weights lie, by the spelling that the registry has too."""
        known = (self._rows.get(connection, _WEIGHTS, digest) or {}) if digest else {}
        if not digest or location in known:
            return
        if len(known) >= _PLACES:
            known = self._registered(connection, known)
        if len(known) < _PLACES:
            self._rows.put(connection, _WEIGHTS, digest, {**known, location: sorted({location, asked})})

    def _registered(self, connection: Connection, places: Mapping[str, list[str]]) -> dict[str, list[str]]:
        """The places where a version still is; whatever comes back to one of the others gets its place again when it is asked for."""
        there = occupied(connection, [each for named in places.values() for each in named])
        left = {place: named for place, named in places.items() if not there.isdisjoint(named)}
        with self._mine:
            for place in places.keys() - left.keys():
                self._remembered.pop(place, None)
        return left

    def _remember(self, location: str, fingerprint: str, subject: Subject) -> None:
        with self._mine:
            self._remembered[location] = (fingerprint, subject)
            self._remembered.move_to_end(location)
            if len(self._remembered) > _IN_MEMORY:
                self._remembered.popitem(last=False)


def _weights(body: Mapping[str, Any] | None) -> str:
    """The tensor digest in what is kept of a location; empty where there are no weights as safetensors."""
    return str(body["subject"][0]["digest"].get("tensors", "")) if body is not None else ""


def _silent(error: SQLAlchemyError) -> StoreError:
    return StoreError(f"MLflow's database does not answer ({type(error).__name__}); look at --registry-store-uri and at the database")
