"""Every method on TOFU's forget10 with the small model: what is forgotten, what is kept, seconds. Prints the table of docs/results.md.

    make demo DATA=path/to/tofu
    python benchmarks/methods_on_tofu.py build/demo              # every method, about an hour on one thread
    python benchmarks/methods_on_tofu.py build/demo npo sim_npo  # some

Each method runs to its last step at two peak learning rates from the registered parent; the run shown is chosen by the rule of engine/selection.py,
on tuning data alone. No step is chosen within a run, so that the table shows the methods and not the brakes. The audit canaries stay closed.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mlflow_unlearn import catalog
from mlflow_unlearn.adapters.tables import read_set
from mlflow_unlearn.engine.examples import encode
from mlflow_unlearn.engine.machine import Machine
from mlflow_unlearn.engine.reference_cache import ReferenceCache
from mlflow_unlearn.engine.scoring import ScoredSubject
from mlflow_unlearn.engine.selection import Look, Selection, TuningSets
from mlflow_unlearn.engine.worker import Worker
from mlflow_unlearn.errors import DivergedError
from mlflow_unlearn.evaluate import verbatim_hits
from mlflow_unlearn.metrics.probability import Probability
from mlflow_unlearn.params import SelectionParams
from mlflow_unlearn.records import Split
from mlflow_unlearn.stages.jobs import load_parent
from mlflow_unlearn.stages.scoring import in_keyed_order
from mlflow_unlearn.stages.unlearning import unlearn_job
from mlflow_unlearn.stages.workbench import Workbench
from mlflow_unlearn.unlearn import unlearn

RATES = (1e-3, 3e-3)
"""Peak learning rates tried where a method has no entry below."""
KEEP = {"retain_weight": 20.0}
"""As in pipelines/tofu/params.yaml: at the papers' 1 a model of this size loses what it should keep."""
SETTINGS: Mapping[str, tuple[Mapping[str, Any], Sequence[float], int]] = {
    **dict.fromkeys(("grad_diff", "npo", "sim_npo", "wga", "undial", "dpo", "idk_dpo"), (KEEP, RATES, 5)),
    "rmu": ({"layer": 1, "trained_layers": 2, "steering": "adaptive", "retain_weight": 30.0}, RATES, 5),
    "grad_ascent": ({}, (1e-4, 3e-4), 5),
    "task_vector": ({}, (3e-4, 1e-3), 1),
    "finetune": ({}, (1e-3,), 1),
    "retrain": ({"epochs": 36, "learning_rate": 5e-3, "batch_size": 32}, (5e-3,), 1),
}
"""Method -> its settings, the learning rates tried, the epochs (over retain for finetune, over forget otherwise)."""
SHOWN = 400
"""Retained records that are scored."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One method at one learning rate."""

    method: str
    learning_rate: float
    scores: Mapping[str, float]
    look: Look
    steps: int
    seconds: float


def runs(bench: Workbench, name: str) -> Iterator[Row]:
    """The method at each of its learning rates."""
    split = bench.value(Split, "split")
    settings, rates, epochs = SETTINGS.get(name, ({}, RATES, 5))
    method = catalog.build("methods", {"name": name, **settings}, where="benchmark")
    cache = ReferenceCache(folder=bench.scratch / "reference", model_digest=split.parent.tensor_digest)
    for rate in rates:
        model, tokenizer = load_parent(bench, split)
        job = unlearn_job(bench, method, model, tokenizer)
        optimiser = replace(job.task.optimiser, learning_rate=rate, epochs=epochs)
        job = replace(job, task=replace(job.task, optimiser=optimiser, machine=Machine(cache=cache)), selection=SelectionParams(every=0))
        try:
            done = unlearn(job)
        except DivergedError as error:
            print(f"{name} at {rate:g}: {error}", file=sys.stderr)
            continue
        look = looked(job.tuning, model, bench)
        yield Row(method=name, learning_rate=rate, scores=scores(bench, model, tokenizer), look=look, steps=done.steps, seconds=done.seconds)


def looked(tuning: TuningSets, model: Any, bench: Workbench) -> Look:
    """The finished model on the tuning data."""
    selection = Selection(tuning=tuning, params=bench.params.unlearn.selection)
    selection.begin(Worker(model))
    return selection.looks[0]


def scores(bench: Workbench, model: Any, tokenizer: Any) -> dict[str, float]:
    """Word-for-word answers and mean probability of forget10, and word-for-word answers of what is kept."""
    sets = {name: read_set(bench.sets, name) for name in ("requested", "general", "retain")}
    sets["retain"] = list(in_keyed_order(sets["retain"])[:SHOWN])
    found = {}
    for name, records in sets.items():
        examples = encode(tokenizer, bench.params.data.template, [r.prompt for r in records], [r.answer for r in records])
        subject = ScoredSubject(model=model, tokenizer=tokenizer, examples=examples, answers=[r.answer for r in records])
        found |= {f"{name}/exact": float(verbatim_hits(subject).mean()), f"{name}/probability": float(Probability().values(subject).mean())}
    return found


def best(rows: Sequence[Row], parent: Look, margin: float) -> Row:
    """The run that the selection rule prefers: utility first, then canaries nearest to never seen."""

    def order(row: Row) -> tuple[float, float]:
        kept, before = row.look.kept_loss or 0.0, parent.kept_loss or 0.0
        return max(0.0, kept - before - margin), abs((row.look.auc or 0.0) - 0.5)

    return min(rows, key=order)


def main(folder: Path, names: Sequence[str]) -> None:
    """Print the table, one line a method as it is done."""
    bench = Workbench(folder.resolve())
    split = bench.value(Split, "split")
    model, tokenizer = load_parent(bench, split)
    tuning = unlearn_job(bench, catalog.build("methods", "grad_diff", where="benchmark"), model, tokenizer).tuning
    parent = looked(tuning, model, bench)
    print("| method | learning rate | steps | forget10 word for word | probability | tuning AUC | retained word for word | general | s |")
    print("|---|---|---|---|---|---|---|---|---|")
    show(Row(method="parent", learning_rate=0.0, scores=scores(bench, model, tokenizer), look=parent, steps=0, seconds=0.0))
    for name in names or catalog.names("methods"):
        if rows := list(runs(bench, name)):
            for row in rows:
                print(json.dumps({**vars(row), "look": vars(row.look)}), file=sys.stderr)
            show(best(rows, parent, bench.params.unlearn.selection.utility_margin))


def show(row: Row) -> None:
    """One line of the table."""
    s, auc = row.scores, "" if row.look.auc is None else f"{row.look.auc:.3f}"
    rate = f"{row.learning_rate:g}" if row.learning_rate else ""
    kept = (f"{s['retain/exact']:.3f}", f"{s['general/exact']:.3f}", f"{row.seconds:.0f}" if row.seconds else "")
    print(
        "| "
        + " | ".join((row.method, rate, str(row.steps or ""), f"{s['requested/exact']:.3f}", f"{s['requested/probability']:.3f}", auc, *kept))
        + " |",
        flush=True,
    )


if __name__ == "__main__":
    started = time.monotonic()
    main(Path(sys.argv[1]), sys.argv[2:])
    print(f"{time.monotonic() - started:.0f} s in all", file=sys.stderr)
