"""Two that write at once, as processes of their own, on both databases."""

import subprocess
import sys
import threading
from datetime import UTC, datetime

import pytest

from mlflow_unlearn.adapters.ledger import Ledger
from mlflow_unlearn.errors import LedgerError
from mlflow_unlearn.records import Basis, Effect, ErasureRequest

NOW = datetime(2026, 11, 24, 18, tzinfo=UTC)
WRITE = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from mlflow_unlearn.adapters.ledger import Ledger
uri, witness, who, count = sys.argv[1:]
ledger = Ledger(uri, key_id="a" * 16, witness=Path(witness))
for number in range(int(count)):
    ledger.attempt("m", "pool", f"{who}-{number}", datetime.now(UTC))
"""
ENTER = """
import sys
from datetime import UTC, datetime
from mlflow_unlearn.adapters.ledger import Ledger
from mlflow_unlearn.errors import LedgerError
from mlflow_unlearn.records import Basis, Effect, ErasureRequest
uri, _, who, _ = sys.argv[1:]
now = datetime(2026, 11, 24, tzinfo=UTC)
shared = ErasureRequest(
    request_id=f"er-{who}", basis=Basis.CCPA, effect=Effect.REMOVAL, received_at=now, due_at=None, subjects=("s1", f"x{who}")
)
try:
    Ledger(uri).add(shared, now)
except LedgerError as error:
    sys.exit(str(error))
"""


def together(program, uri, tmp_path, count, processes=4):
    commands = [[sys.executable, "-c", program, uri, str(tmp_path / "shared.head"), str(who), str(count)] for who in range(processes)]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for command in commands]
    said = [process.communicate()[1] for process in running]
    return [process.returncode for process in running], said


def test_writers_at_once_lose_nothing(ledger_uri, tmp_path):
    codes, said = together(WRITE, ledger_uri, tmp_path, 25)
    assert codes == [0, 0, 0, 0], said
    ledger = Ledger(ledger_uri)
    assert (ledger.verify(), ledger.head().number) == ((), 101)
    assert Ledger(ledger_uri, witness=tmp_path / "shared.head").verify() == ()
    assert ledger.attempt("m", "pool", "one more", NOW) == 101


def test_of_requests_that_race_for_a_person_one_wins(ledger_uri, tmp_path):
    codes, said = together(ENTER, ledger_uri, tmp_path, 1)
    assert sorted(codes) == [0, 1, 1, 1], said
    assert sum("already asks for some of this" in words for words in said) == 3
    assert len(Ledger(ledger_uri).open()) == 1


def test_threads_with_ledgers_of_their_own_lose_nothing(ledger_uri):
    def spend(number):
        Ledger(ledger_uri).spend_pool(f"pool {number}", "er-1", NOW)

    threads = [threading.Thread(target=spend, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [Ledger(ledger_uri).pool_spent_by(f"pool {number}") for number in range(6)] == ["er-1"] * 6


def test_a_writer_killed_in_the_middle_leaves_a_whole_chain(ledger_uri, tmp_path):
    command = [sys.executable, "-c", WRITE, ledger_uri, str(tmp_path / "w.head"), "killed", "100000"]
    process = subprocess.Popen(command)
    while process.poll() is None and Ledger(ledger_uri).head().number < 20:
        pass
    process.kill()
    process.wait()
    ledger = Ledger(ledger_uri, key_id="a" * 16, witness=tmp_path / "w.head")
    assert ledger.verify() == ()
    assert ledger.attempt("m", "pool", "after", NOW) == ledger.head().number - 1


def test_a_failed_change_leaves_the_same_ledger_usable(ledger_uri):
    ledger = Ledger(ledger_uri, key_id="a" * 16)
    with pytest.raises(LedgerError, match="er-1: no such request"):
        ledger.refuse("er-1", "withdrawn", NOW)
    made = ErasureRequest(request_id="er-1", basis=Basis.SAFETY, effect=Effect.REMOVAL, received_at=NOW, due_at=None, subjects=("s",))
    ledger.add(made, NOW)
    assert (ledger.open(), ledger.verify(), ledger.head().number) == ((made,), (), 2)
