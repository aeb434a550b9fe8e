"""A ledger that does not answer: whoever asks is told soon, and nobody waits behind others who asked before."""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

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
    monkeypatch.setattr(patience, "REMEMBERED", 10_000.0, raising=False)
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


@pytest.mark.parametrize("asked", ["terms", "asked"])
def test_a_silent_ledger_is_asked_once_by_all_who_wait_for_it_and_not_at_all_soon_after(silent, asked, tmp_path: Path, monkeypatch):
    (tmp_path / ".git").mkdir()
    shutil.copy(FILES / "policy.yaml", tmp_path)
    (tmp_path / "params.yaml").write_text("model: {name: m}\n")
    key = tmp_path / "tag.key"
    key.write_bytes(b"k" * 32)
    key.chmod(0o600)
    monkeypatch.setenv("MLFLOW_UNLEARN_TAG_KEY_FILE", str(key))
    monkeypatch.setenv("MLFLOW_UNLEARN_TRUST", str(tmp_path / "trust.json"))
    if asked == "asked":  # with one the terms are read without the ledger
        (tmp_path / "trust.json").write_text("{}")
    unused: Any = None
    here = Project(folder=tmp_path, registry_uri="sqlite://", storage=Storage("sqlite://", None), envelopes=unused, weights=unused)
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
    monkeypatch.setattr(patience, "REMEMBERED", 10_000.0)
    asks, go, done = Patience(), threading.Event(), threading.Event()

    def late() -> str:
        go.wait()
        return "late"

    with pytest.raises(NoAnswerError, match="ledger here: no answer for 0"):
        asks.ask(late, "here")
    with pytest.raises(NoAnswerError):
        asks.ask(lambda: "never asked", "here")
    go.set()
    while asks._silent[0] > 0:
        done.wait(0.01)
    assert asks.ask(lambda: "now", "here") == "now"


def test_what_a_ledger_refuses_is_told_as_it_is_and_is_no_silence():
    asks = Patience()

    def refuse() -> None:
        raise LedgerError("it ends at event 0")

    with pytest.raises(LedgerError, match="event 0"):
        asks.ask(refuse, "here")
    assert asks.ask(lambda: 1, "here") == 1


def test_a_warning_is_in_the_header_of_the_answer_in_one_line_whatever_a_name_holds():
    app = Flask(__name__)
    app.route("/")(lambda: (warn_caller('m\u00fcller/3 for "prod":\n  the gate \\ says no.'), "done")[1])
    found = app.test_client().get("/")
    assert (found.status_code, found.headers["Warning"]) == (200, "199 mlflow-unlearn \"m?ller/3 for 'prod': the gate / says no.\"")
    warn_caller("outside a request nobody is answered")
