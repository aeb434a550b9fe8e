"""`make bench-engine`: the engine against baselines written plainly, one row a figure: what | target | measured | ok. Ends 1 when one is short.

Both sides make the gradient of the same optimiser batch, eight forget and eight retain records, of the same weights. Numbers are compared first.
Times are CPU seconds of this process with one thread, taken in turn; a figure is the median over batches of naive / ours. Memory is the growth of
the resident set during one such gradient, in a process of its own. What needs an accelerator is in `engine_gpu`.
"""

from __future__ import annotations

import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from engine_case import PEAK, TIMED, Case, Gradients, asking, case, distance, engine_step, fresh_gradients, gradients, llama, reference_for
from engine_naive import LOSSES, Loss, grad_diff_kl, naive_step, training
from run import environment, rows_of, shown

from mlflow_unlearn import catalog
from mlflow_unlearn.engine.batches import StepRows
from mlflow_unlearn.engine.head import retain_nll
from mlflow_unlearn.protocols import Batch, LossMethod, Needs, Reference

Row = tuple[str, float, str, float]

PROMISED = {"npo": 1.8, "grad_diff": 1.5, "sim_npo": 1.5}
"""Times as fast as naive; 1 for other methods."""
SAME = 1e-5
"""Largest relative difference that rounding in float32 explains."""
AS_CLOSE = 1.05
"""Both sides round to bfloat16 equally often: on single batches one is up to 1.02 or 0.89 times as far from float32 as the other, and the mean over
five batches scatters by some hundredths."""
BATCHES = 5
EPOCHS = 5
"""Passes over which asking the parent once is spread, as in TOFU."""
OTHERWISE = {"rmu"}
"""Methods with a module of their own here."""


@dataclass(frozen=True, kw_only=True)
class Contest:
    """A method against its baseline."""

    what: str
    method: Any
    naive: Loss
    target: float


def contests() -> Iterator[Contest | Row]:
    """Every loss method of the catalog; an unmeasured row where no baseline has been written."""
    for name in catalog.names("methods"):
        method = catalog.build("methods", name, where="benchmarks")
        if not isinstance(method, LossMethod) or name in OTHERWISE:
            continue
        target = PROMISED.get(name, 1.0)
        if name in LOSSES:
            yield Contest(what=name, method=method, naive=LOSSES[name], target=target)
        else:
            yield f"{name}: step", target, "times naive, at least", math.nan
    kl = catalog.build("methods", {"name": "grad_diff", "retain": "kl"}, where="benchmarks")
    yield Contest(what="grad_diff with retain: kl", method=kl, naive=grad_diff_kl, target=1.5)
    yield Contest(what="training (finetune, retrain, task_vector)", method=Training(), naive=training, target=1.0)


class Training:
    """The loss of plain training on the retain side, as the engine's `fit` descends it."""

    needs = Needs()

    def loss(self, model: torch.nn.Module, batch: Batch, reference: Reference) -> torch.Tensor:
        """Nothing of the forget side."""
        return torch.zeros(()) if batch.retain is None else retain_nll(model, batch)


class Duel:
    """A method and its baseline on one case."""

    def __init__(self, contest: Contest, start: Case) -> None:
        self.contest, self.case = contest, asking(start, contest.method.needs)
        self.reference = reference_for(self.case, contest.method)

    def naive(self, rows: StepRows) -> float:
        """Gradients, and the loss."""
        return naive_step(self.case, self.contest.naive, self.contest.method, rows)

    def ours(self, rows: StepRows) -> float:
        """Gradients, and the loss."""
        return engine_step(self.case, self.contest.method, self.reference, rows)

    def seconds(self, side: Callable[[StepRows], float], rows: StepRows) -> float:
        """CPU seconds of one gradient; on an accelerator, seconds until it is done."""
        with fresh_gradients(self.case):
            started = now(self.case.device)
            side(rows)
            return now(self.case.device) - started

    def made(self, side: Callable[[StepRows], float], rows: StepRows) -> tuple[float, Gradients]:
        """Loss and gradients of one batch."""
        with fresh_gradients(self.case):
            return side(rows), gradients(self.case)

    def difference(self) -> float:
        """The larger of the differences of loss (a nat counts as 1 where the sides cancel to less) and gradients, relative."""
        (naive, by_naive), (ours, by_us) = (self.made(side, self.case.plan[0]) for side in (self.naive, self.ours))
        return max(abs(ours - naive) / max(1.0, abs(naive)), distance(by_us, by_naive))

    def times(self) -> tuple[list[float], list[float]]:
        """CPU seconds of naive and ours on every batch, each beginning in turn."""
        naive: list[float] = []
        ours: list[float] = []
        for turn, rows in enumerate(self.case.plan):
            sides = [(self.naive, naive), (self.ours, ours)]
            for side, taken in sides if turn % 2 else sides[::-1]:
                taken.append(self.seconds(side, rows))
        return naive, ours


