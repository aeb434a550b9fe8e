"""A run that is killed goes on from its last checkpoint and ends with the same bits."""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from mlflow_unlearn.adapters.models import with_lora
from mlflow_unlearn.engine.checkpoints import Checkpoint, Checkpoints
from mlflow_unlearn.engine.descent import fit
from mlflow_unlearn.engine.machine import Machine
from mlflow_unlearn.engine.selection import Selection, TuningSets
from mlflow_unlearn.engine.unlearning import forget_by_loss
from mlflow_unlearn.errors import StoreError
from mlflow_unlearn.methods.npo import NPO
from mlflow_unlearn.params import LoraParams, OptimiserParams, SelectionParams
from mlflow_unlearn.protocols import Example, Task

FORGET = [Example(tokens=tuple(range(3 + i, 9 + 2 * i)), prompt_length=2 + i % 3) for i in range(8)]
RETAIN = [Example(tokens=tuple(range(30 + i, 40 + i)), prompt_length=3) for i in range(12)]
OPTIMISER = OptimiserParams(epochs=5, learning_rate=1e-2, batch_size=4, token_budget=60)


def task(model: Any, checkpoints: Checkpoints | None) -> Task:
    machine = Machine(checkpoints=checkpoints)
    return Task(model=model, forget=FORGET, retain=RETAIN, swapped=FORGET[::-1], optimiser=OPTIMISER, seed=3, pad=0, machine=machine)


def selection() -> Selection:
    tuning = TuningSets(included=FORGET[:3], excluded=RETAIN[:3], kept=RETAIN[3:], pad=0)
    return Selection(tuning=tuning, params=SelectionParams(every=2, forget_target=0.0, utility_margin=10.0))


class EveryThird(Checkpoints):
    """Due by the count of questions: the clock would leave to chance which state is taken up."""

    asked = 0

    def due(self) -> bool:
        self.asked += 1
        return self.asked % 3 == 0


def checkpoints(folder: Path, run: str = "this run") -> Checkpoints:
    return EveryThird(folder=folder, run=run, seconds=0)


def test_states_are_kept_no_more_often_than_asked(tmp_path: Path) -> None:
    kept = Checkpoints(folder=tmp_path, run="r", seconds=1000.0)
    assert not kept.due()
    kept.last -= 1000.0
    assert kept.due()
    kept.save(Checkpoint(step=1, weights={}, optimiser={}, token_budget=9, history=()))
    assert not kept.due()


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("killed_after", [1, 3, 4, 8])
def test_a_resumed_run_ends_with_the_same_bits_and_the_same_choice(model: Any, tmp_path: Path, killed_after: int, lora: bool) -> None:
    if lora:
        model = with_lora(model, LoraParams(rank=2, dropout=0.3), seed=0)
    whole, killed, resumed = (copy.deepcopy(model) for _ in range(3))
    plain, again = selection(), selection()
    expected = list(forget_by_loss(task(whole, None), NPO(), plain))
    list(islice(forget_by_loss(task(killed, checkpoints(tmp_path)), NPO(), selection()), killed_after))
    found = list(forget_by_loss(task(resumed, checkpoints(tmp_path)), NPO(), again))
    torch.testing.assert_close(resumed.state_dict(), whole.state_dict(), atol=0, rtol=0)
    torch.testing.assert_close(dict(again.weights), dict(plain.weights), atol=0, rtol=0)
    assert [dict(p.losses) for p in found] == [dict(p.losses) for p in expected]
    assert again.best == plain.best


def test_training_resumes_too(model: Any, tmp_path: Path) -> None:
    whole, killed, resumed = (copy.deepcopy(model) for _ in range(3))
    machine = Machine(checkpoints=checkpoints(tmp_path))
    list(fit(whole, RETAIN, OPTIMISER, 0, 0))
    list(islice(fit(killed, RETAIN, OPTIMISER, 0, 0, machine), 7))
    steps = list(fit(resumed, RETAIN, OPTIMISER, 0, 0, machine))
    torch.testing.assert_close(resumed.state_dict(), whole.state_dict(), atol=0, rtol=0)
    assert [p.step for p in steps] == list(range(1, 16))
    assert [note for p in steps for note in p.notes] == ["taken up after step 6"]


def test_the_state_of_another_run_is_not_taken_up(model: Any, tmp_path: Path) -> None:
    list(islice(fit(copy.deepcopy(model), RETAIN, OPTIMISER, 0, 0, Machine(checkpoints=checkpoints(tmp_path))), 4))
    assert checkpoints(tmp_path).load() is not None
    assert checkpoints(tmp_path, run="another").load() is None


def test_a_damaged_state_counts_as_none_and_clearing_removes_it(tmp_path: Path) -> None:
    kept = checkpoints(tmp_path)
    kept.save(Checkpoint(step=1, weights={"w": torch.ones(3)}, optimiser={}, token_budget=9, history=({"loss": 1.0},)))
    found = kept.load()
    assert found is not None
    assert (found.step, found.token_budget, found.history) == (1, 9, ({"loss": 1.0},))
    (state,) = tmp_path.iterdir()
    state.write_bytes(state.read_bytes()[:100])
    assert kept.load() is None
    kept.clear()
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_refuses_is_said_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="the state of the run could not be kept"):
        checkpoints(tmp_path / "file").save(Checkpoint(step=1, weights={}, optimiser={}, token_budget=9, history=()))


RUN = """
import sys, torch, transformers
sys.path[:0] = [{tests!r}]
from pathlib import Path
import test_engine_checkpoints as t
from mlflow_unlearn.engine.unlearning import forget_by_loss
from mlflow_unlearn.methods.npo import NPO
torch.default_generator.manual_seed(0)
config = transformers.AutoConfig.for_model("llama", vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
model = transformers.AutoModelForCausalLM.from_config(config)
for progress in forget_by_loss(t.task(model, t.checkpoints(Path({folder!r}))), NPO()):
    print(progress.step, flush=True)
torch.save(model.state_dict(), {out!r})
"""


def run(folder: Path, out: Path, kill_after: int | None = None) -> None:
    code = RUN.format(tests=str(Path(__file__).parent), folder=str(folder), out=str(out))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if kill_after is not None and int(line) >= kill_after:
                os.kill(process.pid, signal.SIGKILL)
                break


@pytest.mark.e2e
def test_sigkill_costs_only_the_steps_since_the_last_checkpoint(tmp_path: Path) -> None:
    run(tmp_path / "a", tmp_path / "whole.pt")
    run(tmp_path / "b", tmp_path / "killed.pt", kill_after=7)
    assert not (tmp_path / "killed.pt").exists()
    assert (tmp_path / "b/state.pt").exists()
    run(tmp_path / "b", tmp_path / "killed.pt")
    whole, killed = (torch.load(tmp_path / name, weights_only=True) for name in ("whole.pt", "killed.pt"))
    torch.testing.assert_close(killed, whole, atol=0, rtol=0)
