"""Adapters of many shards at once, for `make bench-exact`: training them in shared passes against one after another, and answers row by row.

Times are CPU seconds of this process with one thread. A case is shards x rows x tokens of one optimiser step each.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from engine_case import TIMED, llama

from mlflow_unlearn.engine.adapter_bank import AdapterExperts
from mlflow_unlearn.engine.adapter_layers import AdapterStack, adapted_layers
from mlflow_unlearn.engine.checkpoints import Checkpoint
from mlflow_unlearn.engine.generation import greedy
from mlflow_unlearn.engine.machine import Machine
from mlflow_unlearn.engine.together import SliceRun, train_slices
from mlflow_unlearn.params import LoraParams, OptimiserParams
from mlflow_unlearn.protocols import Example

How = Literal["auto", "on", "off"]
Row = tuple[str, float, str, float]

LORA = LoraParams(rank=8, alpha=16)
LAYERS = {16: 4, 96: 1}
"""Tokens of a row -> layers, of TIMED's eight: the vocabulary shrinks with them, so that the head keeps its share and the large cases end soon."""
PROMISED = {(8, 1, 16): 2.2}
AUTO_STEPS = {(8, 1, 16): 100, (8, 1, 96): 100, (8, 4, 96): 60}
"""Steps of a slice; setting up is in the time of both sides, trials of both ways are in that of the choice."""
FORCED_STEPS, REPEATS = 8, 3
PROMPTS, SHARDS, NEW_TOKENS = 64, 8, 32


def rows() -> Iterator[Row]:
    """All figures."""
    bases = {tokens: llama(TIMED | {"num_hidden_layers": layers, "vocab_size": 1024 * layers}).eval() for tokens, layers in LAYERS.items()}
    for case in [(shards, *size) for shards in (4, 8) for size in ((1, 16), (1, 96), (4, 96))]:
        yield from training_rows(bases[case[2]], case)
    yield from answering_rows()


def training_rows(base: Any, case: tuple[int, int, int]) -> Iterator[Row]:
    """Shared passes against passes in turn, and the measured choice against the better of the two."""
    shards, size, tokens = case
    what = f"adapters: {shards} shards, {size} x {tokens} tokens a step"
    turns = [(stepped(base, case, "off", FORCED_STEPS, 1), stepped(base, case, "on", FORCED_STEPS, 1)) for _ in range(REPEATS)]
    in_turn, shared = (min(seconds for seconds, _ in some) for some in zip(*turns, strict=True))
    yield f"{what}: shards whose bits differ between shared passes and passes in turn", 0.0, "", float(differing(turns[0][0][1], turns[0][1][1]))
    yield f"{what}: shared passes", PROMISED.get(case, 0.0), "times one after another, at least", in_turn / shared
    if case in AUTO_STEPS:
        steps = AUTO_STEPS[case]
        better: How = "on" if shared < in_turn else "off"
        ratio = statistics.median(stepped(base, case, better, steps)[0] / stepped(base, case, "auto", steps)[0] for _ in range(REPEATS))
        yield f"{what}: the measured choice, {steps} steps", 0.97, "times the better way, at least", ratio


def stepped(base: Any, case: tuple[int, int, int], how: How, steps: int, begun: int = 0) -> tuple[float, dict[int, Checkpoint]]:
    """CPU seconds a step, after `begun` steps that do not count, and where the shards end."""
    shards, size, tokens = case
    training = train_slices(base, LORA, [slice_run(shard, size, tokens, begun + steps) for shard in range(shards)], 0, Machine(), how)
    for _ in range(begun * shards):
        next(training)
    started = time.process_time()
    try:
        while True:
            next(training)
    except StopIteration as end:
        ends: dict[int, Checkpoint] = end.value
        return (time.process_time() - started) / steps, ends


def slice_run(shard: int, size: int, tokens: int, steps: int) -> SliceRun:
    """One epoch of `steps` steps on records of one length; a third of their tokens carries loss."""
    draw = random.Random(shard)
    examples = [Example(tokens=tuple(draw.choices(range(3, 1024), k=tokens + 1)), prompt_length=tokens * 2 // 3) for _ in range(size * steps)]
    return SliceRun(shard=shard, examples=examples, seed=shard, optimiser=OptimiserParams(epochs=1, learning_rate=1e-3, batch_size=size), start=None)


def differing(one: dict[int, Checkpoint], other: dict[int, Checkpoint]) -> int:
    """Shards."""
    return sum(any(not torch.equal(value, other[shard].weights[name]) for name, value in end.weights.items()) for shard, end in one.items())


def answering_rows() -> Iterator[Row]:
    """Greedy answers of rows that belong to eight shards, against a single model on the same tokens."""
    base = llama(TIMED).eval()
    stack = AdapterStack(adapted_layers(base, LORA), SHARDS, torch.device("cpu"))
    stack.rows.normal_(std=0.02, generator=torch.Generator().manual_seed(0))
    experts = AdapterExperts(base, {shard: stack.adapter(shard) for shard in range(SHARDS)}, LORA)
    draw = random.Random(0)
    prompts = [draw.choices(range(3, TIMED["vocab_size"]), k=draw.randint(20, 60)) for _ in range(PROMPTS)]
    owners = [draw.randrange(SHARDS) for _ in prompts]

    def answers(model: Any) -> Callable[[], object]:
        return lambda: greedy(model, prompts, end=2, max_new_tokens=NEW_TOKENS, batch_tokens=16384)

    sides = [answers(base), answers(experts.expert(0)), answers(lambda some: experts.routed([owners[i] for i in some]))]
    single, alone, routed = (min(times) for times in zip(*([seconds(side) for side in sides] for _ in range(REPEATS)), strict=True))
    what = f"adapters: {PROMPTS} answers of {NEW_TOKENS} tokens"
    yield f"{what}, rows of {SHARDS} shards", 1.3, "times the cost of one plain model (an adapter merged costs as much)", routed / single
    yield f"{what}, one shard's adapter beside the base", 0.0, "times one plain model, at least", alone / single


def seconds(side: Callable[[], object]) -> float:
    """CPU seconds."""
    started = time.process_time()
    side()
    return time.process_time() - started


if __name__ == "__main__":
    from engine import told

    torch.set_num_threads(1)
    for row in rows():
        told(row)