def ratio(naive: list[float], ours: list[float]) -> float:
    """Median over batches of naive / ours."""
    return statistics.median(a / b for a, b in zip(naive, ours, strict=True))


def step_rows(contest: Contest, start: Case) -> Iterator[Row]:
    """Same numbers first, then the time."""
    duel = Duel(contest, start)
    yield f"{contest.what}: loss and gradients, largest relative difference from naive", SAME, "", duel.difference()
    naive, ours = duel.times()
    yield f"{contest.what}: step", contest.target, "times naive, at least", ratio(naive, ours)
    if contest.method.needs.log_probs:
        started = now(start.device)
        reference_for(duel.case, contest.method)
        asking_once = (now(start.device) - started) / (len(duel.case.plan) * EPOCHS)
        what = f"{contest.what}: step with its share of asking the parent once in {EPOCHS} epochs"
        yield what, 0.0, "times naive, at least", ratio(naive, [taken + asking_once for taken in ours])


def half_precision_rows(contest: Contest, true: Case, start: Case) -> Iterator[Row]:
    """How far from the float32 gradient each side is, and the time."""
    exact, duel = Duel(contest, true), Duel(contest, start)
    off = [[distance(duel.made(side, rows)[1], exact.made(exact.naive, rows)[1]) for side in (duel.naive, duel.ours)] for rows in start.plan]
    naive, ours = (statistics.mean(each) for each in zip(*off, strict=True))
    yield f"{contest.what} in bfloat16: gradients, distance from float32 {ours:.2g}, as a multiple of naive's {naive:.2g}", AS_CLOSE, "", ours / naive
    yield f"{contest.what} in bfloat16: step", 0.0, "times naive, at least", ratio(*duel.times())


def now(device: torch.device) -> float:
    """CPU seconds of this process, or the time once an accelerator has done all it was given."""
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def peak_row() -> Row:
    """Each side in a process of its own."""
    ours, naive = (grown(side) for side in ("ours", "naive"))
    what = f"npo: peak memory of a step, {ours:.0f} MB, as a share of naive's {naive:.0f} MB (vocabulary {PEAK['vocab_size']:,})"
    return what, 0.4, "", ours / naive


def grown(side: str) -> float:
    """Megabytes that the resident set of a child grows by during one step."""
    done = subprocess.run([sys.executable, __file__, side], env=environment(), stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


def grow(side: str) -> None:
    """In the child: print the growth from before the parent is asked to the end of the step, gradients included, models not."""
    method = catalog.build("methods", "npo", where="benchmarks")
    contest = Contest(what="npo", method=method, naive=LOSSES["npo"], target=0.0)
    step(side, contest, case(llama(TIMED | {"vocab_size": 256, "num_hidden_layers": 1}), batches=1))  # libraries load what they need
    start = case(llama(PEAK), batches=1)
    before = resident()
    step(side, contest, start)
    print(resident("VmHWM") - before)


def step(side: str, contest: Contest, start: Case) -> None:
    """One gradient; the naive side asks the parent inside it, ours before it."""
    if side == "ours":
        engine_step(start, contest.method, reference_for(start, contest.method), start.plan[0])
    else:
        naive_step(start, contest.naive, contest.method, start.plan[0])


def resident(what: str = "VmRSS") -> float:
    """Megabytes of this process now, or at most so far (VmHWM; getrusage would count what the process that started this one had)."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[what].split()[0]) / 1024


def told(row: Row) -> bool:
    """Print a row; whether it holds, which one that could not be measured does."""
    what, target, unit, measured = row
    if not math.isnan(measured):
        return shown(row)
    least = unit.endswith(", at least")
    print(f"{what} | {'>=' if least else '<='} {target:g} {unit.removesuffix(', at least')} | - | unmeasured", flush=True)
    return True


def rows() -> Iterator[Row]:
    """All figures."""
    start = case(llama(TIMED), batches=BATCHES)
    for each in contests():
        if isinstance(each, Contest):
            yield from step_rows(each, start)
        else:
            yield each
    npo = next(each for each in contests() if isinstance(each, Contest) and each.what == "npo")
    yield from half_precision_rows(npo, start, case(llama(TIMED), batches=BATCHES, precision="bfloat16"))
    yield peak_row()
    yield from rows_of("engine_rmu")
    yield from rows_of("engine_gpu")


def main() -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    print(f"{processor()}, {os.cpu_count()} cores, 1 thread used; torch {torch.__version__}; transformers {transformers.__version__}")
    print("what | target | measured | ok")
    held = [told(row) for row in rows()]
    sys.exit(0 if all(held) else 1)


def processor() -> str:
    """Its name, where the system tells."""
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text().splitlines() if listed.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor() or platform.machine())


if __name__ == "__main__":
    main() if len(sys.argv) < 2 else grow(sys.argv[1])
