"""Stage `unlearn`: the pinned parent, the split and a method, to new weights."""

from __future__ import annotations

import shutil

from ..adapters import models
from ..catalog import build
from ..records import Split
from ..unlearn import unlearn
from .unlearning import adapted_parent, described, machine_for, unlearn_job, whole
from .workbench import NO_REQUEST, Workbench, body, progress_bar


def run(bench: Workbench) -> str:
    """Write the weights and unlearned.json of the route; an empty folder when there is nothing to forget."""
    folder = bench.route / "model"
    folder.mkdir(parents=True, exist_ok=True)
    if bench.no_request("unlearned", "split"):
        shutil.rmtree(bench.scratch, ignore_errors=True)
        return NO_REQUEST
    split = bench.value(Split, "split")
    method = build("methods", bench.params.unlearn.method, where="params.yaml: unlearn.method")
    machine = machine_for(bench, split, method)
    model, tokenizer = adapted_parent(bench, split)
    with progress_bar("unlearning") as show:
        done = unlearn(unlearn_job(bench, method, model, tokenizer, machine), show)
    models.save_model(whole(bench, split, model), tokenizer, folder)
    bench.write("unlearned", body(described(bench, split, method, done)))
    if machine.checkpoints:
        machine.checkpoints.clear()
    said = f"{bench.params.unlearn.method['name']}: step {done.kept_step} of {done.steps} kept after {done.seconds:.0f} s, {done.stopped}"
    return "\n".join([said, *done.notes])
