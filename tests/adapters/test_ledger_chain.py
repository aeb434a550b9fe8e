import hashlib
import json
import shutil
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sql
from hypothesis import given
from hypothesis import strategies as st

from mlflow_unlearn.adapters.ledger import Ledger
from mlflow_unlearn.errors import LedgerError
from mlflow_unlearn.records import Basis, Effect, ErasureRequest

NOW = datetime(2026, 11, 24, 18, tzinfo=UTC)
COLUMNS = ("number", "at", "kind", "about", "body", "previous", "digest")
KEYS = {"key_id": "a" * 16}


@pytest.fixture
def ledger(ledger_uri, tmp_path):
    """Four events: the key, two requests, one closed with a canary."""
    return written(ledger_uri, tmp_path / "private/ledger.head")


def written(uri, witness):
    ledger = Ledger(uri, **KEYS, witness=witness)
    for name in ("er-1", "er-2"):
        ledger.add(
            ErasureRequest(
                request_id=name,
                basis=Basis.COPYRIGHT,
                effect=Effect.REMOVAL,
                received_at=NOW,
                due_at=None,
                subjects=(f"{name[-1]}" * 32,),
                records=("ab" * 16, "cd" * 16) if name == "er-1" else (),
            ),
            NOW,
        )
    ledger.close("er-1", ["ef" * 16], NOW)
    return ledger


def change(ledger, *statements):
    """Run SQL as somebody who owns the database and has dropped what stands in the way."""
    engine = sql.create_engine(ledger.uri)
    with engine.begin() as connection:
        for table in ("unlearn_events", "unlearn_blocks"):
            names = (f"unlearn_keep_update_{table}", f"unlearn_keep_delete_{table}") if engine.dialect.name == "sqlite" else ("unlearn_keep",)
            for name in names:
                connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {name}" + ("" if engine.dialect.name == "sqlite" else f" ON {table}"))
        for statement in statements:
            connection.execute(sql.text(statement))
    engine.dispose()


def opened(ledger, tmp_path):
    return Ledger(ledger.uri, **KEYS, witness=tmp_path / "private/ledger.head")


def rows(ledger):
    engine = sql.create_engine(ledger.uri)
    with engine.begin() as connection:
        found = [tuple(row) for row in connection.execute(sql.text(f"SELECT {', '.join(COLUMNS)} FROM unlearn_events ORDER BY number"))]
    engine.dispose()
    return found


def test_every_change_is_an_event_and_a_refused_one_is_none(ledger):
    with pytest.raises(LedgerError, match="er-1: it is closed"):
        ledger.refuse("er-1", "withdrawn", NOW)
    assert [(row[0], row[2], row[3]) for row in rows(ledger)] == [(1, "key", ""), (2, "added", "er-1"), (3, "added", "er-2"), (4, "closed", "er-1")]
    assert ledger.verify() == ()


def test_a_digest_covers_the_whole_event_and_the_one_before(ledger):
    previous = "0" * 64
    for *fields, before, digest in rows(ledger):
        text = json.dumps([*fields, before], separators=(",", ":"))
        assert (before, digest) == (previous, hashlib.sha256(text.encode()).hexdigest())
        previous = digest
    assert ledger.head().digest == previous


def test_the_tags_of_an_event_are_in_its_digest(ledger):
    described = json.loads(rows(ledger)[1][4])["sets"]["record"]
    assert described == {"count": 2, "digest": hashlib.sha256(b"ab" * 16 + b"\n" + b"cd" * 16 + b"\n").hexdigest()}


