from dataclasses import replace
from datetime import UTC, datetime

import pytest

from mlflow_unlearn.adapters.ledger import Ledger
from mlflow_unlearn.adapters.ledger_promotions import WentOnError
from mlflow_unlearn.errors import ConfigError, LedgerError
from mlflow_unlearn.lineage import ModelVersion
from mlflow_unlearn.records import Promotion

PROMOTED = Promotion(
    model=ModelVersion(name="m", version="3"),
    alias="champion",
    replaced="2",
    granted=True,
    answer="yes",
    enforcement="enforce",
    codes=("signed", "passed"),
    evidence=("a" * 64,),
    by="ci@example",
    at=datetime(2026, 11, 24, 18, tzinfo=UTC),
)
REFUSED = replace(PROMOTED, model=ModelVersion(name="n", version="1"), replaced=None, granted=False, answer="no", codes=("affected",))


@pytest.fixture
def ledger(ledger_uri):
    return Ledger(ledger_uri)


def test_promotions_and_refusals_come_back_in_their_order(ledger):
    ledger.promote(PROMOTED)
    ledger.promote(REFUSED)
    assert Ledger(ledger.uri).promotions() == (PROMOTED, REFUSED)
    assert (ledger.promotions("n"), ledger.promotions("other")) == ((REFUSED,), ())
    assert ledger.verify() == ()


def test_what_could_not_be_done_is_not_entered(ledger):
    def fails():
        raise ConfigError("moved meanwhile")

    with pytest.raises(ConfigError, match="moved meanwhile"):
        ledger.promote(PROMOTED, fails)
    assert (ledger.promotions(), ledger.head().number) == ((), 0)


def test_the_alias_is_moved_before_anybody_else_can_write(ledger):
    seen = []
    ledger.promote(PROMOTED, lambda: seen.append("moved"))
    assert (seen, ledger.promotions()) == (["moved"], (PROMOTED,))


@pytest.mark.parametrize("name", ["", "two words", "x" * 65, "line\nbreak"])
def test_a_name_that_could_be_a_text_is_refused(ledger, name):
    with pytest.raises(LedgerError, match="set MLFLOW_TRACKING_USERNAME to one"):
        ledger.promote(replace(PROMOTED, by=name))


def test_a_promotion_rests_on_the_last_event_that_was_looked_at(ledger):
    seen, moved = ledger.head(), []
    ledger.promote(PROMOTED, lambda: moved.append(1), seen)
    with pytest.raises(WentOnError, match=f"it went on after event {seen.number}, which the answer rests on"):
        ledger.promote(REFUSED, lambda: moved.append(2), seen)
    assert (ledger.promotions(), moved) == ((PROMOTED,), [1])


def test_the_first_change_of_a_ledger_is_no_reason_to_ask_again(ledger_uri):
    Ledger(ledger_uri, "k" * 16).promote(PROMOTED, seen=Ledger(ledger_uri).head())
    assert Ledger(ledger_uri).head().number == 2


def test_a_head_is_held_by_the_ledger_that_it_was_taken_from(ledger):
    assert not ledger.holds(0, "anything")
    assert not ledger.holds(0, ledger.head().digest)
    ledger.promote(PROMOTED)
    head = ledger.head()
    ledger.promote(REFUSED)
    assert ledger.holds(head.number, head.digest)
    assert not ledger.holds(head.number, "0" * 64)
    assert not ledger.holds(head.number + 2, head.digest)
