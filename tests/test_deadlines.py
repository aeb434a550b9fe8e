from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_unlearn.deadlines import due
from mlflow_unlearn.records import Basis

MOMENTS = st.datetimes(min_value=datetime(2000, 1, 1), max_value=datetime(2100, 1, 1), timezones=st.just(UTC))


@pytest.mark.parametrize(
    ("received", "expected"),
    [
        ("2026-01-31", "2026-02-28"),
        ("2028-01-31", "2028-02-29"),
        ("2026-03-31", "2026-04-30"),
        ("2026-12-15", "2027-01-15"),
        ("2026-11-24", "2026-12-24"),
        ("2026-02-28", "2026-03-28"),
    ],
)
def test_gdpr_is_due_one_calendar_month_later(received, expected):
    assert due(Basis.GDPR_17, datetime.fromisoformat(f"{received}T18:00:00+00:00")) == datetime.fromisoformat(f"{expected}T18:00:00+00:00")


@given(MOMENTS)
def test_ccpa_is_due_in_45_days_and_a_month_is_28_to_31(received):
    assert due(Basis.CCPA, received) == received + timedelta(days=45)
    assert timedelta(days=28) <= due(Basis.GDPR_17, received) - received <= timedelta(days=31)


@pytest.mark.parametrize("basis", [Basis.COPYRIGHT, Basis.SAFETY, Basis.CONTRACT, Basis.POISONING])
def test_other_bases_have_no_statutory_deadline(basis):
    assert due(basis, datetime(2026, 1, 31, tzinfo=UTC)) is None
