import sqlite3
import threading
from datetime import UTC, datetime, timedelta

import pytest

from mlflow_unlearn.adapters.ledger import Ledger
from mlflow_unlearn.errors import LedgerError
from mlflow_unlearn.lineage import DatasetRevision, ModelVersion, Parent
from mlflow_unlearn.records import Basis, Effect, ErasureRequest, State

NOW = datetime(2026, 11, 24, 18, tzinfo=UTC)
PARENT = Parent(
    model=ModelVersion(name="m", version="2"),
    tensor_digest="c" * 64,
    datasets=(DatasetRevision(name="d", path="p", md5="a.dir", revisions=("main",)),),
)


@pytest.fixture
def ledger(tmp_path):
    return Ledger(f"sqlite:///{tmp_path / 'state/ledger.db'}")


def request(ledger, *subjects, records=(), received_at=NOW):
    tags = (*subjects, *records)
    name = ledger.new_request_id(received_at, tags)
    made = ErasureRequest(
        request_id=name,
        basis=Basis.GDPR_17,
        effect=Effect.REMOVAL,
        received_at=received_at,
        due_at=NOW + timedelta(days=30),
        subjects=tuple(sorted(subjects)),
        records=tuple(sorted(records)),
    )
    ledger.add(made, NOW)
    return made


def events(ledger):
    with sqlite3.connect(ledger.uri.removeprefix("sqlite:///")) as connection:
        rows = connection.execute("SELECT kind, about, detail FROM events ORDER BY number").fetchall()
    connection.close()
    return rows


def test_what_goes_in_comes_out_also_in_another_process(ledger):
    made = request(ledger, "s2", "s1", records=["r1"])
    assert made.request_id.startswith("er-20261124-")
    assert len(made.request_id) == len("er-20261124-1a2b3c4d")
    assert Ledger(ledger.uri).get(made.request_id) == made
    assert Ledger(ledger.uri).open() == (made,)


def test_requests_come_oldest_first(ledger):
    late, early = request(ledger, "s1"), request(ledger, "s2", received_at=NOW - timedelta(days=1))
    assert ledger.requests() == (early, late)


def test_a_request_twice_is_refused_and_the_first_is_named(ledger):
    first = request(ledger, "s1", "s2")
    with pytest.raises(LedgerError, match=f"open request {first.request_id} already asks"):
        request(ledger, "s2", "s3")
    assert ledger.requests() == (first,)


def test_the_same_request_may_come_again_on_the_day_it_was_refused(ledger):
    first = request(ledger, "s1")
    ledger.refuse(first.request_id, "cannot_identify", NOW)
    again = request(ledger, "s1")
    assert again.request_id != first.request_id
    assert ledger.open() == (again,)


def test_of_requests_that_race_for_a_tag_one_wins(ledger):
    ledger.requests()
    lost = []

    def enter(number):
        try:
            request(Ledger(ledger.uri), "s1", f"x{number}")
        except LedgerError as error:
            lost.append(str(error))

    threads = [threading.Thread(target=enter, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(ledger.open()), len(lost)) == (1, 3)
    assert all("already asks" in words for words in lost)


def test_closing_makes_tags_and_canaries_erased_for_good(ledger):
    made, other = request(ledger, "s1", records=["r1"]), request(ledger, "s9")
    assert ledger.erased() == (frozenset(), frozenset())
    ledger.close(made.request_id, {"c1", "r1"}, NOW)
    assert ledger.erased() == (frozenset({"s1"}), frozenset({"r1", "c1"}))
    assert (ledger.get(made.request_id).state, ledger.get(made.request_id).records) == (State.CLOSED, ("r1",))
    assert ledger.requests(State.OPEN) == (other,)


@pytest.mark.parametrize("change", ["close", "refuse", "extend"])
def test_only_an_open_request_changes(ledger, change):
    made = request(ledger, "s1")
    ledger.refuse(made.request_id, "withdrawn", NOW)
    acts = {
        "close": lambda i: ledger.close(i, (), NOW),
        "refuse": lambda i: ledger.refuse(i, "other", NOW),
        "extend": lambda i: ledger.extend(i, NOW, NOW),
    }
    with pytest.raises(LedgerError, match=f"{made.request_id}: it is refused, and only an open request can be"):
        acts[change](made.request_id)
    with pytest.raises(LedgerError, match="er-none: no such request"):
        acts[change]("er-none")


def test_a_deadline_moves(ledger):
    made = request(ledger, "s1")
    ledger.extend(made.request_id, NOW + timedelta(days=90), NOW)
    assert ledger.get(made.request_id).due_at == NOW + timedelta(days=90)


def test_free_text_is_refused(ledger):
    made = request(ledger, "s1")
    with pytest.raises(LedgerError, match=r"expected one of gdpr_17_3, .*no free text"):
        ledger.refuse(made.request_id, "Ana Lu called us", NOW)


def test_every_change_leaves_an_event_and_a_refused_one_leaves_none(ledger):
    made = request(ledger, "s1")
    with pytest.raises(LedgerError, match="already asks"):
        request(ledger, "s1")
    ledger.close(made.request_id, (), NOW)
    assert events(ledger) == [("added", made.request_id, "gdpr_17 removal"), ("closed", made.request_id, "0 canaries")]


def test_the_first_pin_stays_until_it_is_released(ledger):
    assert ledger.pinned_parent("m", "models:/m@champion") is None
    ledger.pin_parent("m", "models:/m@champion", PARENT)
    ledger.pin_parent("m", "models:/m@champion", Parent(model=ModelVersion(name="m", version="3"), tensor_digest="d" * 64, datasets=()))
    assert ledger.pinned_parent("m", "models:/m@champion") == PARENT
    assert ledger.pinned_parent("m", "models:/m/1") is None
    ledger.release_parent("m")
    assert ledger.pinned_parent("m", "models:/m@champion") is None


def test_attempts_count_distinct_weights_for_a_pool_whatever_the_parent(ledger):
    numbers = [ledger.attempt("m/2", "pool", weights, NOW) for weights in ("w1", "w1", "w2", "w1", "w3")]
    assert numbers == [1, 1, 2, 1, 3]
    assert ledger.attempt("m/2", "other pool", "w3", NOW) == 1
    assert ledger.attempt("m/3", "pool", "w4", NOW) == 4


def test_a_pool_is_spent_once(ledger):
    assert ledger.pool_spent_by("pool") is None
    ledger.spend_pool("pool", "er-1,er-2", NOW)
    ledger.spend_pool("pool", "er-3", NOW)
    assert ledger.pool_spent_by("pool") == "er-1,er-2"


def test_only_the_owner_can_read_the_file(ledger, tmp_path):
    ledger.requests()
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "state/ledger.db").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("uri", ["sqlite:////proc/none/ledger.db", "nosuch://u:secret@host/db", "not a uri"])
def test_a_ledger_that_does_not_answer_is_one_line_without_its_password(uri):
    with pytest.raises(LedgerError, match=r"^ledger [^\n]*; check MLFLOW_UNLEARN_LEDGER_URI and that the database answers$") as caught:
        Ledger(uri).open()
    assert "secret" not in str(caught.value)
