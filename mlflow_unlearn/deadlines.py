"""When an erasure request is due, by the law it rests on; the clock starts when the request is received."""

from __future__ import annotations

import calendar
from datetime import datetime, timedelta

from .records import Basis

CCPA_DAYS = 45


def due(basis: Basis, received_at: datetime) -> datetime | None:
    """The statutory deadline: one calendar month (GDPR art. 12(3)), 45 days (CCPA, Cal. Civ. Code 1798.130), otherwise none.

    A month from the 31st ends on the last day of a shorter month (Regulation 1182/71 art. 3(2)(c)).
    """
    if basis is Basis.GDPR_17:
        return _month_later(received_at)
    return received_at + timedelta(days=CCPA_DAYS) if basis is Basis.CCPA else None


def _month_later(moment: datetime) -> datetime:
    year, month = (moment.year + 1, 1) if moment.month == 12 else (moment.year, moment.month + 1)
    return moment.replace(year=year, month=month, day=min(moment.day, calendar.monthrange(year, month)[1]))
