"""Entries of the ledger about deployment: which version an alias was pointed at, by whom, on which evidence, and what was refused."""

from __future__ import annotations

import re
from collections.abc import Callable

from ..documents import encode
from ..errors import LedgerError
from ..records import Promotion
from .ledger_book import LedgerBook, Page
from .ledger_witness import Head


class WentOnError(LedgerError):
    """Somebody wrote in the ledger since it was looked at."""


_WHO = re.compile(r"[A-Za-z0-9_.@+-]{1,64}")


class PromotionEntries(LedgerBook):
    """Promotions and refusals, in the order in which they happened."""

    def promote(self, promotion: Promotion, act: Callable[[], None] | None = None, seen: Head | None = None) -> None:
        """Enter a promotion or a refusal.

        Args:
            promotion: what was asked and what became of it.
            act: points the alias; it is called while no other writer of this ledger is at work, and when it raises, nothing is entered. Where a
                server makes a writer try again it is called again.
            seen: the last event that was looked at for the answer; None does not ask.

        Raises:
            WentOnError: it is not the last one any more, so that the answer may be another.
            LedgerError: the name of who asked is no single word, or the alias is too long.
        """
        if not _WHO.fullmatch(promotion.by):
            raise LedgerError("promote: expected a user name of letters, digits and _.@+-, up to 64; set MLFLOW_TRACKING_USERNAME to one")
        kind = "promoted" if promotion.granted else "not promoted"

        def enter(page: Page) -> None:
            if seen not in (None, page.began):
                raise WentOnError(f"ledger: it went on after event {seen.number if seen else 0}, which the answer rests on; ask again")
            page.append(kind, str(promotion.model), {"promotion": encode(promotion)}, promotion.at)
            if act is not None:
                act()

        self._write(enter)

    def promotions(self, model: str | None = None) -> tuple[Promotion, ...]:
        """All of them, or those of one registered model, oldest first."""
        return self._read(lambda page: tuple(each for each in page.state.promotions if model in (None, each.model.name)))
