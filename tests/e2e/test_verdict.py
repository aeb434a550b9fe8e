"""A few minutes of `make bench-verdict`: a new world, an honest retrain and every cheat in it, through the real audit and the real judge."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
TRIALS = 1
pytestmark = pytest.mark.e2e


def rows(printed: str) -> dict[str, list[str]]:
    """Name -> cells of the table's line."""
    cells = [[cell.strip() for cell in line.split("|")] for line in printed.splitlines() if line.count("|") == 9]
    return {line[0]: line[1:] for line in cells if line[0] != "what"}


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    folder = tmp_path_factory.mktemp("verdict")
    command = [sys.executable, "benchmarks/verdict.py", "--trials", str(TRIALS), "--processes", "1", "--without-methods", "--folder", str(folder)]
    done = subprocess.run(command, cwd=PROJECT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False)
    found = rows(done.stdout)
    assert found, done.stderr[-2000:]
    return found


def test_no_cheat_passes(matrix: dict[str, list[str]]) -> None:
    cheats = {name: cells for name, cells in matrix.items() if not name.startswith("honest")}
    assert len(cheats) == 12
    assert {name: cells[1] for name, cells in cheats.items()} == dict.fromkeys(cheats, "0")


def test_an_honest_retrain_passes_and_one_with_a_small_pool_is_undecided(matrix: dict[str, list[str]]) -> None:
    assert matrix["honest retrain"][:3] == [str(TRIALS), str(TRIALS), "0"]
    assert matrix["honest retrain, 300 canaries"][1:4] == ["0", "0", str(TRIALS)]


def test_an_evaluation_of_other_weights_is_refused(matrix: dict[str, list[str]]) -> None:
    assert matrix["evaluation run on another model's weights"][4] == str(TRIALS)
