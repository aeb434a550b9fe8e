import calendar
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_unlearn.deadlines import due
from mlflow_unlearn.records import Basis

MOMENTS = st.datetimes(min_value=datetime(2000, 1, 1), max_value=datetime(2100, 1, 1), timezones=st.just(UTC))
PAUSES = st.timedeltas(min_value=timedelta(), max_value=timedelta(days=90))


def at(day):
    return datetime.fromisoformat(f"{day}T18:00:00+00:00")


@pytest.mark.parametrize(
    ("received", "expected"),
    [
        ("2026-08-31", "2026-09-30"),  # the example of EDPB Guidelines 01/2022: received on 31 August, due on 30 September
        ("2026-03-31", "2026-04-30"),
        ("2028-01-31", "2028-02-29"),
        ("2026-12-15", "2027-01-15"),
        ("2026-11-24", "2026-12-24"),
        ("2026-01-31", "2026-03-02"),  # 28 February is a Saturday
        ("2026-02-28", "2026-03-30"),  # 28 March is a Saturday
        ("2026-04-03", "2026-05-04"),  # 3 May is a Sunday
    ],
)
def test_gdpr_is_due_one_calendar_month_later_and_on_a_working_day(received, expected):
    assert due(Basis.GDPR_17, at(received)) == at(expected)


@pytest.mark.parametrize(("received", "expected"), [("2026-11-24", "2027-02-24"), ("2026-11-30", "2027-03-01"), ("2027-11-30", "2028-02-29")])
def test_an_extension_of_gdpr_ends_three_months_after_receipt(received, expected):
    assert due(Basis.GDPR_17, at(received), extended=True) == at(expected)


@given(MOMENTS, st.booleans(), PAUSES)
def test_gdpr_ends_on_a_weekday_at_most_two_days_after_the_same_date_of_a_later_month(received, extended, paused):
    found = due(Basis.GDPR_17, received, extended=extended, paused=paused)
    months = received.year * 12 + received.month - 1 + (3 if extended else 1)
    day = min(received.day, calendar.monthrange(months // 12, months % 12 + 1)[1])
    plain = received.replace(year=months // 12, month=months % 12 + 1, day=day) + paused
    assert found.weekday() < 5
    assert timedelta() <= found - plain <= timedelta(days=2)
    assert found == plain or plain.weekday() >= 5


@given(MOMENTS, PAUSES)
def test_ccpa_counts_calendar_days_and_no_pause_stops_them(received, paused):
    assert due(Basis.CCPA, received, paused=paused) == received + timedelta(days=45)
    assert due(Basis.CCPA, received, extended=True, paused=paused) == received + timedelta(days=90)


@pytest.mark.parametrize("basis", [Basis.COPYRIGHT, Basis.SAFETY, Basis.CONTRACT, Basis.POISONING])
def test_other_bases_have_no_statutory_deadline(basis):
    assert due(basis, datetime(2026, 1, 31, tzinfo=UTC)) is None
