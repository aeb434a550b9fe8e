"""Locations that nobody may read from a moment on, as they are kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ..documents import decode, moment
from ..errors import ConfigError
from ..lineage import ModelVersion

_LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class Block:
    """A location that nobody may read from a moment on."""

    location: str
    name: str
    version: str
    since: datetime
    codes: tuple[str, ...]
    words: str
    requests: tuple[str, ...] = ()
    """Those that it follows from, where that is known."""

    @property
    def model(self) -> ModelVersion:
        """The version that it is about."""
        return ModelVersion(name=self.name, version=self.version)

    @property
    def body(self) -> dict[str, Any]:
        """As it is kept."""
        return {
            "location": self.location,
            "name": self.name,
            "version": self.version,
            "since": moment(self.since),
            "codes": list(self.codes),
            "words": self.words,
            "requests": list(self.requests),
        }


def kept_block(location: str, body: Mapping[str, Any]) -> Block:
    """A block as it is kept; one that another version of this package kept goes on as if it followed from a request that nobody refused."""
    try:
        return decode(Block, body, "block")
    except ConfigError:
        name, version, words = (str(body.get(each) or "") for each in ("name", "version", "words"))
        return Block(location=location, name=name, version=version, since=_LONG_AGO, codes=("affected",), words=words or "the gate says no")
