from datetime import UTC, datetime, timedelta

import pytest

from mlflow_unlearn.adapters.ledger import Ledger
from mlflow_unlearn.deadlines import due
from mlflow_unlearn.errors import LedgerError
from mlflow_unlearn.records import Basis, Effect, ErasureRequest, Recipient

NOW = datetime(2026, 11, 2, 18, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def ledger(ledger_uri):
    return Ledger(ledger_uri)


def add(ledger, basis=Basis.GDPR_17, due_at=None, name="er-1"):
    at = due_at or due(basis, NOW)
    ledger.add(ErasureRequest(request_id=name, basis=basis, effect=Effect.REMOVAL, received_at=NOW, due_at=at, subjects=(f"tag of {name}",)), NOW)
    return name


def test_gdpr_is_extended_once_to_three_months_from_receipt(ledger):
    add(ledger)
    ledger.extend("er-1", "complexity", NOW + 20 * DAY)
    assert (ledger.get("er-1").due_at, ledger.get("er-1").extension) == (datetime(2027, 2, 2, 18, tzinfo=UTC), "complexity")
    with pytest.raises(LedgerError, match="er-1: it was extended before, and the law knows one extension"):
        ledger.extend("er-1", "complexity", NOW + 21 * DAY)


def test_ccpa_is_extended_once_to_90_days_from_receipt(ledger):
    add(ledger, Basis.CCPA)
    ledger.extend("er-1", "number_of_requests", NOW + 45 * DAY)
    assert ledger.get("er-1").due_at == NOW + 90 * DAY


@pytest.mark.parametrize("basis", [Basis.GDPR_17, Basis.CCPA])
def test_a_deadline_that_has_passed_is_not_extended(ledger, basis):
    add(ledger, basis)
    with pytest.raises(LedgerError, match=r"er-1: it was due on 2026-12-.*, and the person has to be told of an extension before that"):
        ledger.extend("er-1", "complexity", NOW + 46 * DAY)


def test_an_extension_ends_after_the_present_deadline_and_within_the_law(ledger):
    add(ledger)
    for until in (NOW + 30 * DAY, datetime(2027, 2, 2, 18, 0, 1, tzinfo=UTC)):
        with pytest.raises(LedgerError, match="expected --until after 2026-12-02T18:00:00Z and not after 2027-02-02T18:00:00Z"):
            ledger.extend("er-1", "complexity", NOW, until)
    ledger.extend("er-1", "complexity", NOW, NOW + 40 * DAY)
    assert ledger.get("er-1").due_at == NOW + 40 * DAY


def test_without_a_statutory_deadline_an_extension_needs_a_moment_and_may_come_again(ledger):
    add(ledger, Basis.COPYRIGHT)
    with pytest.raises(LedgerError, match="er-1: no statutory deadline, so pass --until with a moment after the present one"):
        ledger.extend("er-1", "complexity", NOW)
    for days in (10, 20):
        ledger.extend("er-1", "complexity", NOW, NOW + days * DAY)
    assert ledger.get("er-1").due_at == NOW + 20 * DAY


def test_the_deadline_moves_by_every_pause(ledger):
    add(ledger)
    for start, end in ((1, 4), (10, 12)):
        ledger.pause("er-1", "identity_check", NOW + start * DAY)
        assert ledger.get("er-1").paused_at == NOW + start * DAY
        ledger.resume("er-1", NOW + end * DAY)
    found = ledger.get("er-1")
    assert (found.due_at, found.paused_at) == (datetime(2026, 12, 7, 18, tzinfo=UTC), None)
    ledger.extend("er-1", "complexity", NOW + 20 * DAY)
    assert ledger.get("er-1").due_at == datetime(2027, 2, 8, 18, tzinfo=UTC)  # the 7th is a Sunday


def test_an_agreed_deadline_moves_by_the_pause_too(ledger):
    add(ledger, Basis.CONTRACT, NOW + 10 * DAY)
    ledger.pause("er-1", "identity_check", NOW + DAY)
    ledger.resume("er-1", NOW + 4 * DAY)
    assert ledger.get("er-1").due_at == NOW + 13 * DAY


def test_verifying_who_asks_does_not_stop_the_clock_of_ccpa(ledger):
    add(ledger, Basis.CCPA)
    with pytest.raises(LedgerError, match=r"er-1: verifying who asks does not stop the 45 days of CCPA \(11 CCR 7021\(b\)\)"):
        ledger.pause("er-1", "identity_check", NOW)


def test_a_clock_is_paused_once_at_a_time_and_before_it_has_run_out(ledger):
    add(ledger)
    with pytest.raises(LedgerError, match="er-1: it was due on 2026-12-02T18:00:00Z, and a clock that has run out cannot be stopped"):
        ledger.pause("er-1", "identity_check", NOW + 31 * DAY)
    ledger.pause("er-1", "identity_check", NOW + DAY)
    with pytest.raises(LedgerError, match="er-1: paused since 2026-11-03T18:00:00Z"):
        ledger.pause("er-1", "identity_check", NOW + 2 * DAY)


def test_only_a_paused_clock_is_resumed_and_not_before_it_stopped(ledger):
    add(ledger)
    with pytest.raises(LedgerError, match="er-1: not paused"):
        ledger.resume("er-1", NOW)
    ledger.pause("er-1", "identity_check", NOW + DAY)
    with pytest.raises(LedgerError, match="er-1: paused only since 2026-11-03T18:00:00Z"):
        ledger.resume("er-1", NOW)


def test_a_paused_request_can_be_extended_as_long_as_its_clock_has_not_run_out(ledger):
    add(ledger)
    ledger.pause("er-1", "identity_check", NOW + DAY)
    ledger.extend("er-1", "complexity", NOW + 60 * DAY)
    assert ledger.get("er-1").extension == "complexity"


@pytest.mark.parametrize(("basis", "ground"), [(Basis.GDPR_17, "gdpr_17_3_e"), (Basis.CCPA, "ccpa_105_d_8"), (Basis.COPYRIGHT, "unfounded")])
def test_a_ground_of_refusal_belongs_to_its_basis(ledger, basis, ground):
    add(ledger, basis)
    other = "ccpa_105_d_1" if basis is Basis.GDPR_17 else "gdpr_17_3_a"
    with pytest.raises(LedgerError, match=r"request refuse: expected one of .*withdrawn; the ledger takes no free text"):
        ledger.refuse("er-1", other, NOW)
    ledger.refuse("er-1", ground, NOW)
    assert ledger.get("er-1").ground == ground


@pytest.mark.parametrize("act", ["extend", "pause", "refuse", "interim"])
def test_free_text_is_refused_and_not_repeated(ledger, act):
    add(ledger)
    with pytest.raises(LedgerError, match=r"expected one of .*; the ledger takes no free text$") as caught:
        getattr(ledger, act)("er-1", "Ana Lu called us", NOW)
    assert "Ana" not in str(caught.value)


def test_a_measure_begins_and_ends_also_after_the_request(ledger):
    add(ledger)
    ledger.interim("er-1", "suppress_outputs", NOW)
    ledger.interim("er-1", "block_version", NOW)
    assert ledger.get("er-1").interim == ("block_version", "suppress_outputs")
    with pytest.raises(LedgerError, match="er-1: block_version is already in force"):
        ledger.interim("er-1", "block_version", NOW)
    ledger.close("er-1", (), NOW)
    ledger.interim("er-1", "block_version", NOW, ended=True)
    assert ledger.get("er-1").interim == ("suppress_outputs",)
    with pytest.raises(LedgerError, match="er-1: block_version is not in force"):
        ledger.interim("er-1", "block_version", NOW, ended=True)


def test_a_recipient_is_named_told_and_acknowledges(ledger):
    add(ledger)
    with pytest.raises(LedgerError, match=r"er-1: crm\.eu cannot acknowledge before it was told; pass --told too"):
        ledger.recipient("er-1", Recipient(name="crm.eu", acknowledged_at=NOW), NOW)
    ledger.recipient("er-1", Recipient(name="crm.eu"), NOW)
    ledger.recipient("er-1", Recipient(name="ads", told_at=NOW), NOW)
    ledger.close("er-1", (), NOW)
    ledger.recipient("er-1", Recipient(name="crm.eu", told_at=NOW), NOW)
    ledger.recipient("er-1", Recipient(name="crm.eu", acknowledged_at=NOW + DAY), NOW)
    assert ledger.get("er-1").recipients == (Recipient(name="ads", told_at=NOW), Recipient(name="crm.eu", told_at=NOW, acknowledged_at=NOW + DAY))


@pytest.mark.parametrize("name", ["Ana Lu", "", "a" * 41, "ana@example.org", "ünal"])
def test_a_recipient_is_a_code_and_no_person(ledger, name):
    add(ledger)
    with pytest.raises(LedgerError, match=r"request recipient: expected a code of at most 40 characters .*no person$"):
        ledger.recipient("er-1", Recipient(name=name), NOW)


def test_nobody_has_to_be_told_of_a_refused_request(ledger):
    add(ledger)
    ledger.refuse("er-1", "withdrawn", NOW)
    with pytest.raises(LedgerError, match="er-1: it is refused, so nobody has to be told"):
        ledger.recipient("er-1", Recipient(name="crm"), NOW)
