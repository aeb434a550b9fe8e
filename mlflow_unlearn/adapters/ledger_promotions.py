"""Entries of the ledger about deployment: which version an alias was pointed at, by whom, on which evidence, and what was refused."""

from __future__ import annotations

import re
from collections.abc import Callable

from ..documents import encode
from ..errors import LedgerError
from ..records import Promotion
from .ledger_book import LedgerBook, Page
from .ledger_store import digest_at

_WHO = re.compile(r"[A-Za-z0-9_.@+-]{1,64}")


class PromotionEntries(LedgerBook):
    """Promotions and refusals, in the order in which they happened."""

    def promote(self, promotion: Promotion, act: Callable[[], None] | None = None) -> None:
        """Enter a promotion or a refusal.

        Args:
            promotion: what was asked and what became of it.
            act: points the alias; it is called while no other writer of this ledger is at work, and when it raises, nothing is entered. Where a
                server makes a writer try again it is called again.

        Raises:
            LedgerError: the name of who asked is no single word, or the alias is too long.
        """
        if not _WHO.fullmatch(promotion.by):
            raise LedgerError("promote: expected a user name of letters, digits and _.@+-, up to 64; set MLFLOW_TRACKING_USERNAME to one")
        kind = "promoted" if promotion.granted else "not promoted"

        def enter(page: Page) -> None:
            page.append(kind, str(promotion.model), {"promotion": encode(promotion)}, promotion.at)
            if act is not None:
                act()

        self._write(enter)

    def promotions(self, model: str | None = None) -> tuple[Promotion, ...]:
        """All of them, or those of one registered model, oldest first."""
        return self._read(lambda page: tuple(each for each in page.state.promotions if model in (None, each.model.name)))

    def holds(self, number: int, digest: str) -> bool:
        """Whether an event of this number and digest is in the chain: the head that a statement names, if it is about this ledger."""
        return self._read(lambda page: digest_at(page.connection, number) == digest if number else True)
