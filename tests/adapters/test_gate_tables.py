"""Kept rows of the gate: what was written with the key comes back, what anybody else changed is not there, and writers take turns."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from time import sleep

import pytest
import sqlalchemy as sql
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from mlflow_unlearn.adapters.gate_tables import GATE, LOG, ROWS, SCHEMA, KeptRows, prepare, take_turn, writing
from mlflow_unlearn.errors import StoreError

KEY = b"k" * 32
KEPT = KeptRows(KEY)
SCALARS = st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=20)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3), max_leaves=8)
BODIES = st.dictionaries(st.text(max_size=10), VALUES, max_size=4)
NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = sql.create_engine(f"sqlite:///{tmp_path}/mlflow.db", poolclass=NullPool)
    prepare(made)
    yield made
    made.dispose()


@pytest.fixture
def any_engine(ledger_uri: str, tmp_path: Path) -> Iterator[Engine]:
    """On sqlite, and on a real Postgres."""
    (tmp_path / "state").mkdir(exist_ok=True)
    made = sql.create_engine(ledger_uri)
    yield made
    made.dispose()


def put(engine: Engine, kind: str = "block", name: str = "file:///m", **body: object) -> None:
    with writing(engine) as connection:
        KEPT.put(connection, kind, name, body)


def got(engine: Engine, kind: str = "block", name: str = "file:///m", key: bytes = KEY) -> tuple[object, object]:
    """A row by its name, and among all of its kind."""
    with engine.connect() as connection:
        return KeptRows(key).get(connection, kind, name), KeptRows(key).all(connection, kind).get(name)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=NAMES, body=BODIES, again=BODIES)
def test_any_body_under_any_name_comes_back_and_a_later_one_takes_its_place(engine, name, body, again):
    with engine.connect() as connection:
        for each in (body, again):
            KEPT.put(connection, "decision", name, each)
            assert KEPT.get(connection, "decision", name) == KEPT.all(connection, "decision")[name] == each
        assert len(KEPT.all(connection, "decision")) == 1
        KEPT.remove(connection, "decision", name)
        assert KEPT.get(connection, "decision", name) is None


def test_a_name_may_be_longer_than_a_key_of_a_database_and_two_long_ones_differ(any_engine):
    prepare(any_engine)
    one, other = "mlflow-artifacts:/" + "é" * 20_000 + "1", "mlflow-artifacts:/" + "é" * 20_000 + "2"
    put(any_engine, name=one, number=1)
    put(any_engine, name=other, number=2)
    assert [got(any_engine, name=each)[0] for each in (one, other)] == [{"number": 1}, {"number": 2}]


def test_rows_of_one_name_and_two_kinds_are_two(engine):
    put(engine, "block", since="2026")
    put(engine, "subject", digest="a")
    with writing(engine) as connection:
        KEPT.remove(connection, "block", "file:///m")
    assert got(engine, "block") == (None, None)
    assert got(engine, "subject")[0] == {"digest": "a"}


CHANGES = {
    "its body": {"body": '{"since":"2999"}'},
    "its body by a space": {"body": '{"since": "2026"}'},
    "its kind": {"kind": "subject"},
    "its MAC": {"mac": "0" * 64},
    "its MAC to none": {"mac": ""},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_row_that_was_changed_is_not_there(engine, change):
    put(engine, since="2026")
    with engine.begin() as connection:
        connection.execute(ROWS.update().values(**change))
    for kind in ("block", "subject"):
        for name in ("file:///m", "file:///n"):
            assert got(engine, kind, name) == (None, None), (kind, name)


def test_a_row_that_was_given_another_name_is_not_there_under_that_one(engine):
    put(engine, since="2026")
    with engine.begin() as connection:
        connection.execute(ROWS.update().values(name="file:///n"))
    assert (got(engine, name="file:///n"), got(engine)[1]) == ((None, None), None)


def test_a_row_whose_mac_is_no_hex_is_not_there(engine):
    put(engine, since="2026")
    with engine.begin() as connection:
        connection.execute(ROWS.update().values(mac="é" * 64))
    assert got(engine) == (None, None)


def test_a_row_that_was_moved_under_another_name_or_kind_is_not_there(engine):
    put(engine, "block", "file:///m", since="2026")
    put(engine, "block", "file:///n", since="2027")
    with engine.begin() as connection:
        rows = {row.name: row for row in connection.execute(sql.select(ROWS))}
        taken = {"body": rows["file:///m"].body, "mac": rows["file:///m"].mac}
        connection.execute(ROWS.update().where(ROWS.c.name == "file:///n").values(**taken))
        connection.execute(ROWS.insert().values(kind="decision", id=rows["file:///m"].id, name="file:///m", **taken))
    assert (got(engine, "block", "file:///n"), got(engine, "decision", "file:///m")) == ((None, None), (None, None))
    assert got(engine)[0] == {"since": "2026"}


def test_a_row_that_is_not_there_can_be_written_again(engine):
    put(engine, since="2026")
    with engine.begin() as connection:
        connection.execute(ROWS.update().values(body="no JSON"))
    put(engine, since="2027")
    assert got(engine)[0] == {"since": "2027"}


def test_another_key_sees_nothing(engine):
    put(engine, since="2026")
    assert got(engine, key=b"o" * 32) == (None, None)


def test_a_key_and_a_database_alone_say_nothing_about_a_model_by_its_row_id(engine):
    put(engine, name="file:///m")
    with engine.connect() as connection:
        row = connection.execute(sql.select(ROWS)).one()
    assert (len(row.id), len(row.mac), json.loads(row.body)) == (64, 64, {})


def test_what_was_written_is_there_or_none_of_it(engine):
    def fail() -> None:
        with writing(engine) as connection:
            KEPT.put(connection, "block", "file:///m", {})
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert got(engine) == (None, None)


def test_tables_of_a_later_version_are_refused_with_the_command_to_run(any_engine):
    prepare(any_engine)
    with any_engine.begin() as connection:
        connection.execute(GATE.update().values(schema=SCHEMA + 1))
    with pytest.raises(StoreError, match=rf"schema {SCHEMA + 1}, .* knows {SCHEMA}: .*`pip install -U mlflow-unlearn` in the server's environment"):
        prepare(any_engine)


@pytest.mark.parametrize("missing", ["unlearn_gate_log", "unlearn_gate_rows"])
def test_tables_that_were_made_in_part_are_completed_and_what_is_kept_stays(engine, missing):
    with engine.begin() as connection:
        connection.execute(sql.text(f"DROP TABLE {missing}"))
        connection.execute(GATE.delete())
    prepare(engine)
    assert set(sql.inspect(engine).get_table_names()) >= {GATE.name, ROWS.name, LOG.name}
    put(engine, since="2026")
    prepare(engine)
    assert got(engine)[0] == {"since": "2026"}


def in_threads(*doings) -> list[BaseException]:
    """What went wrong in any of them."""
    wrong: list[BaseException] = []

    def run(do) -> None:
        try:
            do()
        except (StoreError, SQLAlchemyError) as error:
            wrong.append(error)

    threads = [threading.Thread(target=run, args=(each,)) for each in doings]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    return wrong


def test_servers_that_start_at_once_make_the_tables_once(ledger_uri, tmp_path):
    (tmp_path / "state").mkdir(exist_ok=True)
    engines = [sql.create_engine(ledger_uri, poolclass=NullPool) for _ in range(6)]
    barrier = threading.Barrier(len(engines))

    def start(engine: Engine) -> None:
        barrier.wait()
        prepare(engine)

    assert in_threads(*(lambda each=each: start(each) for each in engines)) == []
    with engines[0].connect() as connection:
        assert connection.execute(sql.select(GATE)).all() == [(1, SCHEMA, 0)]


def test_writers_take_turns_and_lose_nothing(ledger_uri, tmp_path):
    (tmp_path / "state").mkdir(exist_ok=True)
    engines = [sql.create_engine(ledger_uri, poolclass=NullPool) for _ in range(4)]
    prepare(engines[0])
    put(engines[0], number=0)

    def count(engine: Engine) -> None:
        for _ in range(5):
            with writing(engine) as connection:
                number = KEPT.get(connection, "block", "file:///m")["number"]
                sleep(0.001)
                KEPT.put(connection, "block", "file:///m", {"number": number + 1})

    assert in_threads(*(lambda each=each: count(each) for each in engines)) == []
    assert got(engines[0])[0] == {"number": 20}
    with engines[0].connect() as connection:
        assert connection.execute(sql.select(GATE.c.turn)).scalar_one() == 21


def test_whoever_waits_for_a_turn_sees_what_was_written_before(any_engine):
    prepare(any_engine)
    put(any_engine, number=1)
    began, seen = threading.Event(), []

    def later() -> None:
        began.wait(20)
        with writing(any_engine) as connection:
            seen.append(KEPT.get(connection, "block", "file:///m"))

    def first() -> None:
        with any_engine.begin() as connection:
            take_turn(connection)
            began.set()
            sleep(0.2)
            KEPT.put(connection, "block", "file:///m", {"number": 2})

    assert in_threads(later, first) == []
    assert seen == [{"number": 2}]
