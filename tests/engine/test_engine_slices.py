"""A shard trained slice by slice: what is taken up from a checkpoint has the bits of what is trained anew, and nothing of what has left."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from mlflow_unlearn.engine.checkpoints import Checkpoints
from mlflow_unlearn.engine.slices import ShardDone, ShardTraining, ShardWork, Slice, train_shards
from mlflow_unlearn.params import LoraParams, OptimiserParams
from mlflow_unlearn.protocols import Example

OPTIMISER = OptimiserParams(epochs=4, learning_rate=1e-2, batch_size=3, token_budget=60)
ADAPTERS = LoraParams(rank=2)
PARTS: list[list[Example]] = [
    [Example(tokens=tuple(range(3 + i, 9 + i + i % 3)), prompt_length=2 + i % 3) for i in range(start, start + 4)] for start in (0, 4, 8)
]
kinds = pytest.mark.parametrize("lora", [None, ADAPTERS], ids=["weights", "adapters"])


def work(parts: Sequence[Sequence[Example]], states: Path | None = None, shard: int = 0, environment: str = "here") -> ShardWork:
    def run(number: int) -> str:
        return f"{environment} {shard} {[each.tokens for part in parts[: number + 1] for each in part]}"

    slices = [Slice(examples=part, seed=100 * shard + number, run=run(number)) for number, part in enumerate(parts)]
    return ShardWork(shard=shard, slices=slices, states=states)


def trained(model: Any, works: Sequence[ShardWork], lora: LoraParams | None = None, **more: Any) -> list[ShardDone]:
    steps = train_shards(copy.deepcopy(model), works, ShardTraining(optimiser=OPTIMISER, lora=lora, pad=0, **more))
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def same(one: ShardDone, other: ShardDone) -> bool:
    return one.weights.keys() == other.weights.keys() and all(torch.equal(one.weights[name], other.weights[name]) for name in one.weights)


@kinds
@pytest.mark.parametrize("left", [0, 1, 2])
def test_a_shard_without_a_record_is_the_shard_that_never_saw_it(model: Any, tmp_path: Path, left: int, lora: LoraParams | None) -> None:
    trained(model, [work(PARTS, tmp_path)], lora)
    without = [part[1:] if number == left else part for number, part in enumerate(PARTS)]
    (again,), (never) = trained(model, [work(without, tmp_path)], lora), trained(model, [work(without)], lora)[0]
    assert again.resumed_after == left
    assert same(again, never)


@kinds
def test_what_is_unchanged_is_taken_up_whole(model: Any, tmp_path: Path, lora: LoraParams | None) -> None:
    first, second = trained(model, [work(PARTS, tmp_path)], lora)[0], trained(model, [work(PARTS, tmp_path)], lora)[0]
    assert (first.resumed_after, second.resumed_after) == (0, 3)
    assert same(first, second)


@kinds
@pytest.mark.parametrize("harm", ["missing", "cut short", "one bit"])
def test_a_lost_checkpoint_costs_the_slices_since_the_one_before(model: Any, tmp_path: Path, harm: str, lora: LoraParams | None) -> None:
    whole = trained(model, [work(PARTS, tmp_path)], lora)[0]
    state = tmp_path / "2/state.pt"
    content, kept = bytearray(state.read_bytes()), torch.load(state, weights_only=True)["state"]["weights"]
    content[content.index(max(kept.values(), key=torch.numel).numpy().tobytes())] ^= 1
    shutil.rmtree(tmp_path / "2") if harm == "missing" else state.write_bytes(bytes(content)[: 200 if harm == "cut short" else None])
    again = trained(model, [work(PARTS, tmp_path)], lora)[0]
    assert again.resumed_after == 2
    assert same(again, whole)


def test_a_checkpoint_of_another_environment_does_not_count(model: Any, tmp_path: Path) -> None:
    trained(model, [work(PARTS, tmp_path)])
    assert trained(model, [work(PARTS, tmp_path, environment="elsewhere")])[0].resumed_after == 0


@kinds
def test_other_shards_move_nothing(model: Any, lora: LoraParams | None) -> None:
    alone = trained(model, [work(PARTS, shard=1)], lora)[0]
    beside = trained(model, [work([PARTS[0]] * 3, shard=0), work(PARTS, shard=1), work(PARTS[::-1], shard=2)], lora)[1]
    assert same(alone, beside)


@kinds
def test_an_empty_shard_has_no_weights_and_an_empty_slice_is_no_hole(model: Any, tmp_path: Path, lora: LoraParams | None) -> None:
    empty, hollow = trained(model, [work([[], [], []]), work([[], PARTS[1], []], tmp_path, shard=1)], lora)
    again = trained(model, [work([[], PARTS[1], []], tmp_path, shard=1)], lora)[0]
    assert empty.weights == {}
    assert same(again, hollow)


def test_a_run_killed_within_a_slice_ends_with_the_same_bits(model: Any, tmp_path: Path) -> None:
    def kept(run: str) -> Checkpoints:
        return Checkpoints(folder=tmp_path / "now", run=run, seconds=0.0)

    killed = train_shards(copy.deepcopy(model), [work(PARTS, tmp_path)], ShardTraining(optimiser=OPTIMISER, pad=0, in_progress=kept))
    list(islice(killed, 5))
    again, whole = trained(model, [work(PARTS, tmp_path)], in_progress=kept)[0], trained(model, [work(PARTS)])[0]
    assert same(again, whole)


def test_a_state_that_was_handed_on_stays_as_it_was(model: Any) -> None:
    bench = copy.deepcopy(model)
    first = trained(bench, [work(PARTS[:1])])[0]
    before = {name: value.clone() for name, value in first.weights.items()}
    again = trained(bench, [work(PARTS)])[0]
    assert all(torch.equal(before[name], value) for name, value in first.weights.items())
    assert not same(first, again)


def test_the_base_is_as_it_was_afterwards(model: Any) -> None:
    bench = copy.deepcopy(model)
    list(train_shards(bench, [work(PARTS)], ShardTraining(optimiser=OPTIMISER, pad=0)))
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in bench.state_dict().items())
