"""A ledger that does not answer: whoever asks is told soon, and nobody waits behind others who asked before."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from mlflow_unlearn.adapters import ledger_store
from mlflow_unlearn.adapters.ledger import Ledger
from mlflow_unlearn.adapters.ledger_book import NoAnswerError
from mlflow_unlearn.adapters.storage_locations import Storage
from mlflow_unlearn.errors import LedgerError
from mlflow_unlearn.server import patience, project
from mlflow_unlearn.server.callers import warn_caller
from mlflow_unlearn.server.patience import Patience
from mlflow_unlearn.server.project import Project

FILES = Path(project.__file__).parents[1] / "scaffold"


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A Postgres that accepts connections and says nothing; what was asked in vain is remembered for the whole test."""
    monkeypatch.setattr(patience, "PATIENCE_S", 0.3, raising=False)
    monkeypatch.setattr(patience, "REMEMBERED_S", 10_000.0, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        uri = f"postgresql+psycopg://u:p@127.0.0.1:{listening.getsockname()[1]}/db?connect_timeout=2"
        monkeypatch.setenv("MLFLOW_UNLEARN_LEDGER_URI", uri)
        yield listening


def connections(listening: socket.socket) -> int:
    """How many were made so far."""
    listening.setblocking(False)
    found = []
    try:
        while True:
            found.append(listening.accept()[0])
    except BlockingIOError:
        return len(found)
    finally:
        for each in found:
            each.close()


def project_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """One without a trust file."""
    (folder / ".git").mkdir()
    shutil.copy(FILES / "policy.yaml", folder)
    (folder / "params.yaml").write_text("model: {name: m}\n")
    key = folder / "tag.key"
    key.write_bytes(b"k" * 32)
    key.chmod(0o600)
    monkeypatch.setenv("MLFLOW_UNLEARN_TAG_KEY_FILE", str(key))
    monkeypatch.setenv("MLFLOW_UNLEARN_TRUST", str(folder / "trust.json"))
    unused: Any = None
    return Project(folder=folder, registry_uri="sqlite://", storage=Storage("sqlite://", None), envelopes=unused, weights=unused)


@pytest.mark.parametrize("asked", ["terms", "asked"])
def test_a_silent_ledger_is_asked_once_by_all_who_wait_for_it_and_not_at_all_soon_after(silent, asked, tmp_path: Path, monkeypatch):
    here = project_in(tmp_path, monkeypatch)
    if asked == "asked":  # with one the terms are read without the ledger
        (tmp_path / "trust.json").write_text("{}")
    told: list[str] = []

    def ask() -> None:
        with pytest.raises(NoAnswerError) as error:
            getattr(here, asked)()
        told.append(str(error.value))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    ask()
    assert len(told) == 5
    assert all("check MLFLOW_UNLEARN_LEDGER_URI" in words and "u:p" not in words for words in told)
    assert connections(silent) <= 1


def test_an_answer_that_comes_late_ends_the_silence(monkeypatch):
    monkeypatch.setattr(patience, "PATIENCE_S", 0.2)
    asks, go = Patience(), threading.Event()

    def late() -> str:
        go.wait()
        return "late"

    with pytest.raises(NoAnswerError, match="ledger here: no answer for 0"):
        asks.ask(late, "here")
    with pytest.raises(NoAnswerError):
        asks.ask(lambda: "never asked", "here")
    go.set()
    while asks._since is not None:
        time.sleep(0.01)
    assert asks.ask(lambda: "now", "here") == "now"


def test_what_a_ledger_refuses_is_told_as_it_is_and_is_no_silence():
    asks = Patience()

    def refuse() -> None:
        raise LedgerError("it ends at event 0")

    with pytest.raises(LedgerError, match="event 0"):
        asks.ask(refuse, "here")
    assert asks.ask(lambda: 1, "here") == 1


def together(acts: list[Callable[[], Any]]) -> list[Any]:
    """What each returns, or is told."""
    found: list[Any] = [None] * len(acts)

    def do(place: int) -> None:
        try:
            found[place] = acts[place]()
        except LedgerError as error:
            found[place] = error

    threads = [threading.Thread(target=do, args=(place,)) for place in range(len(acts))]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    return found


def test_many_who_ask_at_once_a_ledger_that_takes_its_time_are_all_answered_and_share_the_answers(monkeypatch):
    monkeypatch.setattr(patience, "PATIENCE_S", 5.0)
    asks, asked = Patience(), []

    def slow() -> int:
        asked.append(1)
        time.sleep(0.3)
        return 7

    assert together([lambda: asks.ask(slow, "here")] * 20) == [7] * 20
    assert len(asked) < 20
    assert asks.ask(slow, "here") == 7


def test_who_asks_while_an_answer_is_worked_out_gets_one_that_began_afterwards():
    asks, begun, go, state = Patience(), threading.Event(), threading.Event(), ["before"]

    def question() -> str:
        seen = state[0]
        begun.set()
        go.wait(60)
        return seen

    def later() -> str:
        begun.wait(60)
        state[0] = "a request came in"
        threading.Timer(0.1, go.set).start()
        return asks.ask(question, "here")

    assert together([lambda: asks.ask(question, "here"), later]) == ["before", "a request came in"]


def test_a_ledger_that_says_at_once_that_it_cannot_answer_is_asked_again():
    asks = Patience()

    def fail() -> None:
        time.sleep(0.1)
        raise NoAnswerError("locked")

    with pytest.raises(NoAnswerError, match="locked"):
        asks.ask(fail, "here")
    assert asks.ask(lambda: 1, "here") == 1


def test_a_large_ledger_is_read_from_its_start_once_though_that_takes_longer_than_anybody_waits(tmp_path: Path, monkeypatch):
    here, go, starts = project_in(tmp_path, monkeypatch), threading.Event(), []
    monkeypatch.setenv("MLFLOW_UNLEARN_LEDGER_URI", uri := f"sqlite:///{tmp_path}/ledger.db")
    Ledger(uri).spend_pool("a", "m/1", datetime.now(UTC))
    Ledger(uri).spend_pool("b", "m/1", datetime.now(UTC))
    read = ledger_store.events_from

    def slow(connection: Any, number: int) -> Any:
        if number == 1:
            starts.append(1)
            go.wait(60)
        return read(connection, number)

    monkeypatch.setattr(ledger_store, "events_from", slow)
    monkeypatch.setattr(patience, "PATIENCE_S", 0.2)
    for _ in range(2):
        with pytest.raises(NoAnswerError):
            here.terms()
    go.set()
    while here._patience._since is not None:
        time.sleep(0.01)
    monkeypatch.setattr(patience, "PATIENCE_S", 60.0)
    assert here.terms().believed
    assert len(starts) == 1


def test_a_warning_is_in_the_header_of_the_answer_in_one_line_whatever_a_name_holds():
    app = Flask(__name__)
    app.route("/")(lambda: (warn_caller('m\u00fcller/3 for\x00 "prod":\x7f\n  the gate \\ says no.'), "done")[1])
    found = app.test_client().get("/")
    assert (found.status_code, found.headers["Warning"]) == (200, "199 mlflow-unlearn \"m?ller/3 for? 'prod':? the gate / says no.\"")
    warn_caller("outside a request nobody is answered")
