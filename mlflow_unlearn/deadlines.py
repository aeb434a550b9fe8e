"""When an erasure request is due, by the law it rests on; the clock starts when the request is received.

Moments and weekdays are UTC. Public holidays are not known here and never prolong a deadline, so that it is never later than the law's.
"""

from __future__ import annotations

import calendar
from datetime import datetime, timedelta

from .records import Basis

GDPR_MONTHS = (1, 3)
"""Without and with the one extension by two further months, both from receipt (GDPR art. 12(3))."""
CCPA_DAYS = (45, 90)
"""Calendar days without and with the one extension, both from receipt (Cal. Civ. Code 1798.130(a)(2); 11 CCR 7021(b))."""
STATUTORY = frozenset({Basis.GDPR_17, Basis.CCPA})


def due(basis: Basis, received_at: datetime, *, extended: bool = False, paused: timedelta = timedelta()) -> datetime | None:
    """The statutory deadline; None where the basis has none.

    A month from the 31st ends on the last day of a shorter month, and a period that ends on a Saturday or Sunday ends on the Monday after
    (Regulation 1182/71 art. 3(2)(c) and 3(4)). CCPA counts calendar days, and verifying who asks does not stop them (11 CCR 7021(b)).

    Args:
        basis: what the request rests on.
        received_at: when it arrived.
        extended: whether the one extension was taken.
        paused: how long the clock stood still while the controller waited for the person to prove who they are. That this suspends the period
            of GDPR art. 12(3) is the reading of EDPB Guidelines 01/2022, section 5.3, of art. 12(6).
    """
    if basis is Basis.GDPR_17:
        return _working_day(_months_later(received_at, GDPR_MONTHS[extended]) + paused)
    return received_at + timedelta(days=CCPA_DAYS[extended]) if basis is Basis.CCPA else None


def _months_later(moment: datetime, months: int) -> datetime:
    years, month = divmod(moment.month - 1 + months, 12)
    year, month = moment.year + years, month + 1
    return moment.replace(year=year, month=month, day=min(moment.day, calendar.monthrange(year, month)[1]))


def _working_day(moment: datetime) -> datetime:
    """The moment itself, or the same time on Monday when it falls on a weekend."""
    return moment + timedelta(days=max(0, 7 - moment.weekday()) if moment.weekday() >= 5 else 0)
