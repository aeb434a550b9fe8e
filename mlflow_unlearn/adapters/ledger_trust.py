"""Entries of the ledger about the trust file: every change of it, so that an older one put back is noticed; and whether it names this ledger."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from ..errors import LedgerError
from .ledger_book import LedgerBook, Page
from .ledger_store import digest_at
from .ledger_witness import Head


class TrustEntries(LedgerBook):
    """Changes of the trust file, as number and digest."""

    def enter_trust(self, number: int, digest: str, at: datetime, act: Callable[[], None] | None = None) -> None:
        """Enter a change of the trust file; the same again changes nothing.

        Args:
            number: of the change.
            digest: sha256 of the file's payload.
            at: when.
            act: writes the file; it is called while no other writer of this ledger is at work, and when it raises, nothing is entered.

        Raises:
            LedgerError: a later change is entered already, or another one under this number.
        """

        def enter(page: Page) -> None:
            known = page.state.trusted
            if known is not None and number <= known[0] and (number, digest) != known:
                raise LedgerError(
                    f"trust file: change {number} ({digest[:16]}) is not the one that the ledger knows, change {known[0]} ({known[1][:16]}): "
                    "somebody changed it meanwhile, or an older one was put back; fetch the latest trust file and repeat this"
                )
            if (number, digest) != known:
                page.append("trusted", "trust", {"number": number, "digest": digest}, at)
            if act is not None:
                act()

        self._write(enter)

    def trusted(self) -> tuple[int, str] | None:
        """Number and digest of the latest change of the trust file; None where nobody ever entered one."""
        return self._read(lambda page: page.state.trusted)

    def anchor(self) -> Head:
        """The last event, for others to name; of an empty ledger the one that begins it."""
        return self._write(lambda page: Head(number=page.state.number, digest=page.state.digest))

    def holds(self, number: int, digest: str) -> bool:
        """Whether an event of this number and digest is in the chain: the one that a statement or the trust file names, if it means this ledger."""
        return self._read(lambda page: digest_at(page.connection, number) == digest)

    def written_at(self) -> datetime | None:
        """The moment of the last event, by the clock of who wrote it."""
        return self._read(lambda page: page.state.at)
