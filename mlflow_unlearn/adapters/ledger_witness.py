"""The head of the ledger as this project last saw it, in a file of its own: a ledger that is shorter or other than that was rolled back."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from ..digests import write_atomically
from ..documents import decode
from ..errors import ConfigError, LedgerError


@dataclass(frozen=True, kw_only=True)
class Head:
    """Number and digest of an event."""

    number: int
    digest: str


@dataclass(frozen=True, kw_only=True)
class Witness:
    """One file for all ledgers that a project has used; each head belongs to its place."""

    path: Path
    place: str
    """The ledger's URI without its password."""

    def head(self) -> Head | None:
        """The head seen last; None for a ledger not seen before.

        Raises:
            LedgerError: the file is not what was written.
        """
        return self._heads().get(self.place)

    def advance(self, head: Head) -> None:
        """Remember a later head.

        Raises:
            LedgerError: the file cannot be written.
        """
        heads = self._heads()
        if self.place not in heads or head.number > heads[self.place].number:
            document = {place: vars(each) for place, each in sorted({**heads, self.place: head}.items())}
            self._write(json.dumps(document, indent=1).encode())

    def _write(self, content: bytes) -> None:
        try:
            write_atomically(self.path, content)
        except OSError as error:
            raise LedgerError(
                f"{self.path}: {error.strerror}; the change is in the ledger, but this file could not follow; let its folder be written to"
            ) from error

    def _heads(self) -> dict[str, Head]:
        try:
            document = json.loads(self.path.read_bytes())
            return {place: decode(Head, head, str(self.path)) for place, head in document.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, AttributeError, ConfigError):
            advice = "restore it, or compare the ledger with a backup before you delete this file"
            raise LedgerError(f"{self.path}: does not hold the heads of ledgers; {advice}") from None
