"""The figures of the engine that need a CUDA device: models of the shape of Llama 3 with random weights, records as long as TOFU's, batches of 32.

`python benchmarks/engine_gpu.py --tiny` runs all of it with tiny shapes on any machine and shows that it runs; its numbers mean nothing.
"""

from __future__ import annotations

import math
import re
import statistics
import sys
import time
from dataclasses import dataclass
from typing import Any

import torch
from engine import Contest, Duel, Row, now, ratio, told
from engine_case import PREFIX, Case, Precision, case, llama, records
from engine_naive import LOSSES, forget_rows, retain_rows

from mlflow_unlearn import catalog
from mlflow_unlearn.adapters.models import with_lora
from mlflow_unlearn.engine.batches import StepRows
from mlflow_unlearn.engine.machine import Machine
from mlflow_unlearn.engine.unlearning import forget_by_loss
from mlflow_unlearn.params import LoraParams, OptimiserParams
from mlflow_unlearn.protocols import Sequences, Task

ONE = {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8}
"""Llama-3.2-1B."""
EIGHT = {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8}
"""Llama-3.1-8B."""
TINY = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 9, "num_attention_heads": 4, "num_key_value_heads": 2}
ROUNDS = 8

FAST = "npo, 1B, bfloat16 {}: step"
USED = "npo, 1B, bfloat16 {}: share of the measured peak of bfloat16 products"
RMU_FAST = "rmu, 1B, bfloat16 products: step"
SMALL = "npo, 8B, LoRA, bfloat16: peak of allocated memory in a step"
KINDS: tuple[tuple[str, torch.dtype, Precision], ...] = (("weights", torch.bfloat16, "float32"), ("products", torch.float32, "bfloat16"))
"""Weights in bfloat16, or float32 weights under autocast, which is what the engine trains with."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """How large everything is, and where."""

    device: str
    one: dict[str, Any]
    eight: dict[str, Any]
    batch_size: int
    product: int
    """Width of the square matrices whose product measures the peak."""


REAL = Size(device="cuda", one=ONE | {"vocab_size": 128256}, eight=EIGHT | {"vocab_size": 128256}, batch_size=32, product=8192)
TRIAL = Size(device="cpu", one=TINY | {"vocab_size": 512}, eight=TINY | {"vocab_size": 512}, batch_size=4, product=256)


def measure(size: Size = REAL) -> list[Row]:
    """(what, target, unit, measured); not a number where there is no such device."""
    if size.device == "cuda" and not torch.cuda.is_available():
        return unmeasured()
    found: list[Row] = []
    for kind, weights, precision in KINDS:
        found += npo_rows(
            kind, case(llama(size.one, device=size.device, dtype=weights), batches=ROUNDS, batch_size=size.batch_size, precision=precision), size
        )
    return [*found, rmu_row(size), lora_row(size)]


def unmeasured() -> list[Row]:
    """What would be measured."""
    steps = [row for kind, _, _ in KINDS for row in ((FAST.format(kind), 2.0, "times naive, at least"), (USED.format(kind), 0.35, ", at least"))]
    rest = [(RMU_FAST, 4.0, "times naive, at least"), (SMALL, 40.0, "GB")]
    return [(what, target, unit, math.nan) for what, target, unit in (*steps, *rest)]


def npo_rows(kind: str, start: Case, size: Size) -> list[Row]:
    """Against naive, and against the device."""
    method = catalog.build("methods", "npo", where="benchmarks")
    duel = Duel(Contest(what="npo", method=method, naive=LOSSES["npo"], target=2.0), start)
    for side in (duel.naive, duel.ours):
        duel.seconds(side, start.plan[0])
    naive, ours = duel.times()
    used = statistics.median(useful(start, rows) / seconds for rows, seconds in zip(start.plan, ours, strict=True)) / peak(size)
    return [(FAST.format(kind), 2.0, "times naive, at least", ratio(naive, ours)), (USED.format(kind), 0.35, ", at least", used)]


def useful(start: Case, rows: StepRows) -> float:
    """Floating-point operations that one gradient needs: two a weight forward and four back, the prefix once a side, the head on answers alone.

    Attention, padding, recomputation and repeated runs of the prefix do not count.
    """
    head = start.model.get_output_embeddings().weight.numel()
    body = sum(p.numel() for name, p in start.model.named_parameters() if p.ndim == 2 and "embed" not in name and "lm_head" not in name)
    total = 0.0
    for examples, index in ((start.sets.forget, rows.forget), (start.sets.retain, rows.retain)):
        own = sum(len(examples[i].tokens) - 1 - PREFIX for i in index) + PREFIX
        answers = sum(len(examples[i].tokens) - examples[i].prompt_length for i in index)
        total += 6.0 * (own * body + answers * head)
    return total


def peak(size: Size) -> float:
    """Operations a second in a large bfloat16 product, the best of a few runs of ten."""
    device = torch.device(size.device)
    one, other = (torch.randn(size.product, size.product, device=device, dtype=torch.bfloat16) for _ in range(2))
    seconds = []
    for _ in range(5):
        started = now(device)
        for _ in range(10):
            one @ other
        seconds.append(now(device) - started)
    return 10 * 2.0 * size.product**3 / max(min(seconds), 1e-9)


def rmu_row(size: Size) -> Row:
    """Against three whole forward passes with a hook and gradients of every weight below it."""
    method = catalog.build("methods", {"name": "rmu", "retain_weight": 1.0}, where="benchmarks")
    parent = llama(size.one, device=size.device)
    only(parent, method.needs.trainable)
    start = case(parent, batches=ROUNDS, batch_size=size.batch_size, precision="bfloat16")
    duel = Duel(Contest(what="rmu", method=method, naive=rmu, target=4.0), start)
    naive, ours = [], []
    for rows in (start.plan[0], *start.plan):
        only(start.model, None)
        naive.append(duel.seconds(duel.naive, rows))
        only(start.model, method.needs.trainable)
        ours.append(duel.seconds(duel.ours, rows))
    return RMU_FAST, 4.0, "times naive, at least", ratio(naive[1:], ours[1:])


def only(model: Any, trainable: str | None) -> None:
    """Let only parameters whose name matches change; None: all."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(trainable is None or re.search(trainable, name) is not None)


