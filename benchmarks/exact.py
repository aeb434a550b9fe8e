"""`make bench-exact`: what a deletion costs against training everything again, and what shards cost in accuracy; one row a figure.

Times are CPU seconds of this process with one thread. Both sides train with the same code: what is measured is how much of the training a deletion
repeats, beside loading and keeping checkpoints. Ends 1 when a figure is short.
"""

from __future__ import annotations

import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from engine import processor, told
from exact_accuracy import accuracy_rows
from exact_adapters import rows as adapter_rows

from mlflow_unlearn import sisa
from mlflow_unlearn.digests import keyed_tag
from mlflow_unlearn.engine.randomness import private_randomness
from mlflow_unlearn.engine.slices import ShardTraining, ShardWork, Slice, train_shards
from mlflow_unlearn.exactness import Family, PinnedBase
from mlflow_unlearn.params import OptimiserParams
from mlflow_unlearn.protocols import Example, Record

Row = tuple[str, float, str, float]

PEOPLE, RECORDS_EACH, SLICES = 1280, 4, 3
DELETED = (1, 5, 20)
OPTIMISER = OptimiserParams(epochs=12, learning_rate=1e-2, batch_size=16, token_budget=512)
DRAWS = 400
KEY = bytes(32)


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A family of shards with everything trained."""

    family: Family
    model: Any
    records: Sequence[Record]
    states: Path

    def works(self, records: Sequence[Record], shards: Sequence[int], states: Path | None) -> list[ShardWork]:
        """The shards as they have to become."""
        pieces = sisa.cut(records, self.family.shards)
        return [_work(self.family, shard, pieces[shard], states) for shard in shards]


def bench(shards: int, folder: Path) -> Bench:
    """A tiny model and made-up records of 12 tokens."""
    with private_randomness(0):
        config = transformers.LlamaConfig(
            vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2
        )
        model = transformers.LlamaForCausalLM(config)
    family = Family(
        family=str(shards), shards=shards, slices=SLICES, base=PinnedBase(reference="-", tensor_digest="-", tokenizer_digest="-"), settings={}
    )
    return Bench(family=family, model=model, records=records(PEOPLE), states=folder)


def records(people: int) -> list[Record]:
    """Records of people with keyed tags; the text is the number, from which the tokens are made."""
    return [
        Record(
            tag=keyed_tag(KEY, "record", f"{person}-{each}"), subject=keyed_tag(KEY, "subject", str(person)), prompt=f"{person} {each}", answer="-"
        )
        for person in range(people)
        for each in range(RECORDS_EACH)
    ]


def _work(family: Family, shard: int, piece: Sequence[Record], states: Path | None) -> ShardWork:
    plan = sisa.planned(family, shard, piece, seed=0)
    slices = [Slice(examples=[_example(record) for record in each.records], seed=each.seed, run=each.chain) for each in plan]
    return ShardWork(shard=shard, slices=slices, states=states and states / str(shard))


def _example(record: Record) -> Example:
    chance = random.Random(record.prompt)
    return Example(tokens=tuple(chance.randrange(3, 64) for _ in range(12)), prompt_length=6)


def trained(model: Any, works: Sequence[ShardWork]) -> dict[int, dict[str, torch.Tensor]]:
    """Weights by shard."""
    found = {}
    for work in works:
        steps = train_shards(model, [work], ShardTraining(optimiser=OPTIMISER, pad=0))
        while True:
            try:
                next(steps)
            except StopIteration as end:
                found[work.shard] = dict(end.value[0].weights)
                break
    return found


def cost(works: Sequence[ShardWork], first: dict[int, int] | None = None) -> int:
    """Tokens of the slices' trainings, of each shard from its first touched slice on."""
    total = 0
    for work in works:
        stages = sisa.stage_tokens([sum(len(example.tokens) for example in each.examples) for each in work.slices], OPTIMISER.epochs)
        total += sum(stages[(first or {}).get(work.shard, 0) :])
    return total


def deletion_rows(shards: int) -> Iterator[Row]:
    """Train a family, delete people, train again; the median of several draws of each size."""
    with tempfile.TemporaryDirectory() as name:
        made = bench(shards, Path(name, "states"))
        trained(made.model, made.works(made.records[:64], [0], None))  # warm up
        every = made.works(made.records, range(shards), made.states)
        started = time.process_time()
        whole = trained(made.model, every)
        full = time.process_time() - started
        yield f"{shards} shards x {SLICES} slices: full training of {len(made.records)} records", 0.0, "CPU s, at least", full
        chance = random.Random(shards)
        for people in DELETED:
            yield from one_size(made, whole, full, people, chance)


