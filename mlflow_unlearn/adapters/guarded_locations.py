"""What is asked of MLflow's database whenever a file is read or written: where registered versions lie, and which places are blocked."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sql
from mlflow.entities.model_registry.model_version_stages import STAGE_DELETED_INTERNAL
from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError

from ..errors import LineageError, StoreError
from .gate_tables import ROWS, KeptRows
from .storage_locations import PROXIED, Storage

BLOCK = "block"
"""Kind of the kept rows that name a blocked location."""
_VERSIONS = sql.table(
    "model_versions",
    *(sql.column(name) for name in ("source", "storage_location", "current_stage", "creation_time", "last_updated_time")),
)
_HELD = sql.func.coalesce(_VERSIONS.c.current_stage, "") != STAGE_DELETED_INTERNAL
_PLAIN = re.compile(rf"{PROXIED}:/((?:[\w-][\w.-]*/)*[\w-][\w.-]*)")
"""As MLflow writes them: no dots, no percent signs."""

Stamp = tuple[Any, ...]
"""Differs when a version was registered, deleted or moved by MLflow."""


@dataclass
class GuardedLocations:
    """Blocks and registered versions by place (`Storage.place`); what cannot be placed lies where this server keeps no files."""

    rows: KeptRows
    engine: Engine
    storage: Storage
    _places: dict[str, str | None] = field(default_factory=dict)

    def stamp(self) -> Stamp:
        """A look at the table that reads no location.

        Raises:
            StoreError: the database does not answer.
        """
        columns = sql.func.count(), sql.func.sum(_VERSIONS.c.creation_time), sql.func.max(_VERSIONS.c.last_updated_time)
        return tuple(self._ask(sql.select(*columns).where(_HELD))[0])

    def block_stamp(self) -> Stamp:
        """The same of the blocks, none of which is checked.

        Raises:
            StoreError: the database does not answer.
        """
        return tuple(sorted(row.mac for row in self._ask(sql.select(ROWS.c.mac).where(ROWS.c.kind == BLOCK))))

    def registered(self) -> set[str]:
        """The place of every version that is not deleted.

        Raises:
            StoreError: the database does not answer.
        """
        rows = self._ask(sql.select(_VERSIONS.c.source, _VERSIONS.c.storage_location).where(_HELD))
        return self._placed({row.storage_location or row.source for row in rows})

    def blocks(self) -> dict[str, dict[str, Any]]:
        """Body of each block by place.

        Raises:
            StoreError: the database does not answer.
        """
        try:
            with self.engine.connect() as connection:
                found = self.rows.all(connection, BLOCK)
        except SQLAlchemyError as error:
            raise _silent(error) from error
        links = self._no_links()
        placed = ((self._place(location, links), body) for location, body in found.items())
        return {place: body for place, body in placed if place is not None}

    def _placed(self, locations: Collection[str | None]) -> set[str]:
        """Twenty thousand are looked up in a fifth of a second, and once."""
        links = self._no_links()
        for location in filter(None, locations):
            if location not in self._places:
                self._places[location] = self._place(location, links)
        found = {place for location in locations if location and (place := self._places[location]) is not None}
        return found - set(upwards(self.storage.root or ""))

    def _place(self, location: str, links: dict[str, str]) -> str | None:
        root, plain = self.storage.root, _PLAIN.fullmatch(location)
        try:
            if plain is None or root is None or not root.startswith("/"):
                return self.storage.place(location)
            return _real(f"{root}/{plain[1]}", links)
        except LineageError:
            return None

    def _no_links(self) -> dict[str, str]:
        return {self.storage.root: self.storage.root} if self.storage.root is not None else {}

    def _ask(self, question: sql.Executable) -> list[Any]:
        try:
            with self.engine.connect() as connection:
                return list(connection.execute(question))
        except SQLAlchemyError as error:
            raise _silent(error) from error


def upwards(place: str) -> Iterable[str]:
    """A place and every folder above it; of S3 down to the bucket."""
    while place and not place.endswith("/"):
        yield place
        place = place.rpartition("/")[0]


def _real(path: str, links: dict[str, str]) -> str:
    """A path without links; each folder is looked at once, in `links`."""
    if path not in links:
        above, _, name = path.rpartition("/")
        here = f"{_real(above, links) if above else ''}/{name}"
        links[path] = os.path.realpath(here) if os.path.islink(here) else here  # noqa: PTH114 - thousands of them
    return links[path]


def _silent(error: SQLAlchemyError) -> StoreError:
    return StoreError(f"MLflow's database does not answer ({type(error).__name__}); look at --registry-store-uri and at the database")