def rmu(start: Case, method: Any, rows: StepRows) -> torch.Tensor:
    """Section 4 of arXiv:2403.03218: forgotten tokens to one vector, retained ones to where the parent has them."""
    forget, retain = forget_rows(start, rows), retain_rows(start, rows)
    states = hooked(start.model, forget, method.layer)
    drawn = torch.rand(states.shape[-1], generator=torch.Generator().manual_seed(method.direction_seed)).to(states.device)
    with torch.no_grad():
        before = hooked(start.parent, retain, method.layer)
    steered = apart(states, method.coefficient * drawn / drawn.norm(), forget)
    return steered + method.retain_weight * apart(hooked(start.model, retain, method.layer), before, retain)


def hooked(model: Any, rows: Sequences, layer: int) -> torch.Tensor:
    """(rows, length, width) of one layer; the rest of the pass is thrown away."""
    caught: list[torch.Tensor] = []
    handle = model.model.layers[layer].register_forward_hook(lambda _, __, output: caught.append(output))
    model(input_ids=rows.input_ids, attention_mask=rows.attention_mask, use_cache=False)
    handle.remove()
    return caught[0].float()


def apart(states: torch.Tensor, target: torch.Tensor, rows: Sequences) -> torch.Tensor:
    """Scalar: mean over records of the mean over tokens of the squared distance."""
    mask = rows.attention_mask
    found: torch.Tensor = (((states - target.float()).square().sum(-1) * mask).sum(1) / mask.sum(1)).mean()
    return found


def lora_row(size: Size) -> Row:
    """Two steps of NPO with adapters on a frozen base in bfloat16, from asking the parent to the optimiser's step."""
    base = llama(size.eight | {"tie_word_embeddings": False}, device=size.device, dtype=torch.bfloat16)
    model = with_lora(base, LoraParams(), seed=0)
    forget, retain = (records(2 * size.batch_size, size.eight["vocab_size"], seed) for seed in (1, 2))
    optimiser = OptimiserParams(epochs=1, learning_rate=1e-5, batch_size=size.batch_size)
    task = Task(model=model, forget=forget, retain=retain, optimiser=optimiser, seed=0, pad=0, machine=Machine(dtype="bfloat16"))
    cuda = size.device == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    for _ in forget_by_loss(task, catalog.build("methods", "npo", where="benchmarks")):
        pass
    return SMALL, 40.0, "GB", torch.cuda.max_memory_allocated() / 1e9 if cuda else math.nan


def main() -> None:
    """Print the rows; with `--tiny`, without targets."""
    tiny = "--tiny" in sys.argv[1:]
    started = time.perf_counter()
    for what, target, unit, measured in measure(TRIAL if tiny else REAL):
        told((f"tiny, {what}", 0.0 if "at least" in unit else math.inf, unit, measured) if tiny else (what, target, unit, measured))
    print(f"{time.perf_counter() - started:.0f} s on {torch.cuda.get_device_name() if torch.cuda.is_available() else 'the processor'}")


if __name__ == "__main__":
    main()
