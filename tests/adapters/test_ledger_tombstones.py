from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_unlearn.adapters.ledger import Ledger
from mlflow_unlearn.errors import LedgerError
from mlflow_unlearn.records import Basis, Effect, ErasureRequest, Tombstones

NOW = datetime(2026, 11, 24, 18, tzinfo=UTC)
ANA, BO = (
    Tombstones(subjects=frozenset({f"s-{who}"}), records=frozenset({f"r-{who}"}), contents=frozenset({f"c-{who}"}), sketches=("ab" * 2048,))
    for who in ("ana", "bo")
)


@pytest.fixture
def ledger(ledger_uri):
    return Ledger(ledger_uri, key_id="a" * 16)


def add(ledger, name, subjects=(), records=(), close=True):
    ledger.add(
        ErasureRequest(request_id=name, basis=Basis.GDPR_17, effect=Effect.REMOVAL, received_at=NOW, due_at=None, subjects=subjects, records=records),
        NOW,
    )
    if close:
        ledger.close(name, (), NOW)


def both(ledger):
    """What is buried, as one value."""
    return ledger.tombstones().get("a" * 16, Tombstones())


def test_what_is_buried_is_found_again_under_its_key(ledger):
    add(ledger, "er-1", ("s-ana",))
    ledger.bury("er-1", ANA, NOW)
    assert Ledger(ledger.uri).tombstones() == {"a" * 16: ANA}


def test_burying_again_changes_nothing(ledger):
    add(ledger, "er-1", ("s-ana", "s-bo"))
    ledger.bury("er-1", [ANA, BO], NOW)
    number = ledger.head().number
    for graves in (ANA, BO, [BO, ANA], Tombstones(), []):
        ledger.bury("er-1", graves, NOW)
    assert ledger.head().number == number


def test_tombstones_may_come_before_the_end_and_vanish_with_a_refusal(ledger):
    add(ledger, "er-1", ("s-ana",), close=False)
    ledger.bury("er-1", ANA, NOW)
    assert both(ledger) == ANA
    ledger.refuse("er-1", "withdrawn", NOW)
    assert ledger.tombstones() == {}
    with pytest.raises(LedgerError, match="er-1: it is refused, so nothing was erased for it"):
        ledger.bury("er-1", BO, NOW)


def test_tombstones_need_a_key_and_sketches_an_end(ledger_uri):
    ledger = Ledger(ledger_uri)
    add(ledger, "er-1", ("s-ana",))
    with pytest.raises(LedgerError, match="er-1: tombstones need the id of the key"):
        ledger.bury("er-1", ANA, NOW)
    with pytest.raises(LedgerError, match="a sketch is longer than 4096 characters"):
        ledger.bury("er-1", Tombstones(sketches=("a" * 4097,)), NOW)


def test_a_lifted_request_is_erased_no_more(ledger):
    add(ledger, "er-1", ("s-ana",), ("r-cy",))
    add(ledger, "er-2", ("s-bo",))
    ledger.bury("er-1", ANA, NOW)
    ledger.bury("er-2", BO, NOW)
    assert ledger.lift("er-1", "consent", NOW) == 2
    assert (ledger.erased(), both(ledger)) == ((frozenset({"s-bo"}), frozenset()), BO)
    found = ledger.get("er-1")
    assert (found.subjects, found.records, found.lifted) == ((), (), 2)
    assert ledger.lift("er-1", "consent", NOW) == 0


def test_lifting_one_person_leaves_the_others_erased(ledger):
    add(ledger, "er-1", ("s-ana", "s-bo"))
    ledger.bury("er-1", [ANA, BO], NOW)
    assert ledger.lift(["s-ana", "s-nobody"], "returned_lawfully", NOW) == 1
    assert (ledger.erased()[0], both(ledger), ledger.get("er-1").subjects) == ({"s-bo"}, BO, ("s-bo",))


