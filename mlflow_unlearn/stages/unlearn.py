"""Stage `unlearn`: the pinned parent, the split and a method, to new weights."""

from __future__ import annotations

from typing import Any

from ..adapters import models
from ..adapters.tables import read_set
from ..catalog import build
from ..digests import tensor_digest
from ..documents import encode
from ..engine.examples import encode as tokenise
from ..errors import TamperedError
from ..protocols import Example, Record
from ..records import Split, Unlearned
from ..unlearn import UnlearnJob, unlearn
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
    job = _job(bench, method, model, tokenizer)
    with progress_bar("unlearning") as show:
        done = unlearn(job, show)
    models.save_model(models.merged(model), tokenizer, folder)
    record = Unlearned(
        requests=split.requests,
        parent=split.parent,
        tensor_digest=tensor_digest(folder.glob("*.safetensors")),
        split_digest=split.digest,
        method={
            "name": params.method["name"],
            **encode(method),
            "optimiser": encode(params.optimiser),
            "seed": params.seed,
            "lora": encode(params.lora),
        },
        claim=method.claim,
        steps=done.steps,
        seconds=round(done.seconds, 1),
        stopped=done.stopped,
        losses=done.losses,
        environment=models.environment(),
    )
    bench.write("unlearned", body(record))
    return f"{params.method['name']}: {done.steps} steps in {done.seconds:.0f} s, {done.stopped}"


def load_parent(bench: Workbench, split: Split) -> tuple[Any, Any]:
    """The parent's model and tokenizer, refused unless its weights are those that were pinned."""
    files = bench.registry.files(split.parent.model)
    found = tensor_digest(files.weights)
    if found != split.parent.tensor_digest:
        raise TamperedError(f"{split.parent.model}: weights have digest {found[:16]}, pinned were {split.parent.tensor_digest[:16]}; restore them")
    return models.load_model(files.model, bench.params.unlearn.device), models.load_tokenizer(files.tokenizer)


def _job(bench: Workbench, method: Any, model: Any, tokenizer: Any) -> UnlearnJob:
    sets = {name: read_set(bench.sets, name) for name in ("forget", "retain", "tuning_included", "tuning_excluded")}
    template, included = bench.params.data.template, {record.tag for record in sets["tuning_included"]}

    def examples(records: list[Record]) -> list[Example]:
        return tokenise(tokenizer, template, [r.prompt for r in records], [r.answer for r in records])

    return UnlearnJob(
        model=model,
        forget=examples(sets["forget"]),
        retain=examples(sets["retain"]),
        swapped=_swapped(tokenizer, template, sets["forget"]),
        tuning_included=[i for i, record in enumerate(sets["forget"]) if record.tag in included],
        tuning_excluded=examples(sets["tuning_excluded"]),
        method=method,
        params=bench.params.unlearn,
        pad=tokenizer.pad_token_id,
    )


def _swapped(tokenizer: Any, template: str, forget: list[Record]) -> list[Example | None]:
    """The twin of each record about a stranger, None where the data cannot say."""
    pairs = [(r.swapped_prompt, r.swapped_answer) for r in forget]
    known = [(prompt, answer) for prompt, answer in pairs if prompt is not None and answer is not None]
    twins = iter(tokenise(tokenizer, template, [prompt for prompt, _ in known], [answer for _, answer in known]))
    return [next(twins) if prompt is not None and answer is not None else None for prompt, answer in pairs]