@pytest.mark.parametrize("statement", ["UPDATE {0} SET number = 9", "DELETE FROM {0}", "TRUNCATE {0}"])
@pytest.mark.parametrize("table", ["unlearn_events", "unlearn_blocks"])
def test_the_database_refuses_to_change_or_delete(ledger, table, statement):
    engine = sql.create_engine(ledger.uri)
    if engine.dialect.name == "sqlite" and "TRUNCATE" in statement:
        return
    with pytest.raises(sql.exc.DBAPIError, match="the ledger is append-only"), engine.begin() as connection:
        connection.execute(sql.text(statement.format(table)))
    engine.dispose()


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("UPDATE unlearn_events SET about = 'er-9' WHERE number = 2", "event 2 is not the one that was written"),
        ("UPDATE unlearn_events SET at = '2020-01-01T00:00:00Z' WHERE number = 4", "event 4 is not the one that was written"),
        ("DELETE FROM unlearn_events WHERE number = 3", "event 3 is missing, 4 comes next"),
        ("DELETE FROM unlearn_events WHERE number = 4", "it ends at event 3, and this project has seen event 4"),
        ("DELETE FROM unlearn_events", "it ends at event 0, and this project has seen event 4"),
    ],
)
def test_a_changed_event_is_found_when_the_ledger_is_opened(ledger, tmp_path, statement, words):
    change(ledger, statement)
    with pytest.raises(LedgerError, match=f"^ledger: {words}; it was changed outside mlflow-unlearn: restore it from a backup"):
        opened(ledger, tmp_path).open()
    assert any(words in problem for problem in opened(ledger, tmp_path).verify())


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("UPDATE unlearn_blocks SET lines = replace(lines, 'ab', 'ac') WHERE number = 2", "event 2: the record lines beside it are not the 2"),
        ("DELETE FROM unlearn_blocks WHERE number = 2 AND kind = 'subject'", "event 2: the subject lines beside it are not the 1"),
        ("UPDATE unlearn_blocks SET number = 3 WHERE number = 4", "event 4: the canary lines beside it are not the 1"),
        ("INSERT INTO unlearn_blocks VALUES (2, 'record', 1, 'ff')", "event 2: the record lines beside it are not the 2"),
    ],
)
def test_changed_tags_are_found_when_they_are_read(ledger, tmp_path, statement, words):
    change(ledger, statement)
    with pytest.raises(LedgerError, match=f"^ledger: {words} it was written with; it was changed outside"):
        (opened(ledger, tmp_path).requests(), opened(ledger, tmp_path).erased())
    assert any(words in problem for problem in opened(ledger, tmp_path).verify())


def test_tags_of_no_event_are_found_by_verify(ledger, tmp_path):
    change(ledger, "INSERT INTO unlearn_blocks VALUES (7, 'record', 0, 'ff')")
    assert [problem[:54] for problem in opened(ledger, tmp_path).verify()] == ["ledger: event 7 is gone or says nothing of the record "]


def test_a_past_that_was_written_anew_is_found(ledger, ledger_uri, tmp_path):
    """Whoever can compute digests can make another consistent chain, but not one that the witness has seen."""
    shutil.copy(tmp_path / "private/ledger.head", tmp_path / "seen")
    change(ledger, "DELETE FROM unlearn_blocks", "DELETE FROM unlearn_events")
    other = Ledger(ledger_uri, **KEYS)
    for number in range(5):
        other.attempt("m", "pool", f"w{number}", NOW)
    with pytest.raises(LedgerError, match=r"event 4 is not the one that this project has seen"):
        opened(ledger, tmp_path).open()


def test_lost_triggers_are_named_and_made_again(ledger, tmp_path):
    change(ledger)
    assert len([problem for problem in ledger.verify() if "has lost the triggers" in problem]) == 2
    assert opened(ledger, tmp_path).verify() == ()


def test_an_open_ledger_finds_what_happens_under_its_hands(ledger):
    change(ledger, "DELETE FROM unlearn_events WHERE number = 4")
    with pytest.raises(LedgerError, match="event 4 is gone or not the one that was read before"):
        ledger.open()


@pytest.mark.parametrize("act", [Ledger.open, Ledger.erased, lambda ledger: ledger.spend_pool("pool", "er-1", NOW)])
def test_another_key_is_refused_and_not_an_empty_answer(ledger, act):
    with pytest.raises(LedgerError, match=f"wrong or lost tag key: the ledger is written with key {'a' * 16}, the key in use is {'b' * 16}"):
        act(Ledger(ledger.uri, key_id="b" * 16))
    assert len(rows(ledger)) == 4


def test_a_ledger_written_without_a_key_takes_the_first_one(ledger_uri):
    Ledger(ledger_uri).spend_pool("pool", "er-1", NOW)
    Ledger(ledger_uri, key_id="a" * 16).spend_pool("other", "er-1", NOW)
    assert Ledger(ledger_uri).written_with() == "a" * 16