def test_what_was_buried_with_others_stays_when_one_is_lifted(ledger):
    add(ledger, "er-1", ("s-ana", "s-bo"))
    together = Tombstones(subjects=ANA.subjects | BO.subjects, records=ANA.records | BO.records)
    ledger.bury("er-1", together, NOW)
    ledger.lift(["s-ana"], "contract", NOW)
    assert both(ledger) == Tombstones(subjects=BO.subjects, records=together.records)


def test_who_is_erased_again_after_a_lift_is_erased(ledger):
    add(ledger, "er-1", ("s-ana",))
    ledger.lift(["s-ana"], "consent", NOW)
    add(ledger, "er-2", ("s-ana",))
    ledger.bury("er-2", ANA, NOW)
    assert (ledger.erased()[0], both(ledger)) == ({"s-ana"}, ANA)


def test_only_what_a_closed_request_erased_is_lifted_and_for_a_coded_basis(ledger):
    add(ledger, "er-1", ("s-ana",), close=False)
    with pytest.raises(LedgerError, match="er-1: it is open; only what a closed request erased can be lifted"):
        ledger.lift("er-1", "consent", NOW)
    with pytest.raises(LedgerError, match=r"tombstone lift: expected one of consent, .*no free text"):
        ledger.lift("er-1", "Ana came back", NOW)
    assert ledger.lift(["s-ana"], "consent", NOW) == 0


def test_a_new_key_translates_open_requests_and_keeps_tombstones_under_the_old_one(ledger):
    add(ledger, "er-1", ("s-ana",), ("r-cy",), close=False)
    add(ledger, "er-2", ("s-bo", "s-gone"))
    ledger.bury("er-2", BO, NOW)
    assert ledger.held_tags() == {"s-ana", "r-cy", "s-bo", "s-gone"}
    assert ledger.rekey({"s-ana": "S-ana", "r-cy": "R-cy", "s-bo": "S-bo"}, "b" * 16, NOW) == 2
    found = Ledger(ledger.uri, key_id="b" * 16)
    assert (found.get("er-1").subjects, found.get("er-1").records) == (("S-ana",), ("R-cy",))
    assert (found.erased()[0], found.tombstones()) == ({"S-bo", "s-bo", "s-gone"}, {"a" * 16: BO})
    assert found.verify() == ()


def test_a_key_is_not_changed_when_an_open_request_would_be_lost(ledger):
    add(ledger, "er-1", ("s-ana", "s-bo"), close=False)
    with pytest.raises(LedgerError, match=r"tag-key rotate: .*\(1 of er-1\); close or refuse these requests first"):
        ledger.rekey({"s-ana": "S-ana"}, "b" * 16, NOW)
    assert (ledger.written_with(), ledger.get("er-1").subjects) == ("a" * 16, ("s-ana", "s-bo"))


def test_who_was_lifted_stays_lifted_under_a_new_key(ledger):
    add(ledger, "er-1", ("s-ana", "s-bo"))
    ledger.lift(["s-ana"], "consent", NOW)
    ledger.rekey({"s-ana": "S-ana", "s-bo": "S-bo"}, "b" * 16, NOW)
    assert ledger.erased()[0] == {"S-bo", "s-bo"}


WHO = st.sets(st.sampled_from("abcdef"), min_size=1)


@given(st.lists(st.tuples(st.sampled_from(["erase", "lift"]), WHO), max_size=8))
def test_erased_is_what_was_asked_last_of_everybody(tmp_path_factory, acts):
    ledger = Ledger(f"sqlite:///{tmp_path_factory.mktemp('laws') / 'l.db'}", key_id="a" * 16)
    expected = set()
    for number, (act, who) in enumerate(acts):
        if act == "erase":
            add(ledger, f"er-{number}", tuple(sorted(who)))
            ledger.bury(f"er-{number}", [Tombstones(subjects=frozenset({one}), contents=frozenset({f"c{one}"})) for one in who], NOW)
        else:
            ledger.lift(sorted(who), "consent", NOW)
        expected = expected | who if act == "erase" else expected - who
    assert (ledger.erased()[0], both(ledger).subjects, both(ledger).contents) == (expected, expected, {f"c{one}" for one in expected})