def one_size(made: Bench, whole: dict[int, dict[str, torch.Tensor]], full: float, people: int, chance: random.Random) -> Iterator[Row]:
    """Several deletions of so many people, each from the state after the full training."""
    shards, seen, moved = made.family.shards, [], 0
    tokens = cost(made.works(made.records, range(shards), None))
    for draw in range(5 if people == 1 else 3):
        gone = {keyed_tag(KEY, "subject", str(person)) for person in chance.sample(range(PEOPLE), people)}
        left = [record for record in made.records if record.subject not in gone]
        first = dict(sisa.first_touched(gone, shards, SLICES))
        states = made.states.with_name(f"{people}-{draw}")
        for shard in first:
            shutil.copytree(made.states / str(shard), states / str(shard))
        works = made.works(left, list(first), states)
        started = time.process_time()
        again = trained(made.model, works)
        taken = time.process_time() - started
        seen.append(taken / (cost(works, first) / tokens * full))
        shutil.rmtree(states)
        if draw == 0:
            yield from _same_as_never(made, left, list(first)[:2], again)
            untouched = [shard for shard in range(shards) if shard not in first][:2]
            anew = trained(made.model, made.works(left, untouched, None))
            moved += sum(not _equal(whole[shard], anew[shard]) for shard in untouched)
    yield f"{shards} shards, {people} people deleted: time over predicted fraction x full training", 1.15, "times", statistics.median(seen)
    yield f"{shards} shards, {people} people deleted: untouched shards whose weights would change", 0.0, "shards", float(moved)


def _same_as_never(made: Bench, left: Sequence[Record], shards: Sequence[int], again: dict[int, dict[str, torch.Tensor]]) -> Iterator[Row]:
    never = trained(made.model, made.works(left, shards, None))
    wrong = sum(not _equal(again[shard], never[shard]) for shard in shards)
    yield f"{made.family.shards} shards: shards trained again that differ from ones that never saw the people", 0.0, "shards", float(wrong)


def _equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def formula_rows() -> Iterator[Row]:
    """Mean share of tokens over many draws of people, against the closed form."""
    everybody = records(12_800)
    for shards in (16, 64):
        family = bench(shards, Path()).family
        pieces = sisa.cut(everybody, shards)
        works = [_work(family, shard, piece, None) for shard, piece in enumerate(pieces)]
        stages = {
            work.shard: sisa.stage_tokens([sum(len(example.tokens) for example in each.examples) for each in work.slices], OPTIMISER.epochs)
            for work in works
        }
        total, chance = sum(map(sum, stages.values())), random.Random(shards)
        for people in DELETED:
            shares = [_share(stages, total, family, chance.sample(range(12_800), people)) for _ in range(DRAWS * 40 // people)]
            predicted = sisa.predicted_fraction(people, shards, SLICES)
            yield (
                f"{shards} shards x {SLICES} slices, {people} people: tokens trained again against the formula ({predicted:.3f})",
                0.02,
                "off",
                abs(statistics.mean(shares) / predicted - 1),
            )


def _share(stages: dict[int, list[int]], total: int, family: Family, people: Sequence[int]) -> float:
    owners = [keyed_tag(KEY, "subject", str(person)) for person in people]
    first = sisa.first_touched(owners, family.shards, family.slices)
    return sum(sum(stages[shard][number:]) for shard, number in first.items()) / total


def replay_row() -> Row:
    """Repeating one shard from its base, against having trained it: the replay of a training is that training once more."""
    with tempfile.TemporaryDirectory() as name:
        made = bench(16, Path(name))
        times = []
        for states in (made.states, None):
            started = time.process_time()
            trained(made.model, made.works(made.records, range(4), states))
            times.append(time.process_time() - started)
    return "replay of a shard, beside the figures above: its time over that of its training", 0.0, "times, at least", times[1] / times[0]


def main() -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    print(f"{processor()}, {os.cpu_count()} cores, 1 thread used; torch {torch.__version__}; transformers {transformers.__version__}")
    print("what | target | measured | ok")
    held = [told(row) for rows in (formula_rows(), deletion_rows(16), deletion_rows(64)) for row in rows]
    held.append(told(replay_row()))
    held += [told(row) for rows in (adapter_rows(), accuracy_rows()) for row in rows]
    sys.exit(0 if all(held) else 1)


if __name__ == "__main__":
    main()
