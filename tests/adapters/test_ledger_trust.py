"""Changes of the trust file in the ledger: in their order, once, and never an older one after a later one."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from mlflow_unlearn.adapters.ledger import Ledger
from mlflow_unlearn.errors import ConfigError, LedgerError

AT = datetime(2026, 11, 24, 18, tzinfo=UTC)
A, B = "a" * 64, "b" * 64


@pytest.fixture
def ledger(ledger_uri):
    return Ledger(ledger_uri, "k" * 16)


def test_the_latest_change_is_known_and_entered_once(ledger):
    assert ledger.trusted() is None
    for number, digest in ((1, A), (1, A), (3, B), (3, B)):
        ledger.enter_trust(number, digest, AT)
    assert (ledger.trusted(), Ledger(ledger.uri).trusted(), ledger.head().number) == ((3, B), (3, B), 3)
    assert (ledger.written_at(), ledger.verify()) == (AT, ())


@pytest.mark.parametrize(("number", "digest"), [(2, B), (3, B), (1, A)])
def test_an_older_change_or_another_of_the_same_number_is_refused(ledger, number, digest):
    ledger.enter_trust(3, A, AT)
    with pytest.raises(LedgerError, match=rf"change {number} \({digest[:16]}\) is not the one that the ledger knows, change 3 \(aaaa"):
        ledger.enter_trust(number, digest, AT)
    assert ledger.trusted() == (3, A)


def test_what_could_not_be_written_is_not_entered(ledger):
    def fails():
        raise ConfigError("disk full")

    with pytest.raises(ConfigError, match="disk full"):
        ledger.enter_trust(1, A, AT, fails)
    assert ledger.trusted() is None


def test_an_anchor_is_an_event_of_this_ledger_and_of_no_other(ledger, tmp_path):
    anchor = ledger.anchor()
    assert (anchor.number, ledger.anchor() == anchor, ledger.holds(anchor.number, anchor.digest)) == (1, True, True)
    assert not Ledger(f"sqlite:///{tmp_path / 'other.db'}", "k" * 16).holds(anchor.number, anchor.digest)
    assert not ledger.holds(0, ledger.head().digest)