def test_an_event_of_a_later_version_is_refused(ledger, tmp_path):
    fields = [5, "2026-11-24T18:00:00Z", "anchored", "", "{}", ledger.head().digest]
    digest = hashlib.sha256(json.dumps(fields, separators=(",", ":")).encode()).hexdigest()
    change(ledger, "INSERT INTO unlearn_events VALUES (5, '{}', '{}', '', '{}', '{}', '{}')".format(fields[1], "anchored", "{}", fields[5], digest))
    with pytest.raises(LedgerError, match="event 5 is a 'anchored', which this version does not know; update mlflow-unlearn"):
        opened(ledger, tmp_path).open()


def test_a_witness_belongs_to_its_ledger_and_moves_with_its_folder(tmp_path):
    home = tmp_path / "home"
    written(f"sqlite:///{home / 'ledger.db'}", home / "ledger.head")
    Ledger(f"sqlite:///{tmp_path / 'other.db'}", witness=home / "ledger.head").spend_pool("pool", "er-1", NOW)
    moved = home.rename(tmp_path / "moved")
    with sqlite3.connect(moved / "ledger.db") as connection:
        connection.execute("DROP TRIGGER unlearn_keep_delete_unlearn_events")
        connection.execute("DELETE FROM unlearn_events WHERE number = 4")
    connection.close()
    with pytest.raises(LedgerError, match=r"it ends at event 3, and this project has seen event 4"):
        Ledger(f"sqlite:///{moved / 'ledger.db'}", witness=moved / "ledger.head").open()


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"x": 1}', b'{"x": {"number": "4", "digest": "a"}}', b"\xff"])
def test_a_broken_witness_is_refused(tmp_path, content):
    (tmp_path / "ledger.head").write_bytes(content)
    with pytest.raises(LedgerError, match=r"ledger\.head: does not hold the heads of ledgers; restore it"):
        Ledger(f"sqlite:///{tmp_path / 'l.db'}", witness=tmp_path / "ledger.head").open()


def test_a_witness_that_cannot_be_written_says_that_the_change_stands(tmp_path):
    ledger = Ledger(f"sqlite:///{tmp_path / 'l.db'}", witness=Path("/proc/none/ledger.head"))
    with pytest.raises(LedgerError, match="the change is in the ledger, but this file could not follow"):
        ledger.spend_pool("pool", "er-1", NOW)
    assert Ledger(ledger.uri).pool_spent_by("pool") == "er-1"


def test_a_ledger_of_the_earlier_kind_is_refused_and_not_an_empty_answer(tmp_path):
    with sqlite3.connect(tmp_path / "l.db") as connection:
        connection.executescript("CREATE TABLE requests (a); CREATE TABLE request_tags (a); CREATE TABLE events (a)")
    connection.close()
    with pytest.raises(LedgerError, match="written by an earlier version, without a hash chain"):
        Ledger(f"sqlite:///{tmp_path / 'l.db'}").open()


def test_a_truncated_file_is_one_line(tmp_path):
    ledger = written(f"sqlite:///{tmp_path / 'l.db'}", tmp_path / "ledger.head")
    content = (tmp_path / "l.db").read_bytes()
    (tmp_path / "l.db").write_bytes(content[: len(content) // 2])
    with pytest.raises(LedgerError, match=r"check MLFLOW_UNLEARN_LEDGER_URI and that the database answers$"):
        Ledger(ledger.uri).requests()


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chain")
    written(f"sqlite:///{folder / 'l.db'}", folder / "ledger.head")
    return folder


@given(
    cell=st.sampled_from([("unlearn_events", c) for c in COLUMNS] + [("unlearn_blocks", c) for c in ("number", "kind", "place", "lines")]),
    row=st.integers(0, 3),
    value=st.integers(0, 9) | st.text("abc019-", max_size=5),
)
def test_any_changed_cell_is_found(original, tmp_path_factory, cell, row, value):
    folder = tmp_path_factory.mktemp("changed")
    shutil.copytree(original, folder, dirs_exist_ok=True)
    (table, column), path = cell, folder / "l.db"
    ledger = Ledger(f"sqlite:///{path}", witness=folder / "ledger.head")
    change(ledger)
    connection = sqlite3.connect(path)
    rowid, before = connection.execute(f"SELECT rowid, {column} FROM {table} ORDER BY rowid LIMIT 1 OFFSET {row}").fetchone()
    try:
        connection.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (value, rowid))
        after = connection.execute(f"SELECT {column} FROM {table} WHERE rowid = ?", (rowid,)).fetchone()
    except sqlite3.IntegrityError:
        after = None
    if after is not None and after[0] != before:
        connection.commit()
        connection.close()
        assert ledger.verify()
    connection.close()
