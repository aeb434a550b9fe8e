"""Several processes of one stage, started for real: a stand-in for the command line shows what becomes of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mlflow_unlearn.errors import UnlearnError
from mlflow_unlearn.stages import launching

pytestmark = pytest.mark.e2e
PROGRAM = """
import os, sys, time
from pathlib import Path
from mlflow_unlearn.errors import UnlearnError
from mlflow_unlearn.stages.launching import sharing

rank = os.environ["RANK"]
with sharing("cpu"):
    print("rank", rank, "speaks", file=sys.stderr)
    Path("began." + rank).write_text(f"{os.getpid()} {os.getppid()}")
    while not Path("began.0").exists():
        time.sleep(0.1)
    if sys.argv[2] == "fail" and rank == "1":
        raise UnlearnError("words of the second")
    time.sleep(60)
"""
START = """
from pathlib import Path
from mlflow_unlearn.stages import launching

launching.__package__ = "stand.stages"
launching.launch("wait", 2, Path())
"""


@pytest.fixture
def stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a command line of the test's own."""
    (tmp_path / "stand").mkdir()
    (tmp_path / "stand/cli.py").write_text(PROGRAM)
    monkeypatch.setattr(launching, "__package__", "stand.stages")
    return tmp_path


@pytest.fixture
def waiting(stand: Path) -> Iterator[tuple[subprocess.Popen[bytes], list[tuple[int, int]]]]:
    """A stage whose two processes wait; of each its id and that of the one that started it."""
    with subprocess.Popen([sys.executable, "-c", START], cwd=stand, stderr=subprocess.DEVNULL) as stage:
        files = [stand / "began.0", stand / "began.1"]
        _until(lambda: all(file.exists() and " " in file.read_text() for file in files))
        ids = [tuple(map(int, file.read_text().split())) for file in files]
        yield stage, [(process, parent) for process, parent in ids]
        stage.kill()
        for process in (process for process, _ in ids if _lives(process)):
            os.kill(process, signal.SIGKILL)


def test_only_the_first_speaks_and_an_error_of_another_is_shown_when_all_have_ended(stand: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UnlearnError, match="one of 2 processes ended with an error, which stands above"):
        launching.launch("fail", 2, stand)
    shown = capfd.readouterr()
    assert "rank 0 speaks" in shown.err
    assert "rank 1 speaks" not in shown.err + shown.out
    assert "UnlearnError: words of the second" in shown.err


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
@pytest.mark.parametrize("killed", ["stage", "launcher"])
def test_none_lives_on_when_what_started_it_is_killed(waiting: tuple[subprocess.Popen[bytes], list[tuple[int, int]]], killed: str) -> None:
    stage, processes = waiting
    os.kill(stage.pid if killed == "stage" else processes[0][1], signal.SIGKILL)
    _until(lambda: not any(_lives(process) for process, _ in processes))


def _until(happened: Callable[[], bool], seconds: float = 40.0) -> None:
    end = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > end:
            pytest.fail(f"did not happen within {seconds:.0f} s")
        time.sleep(0.1)


def _lives(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
