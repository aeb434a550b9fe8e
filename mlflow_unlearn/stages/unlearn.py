"""Stage `unlearn`: the pinned parent, the split and a method, to new weights."""

from __future__ import annotations

from ..adapters import models
from ..catalog import build
from ..digests import tensor_digest
from ..documents import encode
from ..records import Split, Unlearned
from ..unlearn import unlearn
from .jobs import load_parent, unlearn_job
from .workbench import NO_REQUEST, Workbench, body, progress_bar


def run(bench: Workbench) -> str:
    """Write the weights and unlearned.json of the route; an empty folder when there is nothing to forget."""
    folder = bench.route / "model"
    folder.mkdir(parents=True, exist_ok=True)
    if bench.no_request("unlearned", "split"):
        return NO_REQUEST
    split, params = bench.value(Split, "split"), bench.params.unlearn
    method = build("methods", params.method, where="params.yaml: unlearn.method")
    model, tokenizer = load_parent(bench, split)
    model = models.with_lora(model, params.lora, params.seed) if params.lora else model
    with progress_bar("unlearning") as show:
        done = unlearn(unlearn_job(bench, method, model, tokenizer), show)
    models.save_model(models.merged(model), tokenizer, folder)
    record = Unlearned(
        requests=split.requests,
        parent=split.parent,
        tensor_digest=tensor_digest(folder.glob("*.safetensors")),
        split_digest=split.digest,
        method={"name": params.method["name"], **encode(method), **{key: encode(getattr(params, key)) for key in ("optimiser", "seed", "lora")}},
        claim=method.claim,
        steps=done.steps,
        seconds=round(done.seconds, 1),
        stopped=done.stopped,
        losses=done.losses,
        environment=models.environment(),
    )
    bench.write("unlearned", body(record))
    return f"{params.method['name']}: {done.steps} steps in {done.seconds:.0f} s, {done.stopped}"
