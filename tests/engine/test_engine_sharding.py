"""One process or two: the same losses, the same weights, and a state that either can take up."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sharding_cases
import torch

from mlflow_unlearn.engine.sharding import LAUNCHED_BY, together
from mlflow_unlearn.engine.worker import Worker
from mlflow_unlearn.errors import ConfigError

pytestmark = pytest.mark.e2e
CASES = [*(name for name, _ in sharding_cases.methods()), "untied", "lora", "recomputed", "not killed", "resumed"]


def start(folder: Path, processes: int) -> None:
    program = [str(Path(sharding_cases.__file__)), str(folder)]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)] if processes > 1 else []
    environment = {name: value for name, value in os.environ.items() if name not in LAUNCHED_BY} | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *launcher, *program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sharding")


@pytest.fixture(scope="module")
def found(folder: Path) -> dict[int, dict[str, Any]]:
    start(folder, 1)
    start(folder, 2)
    return {n: torch.load(folder / f"of {n}.pt", weights_only=True) for n in (1, 2)}


def losses(run: dict[str, Any]) -> torch.Tensor:
    return torch.tensor([step[name] for step in run["losses"] for name in sorted(step)], dtype=torch.float64)


@pytest.mark.parametrize("case", CASES)
def test_two_processes_give_the_losses_and_weights_of_one(found: dict[int, dict[str, Any]], case: str) -> None:
    one, two = found[1][case], found[2][case]
    torch.testing.assert_close(losses(two), losses(one), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(two["weights"], one["weights"], atol=1e-5, rtol=1e-5)


def test_a_bfloat16_base_under_adapters_differs_by_its_rounding_only(found: dict[int, dict[str, Any]]) -> None:
    one, two = (found[n]["lora over bfloat16"] for n in (1, 2))
    torch.testing.assert_close(losses(two), losses(one), atol=2e-2, rtol=2e-2)
    torch.testing.assert_close(two["weights"], one["weights"], atol=5e-3, rtol=5e-2)


def test_two_processes_take_up_their_own_state_bit_for_bit(found: dict[int, dict[str, Any]]) -> None:
    whole, resumed = found[2]["not killed"], found[2]["resumed"]
    torch.testing.assert_close(resumed["weights"], whole["weights"], atol=0, rtol=0)
    assert (resumed["losses"], resumed["best"]) == (whole["losses"], whole["best"])


def test_two_processes_take_up_what_one_left(found: dict[int, dict[str, Any]]) -> None:
    mixed, whole = found[2]["resumed from one process"], found[1]["not killed"]
    torch.testing.assert_close(losses(mixed), losses(whole), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(mixed["weights"], whole["weights"], atol=1e-5, rtol=1e-5)
    assert mixed["best"] == whole["best"]


def test_one_process_takes_up_what_two_left(found: dict[int, dict[str, Any]], folder: Path) -> None:
    mixed, whole = sharding_cases.run(Worker, sharding_cases.checkpoints(folder, "left by 2 for all")), found[1]["not killed"]
    torch.testing.assert_close(losses(mixed), losses(whole), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(mixed["weights"], whole["weights"], atol=1e-5, rtol=1e-5)
    assert mixed["best"] == whole["best"]


def test_a_process_that_was_not_launched_with_others_is_told_how(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in LAUNCHED_BY:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match=r"RANK, WORLD_SIZE, .* missing; start the processes with torchrun"), together(torch.device("cpu")):
        pass


def test_one_device_for_several_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in LAUNCHED_BY:
        monkeypatch.setenv(name, "2")
    with pytest.raises(ConfigError, match=r"unlearn\.device: 'cuda:0' is one device for 2 processes; write auto"), together(torch.device("cuda:0")):
        pass


def test_more_processes_than_devices_are_refused_and_torchrun_hears_of_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in LAUNCHED_BY:
        monkeypatch.setenv(name, "2")
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "word"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ConfigError, match="process 3 of this machine and it has 2 CUDA devices; ask for at most 2"), together(torch.device("cuda")):
        pass
    assert "it has 2 CUDA devices" in (tmp_path / "word").read_text()
