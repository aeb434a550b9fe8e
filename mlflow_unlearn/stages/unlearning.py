"""What the stage `unlearn` works with: the sets in the model's tokens, the machine, and the weights that come out."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ..adapters import models
from ..adapters.tables import read_set
from ..audit_sets import watched_retain
from ..catalog import build
from ..digests import sha256_json, tensor_digest
from ..documents import encode as encode_value
from ..engine.checkpoints import Checkpoints
from ..engine.examples import encode
from ..engine.machine import Machine
from ..engine.reference_cache import ReferenceCache
from ..engine.selection import TuningSets
from ..engine.sharding import whole
from ..engine.worker import Worker
from ..ensembles import is_ensemble
from ..errors import ConfigError
from ..protocols import Example, Record, Task
from ..records import Split, Unlearned
from ..unlearn import UnlearnJob, UnlearnRun, unlearn
from .alternatives import alternatives
from .jobs import load_parent
from .launching import is_first, launched, sharing
from .workbench import Workbench, body, progress_bar

_SETS = ("forget", "retain", "neighbours", "general", "tuning_included", "tuning_excluded")


def forget(bench: Workbench, split: Split) -> None:
    """Unlearn, alone or as one of several processes, and write the weights and unlearned.json; only the first of several writes."""
    method = build("methods", bench.params.unlearn.method, where="params.yaml: unlearn.method")
    with sharing(bench.params.unlearn.device) as share:
        model, tokenizer = adapted_parent(bench, split)
        job = unlearn_job(bench, method, model, tokenizer)
        machine = machine_for(bench, split, job, share)
        with progress_bar("unlearning") as show:
            done = unlearn(replace(job, task=replace(job.task, machine=machine)), show)
        model = unadapted(bench, split, model)
    if not is_first():
        return
    models.save_model(model, tokenizer, bench.route / "model")
    bench.write("unlearned", body(described(bench, split, method, done)))
    if machine.checkpoints:
        machine.checkpoints.clear()


def sweep(bench: Workbench) -> None:
    """Remove what killed runs left half written."""
    for aside in bench.scratch.rglob(".aside.*"):
        shutil.rmtree(aside, ignore_errors=True)


def said(record: Unlearned) -> str:
    """One line for the user, and what else should be known."""
    how = f"step {record.kept_step} of {record.steps} kept after {record.seconds:.0f} s, {record.stopped}"
    return "\n".join([f"{record.method['name']}: {how}", *record.notes])


def unlearn_job(bench: Workbench, method: Any, model: Any, tokenizer: Any) -> UnlearnJob:
    """The sets in the model's tokens. Tuning data are canaries of the tuning pool and retained records that the verdict will not look at."""
    params, template = bench.params.unlearn, bench.params.data.template
    sets = {name: read_set(bench.sets, name) for name in _SETS}

    def examples(records: list[Record]) -> list[Example]:
        return encode(tokenizer, template, [r.prompt for r in records], [r.answer for r in records])

    excluded, needs = examples(sets["tuning_excluded"]), getattr(method, "needs", None)  # a method that wraps another may hand on its needs
    wanted = needs.alternatives if needs is not None else None
    task = Task(
        model=model,
        forget=examples(sets["forget"]),
        retain=examples(sets["retain"]),
        swapped=swapped_twins(tokenizer, template, sets["forget"]),
        alternatives=alternatives(wanted, sets["forget"], tokenizer, template, params.seed) if wanted is not None else (),
        strangers=excluded,
        optimiser=params.optimiser,
        seed=params.seed,
        pad=tokenizer.pad_token_id,
    )
    tuning = TuningSets(
        included=examples(sets["tuning_included"]), excluded=excluded, kept=examples(_watched(bench, sets)), pad=tokenizer.pad_token_id
    )
    return UnlearnJob(task=task, method=method, tuning=tuning, selection=params.selection)


def adapted_parent(bench: Workbench, split: Split) -> tuple[Any, Any]:
    """The pinned parent as it is worked on, and its tokenizer: full weights in float32, or a frozen base in the precision of the arithmetic under
    LoRA adapters in float32.
    """
    params = bench.params.unlearn
    if is_ensemble(bench.registry.files(split.parent.model).model):
        raise ConfigError(f"{split.parent.model} is an ensemble of shards, which approximate methods cannot change; set unlearn.strategy to exact")
    if params.lora is None:
        return load_parent(bench, split)
    model, tokenizer = load_parent(bench, split, params.dtype)
    return models.with_lora(model, params.lora, params.seed), tokenizer


def unadapted(bench: Workbench, split: Split, model: Any) -> Any:
    """The unlearned model as one piece, without adapters, in float32; every process has to ask, and only the first one gets it.

    What was trained in shards, or as adapters over a rounded base, is put into the parent's own weights.
    """
    params = bench.params.unlearn
    if not launched() and (params.lora is None or params.dtype == "float32"):
        return models.merged(model)
    weights = whole(model)
    if not is_first():
        return model
    fresh, _ = load_parent(bench, split, device="cpu")
    if params.lora is not None:
        fresh = models.with_lora(fresh, params.lora, params.seed)
        weights = {name: value for name, value in weights.items() if "lora_" in name}
    fresh.load_state_dict(weights, strict=False)
    return models.merged(fresh)


def described(bench: Workbench, split: Split, method: Any, done: UnlearnRun) -> Unlearned:
    """What happened, with every setting that decided it and the digest of the weights that were written."""
    params, settings = bench.params.unlearn, ("optimiser", "seed", "lora", "dtype", "selection")
    return Unlearned(
        requests=split.requests,
        parent=split.parent,
        tensor_digest=tensor_digest((bench.route / "model").glob("*.safetensors")),
        split_digest=split.digest,
        method={"name": params.method["name"], **encode_value(method), **{key: encode_value(getattr(params, key)) for key in settings}},
        claim=method.claim,
        steps=done.steps,
        kept_step=done.kept_step,
        seconds=round(done.seconds, 1),
        stopped=done.stopped,
        notes=done.notes,
        losses=done.losses,
        environment=models.environment(),
    )


def machine_for(bench: Workbench, split: Split, job: UnlearnJob, share: Callable[[Any], Worker]) -> Machine:
    """Precision, checkpoints and caches, under digests of all that they depend on: sets in the model's tokens, settings, the environment."""
    params = bench.params.unlearn
    task, tuning = job.task, job.tuning
    tokens = [[each and each.tokens for each in some] for some in (task.forget, task.retain, task.swapped, task.alternatives, task.strangers)]
    looked_at = [[each.tokens for each in some] for some in (tuning.included, tuning.excluded, tuning.kept)]
    settings = encode_value(replace(params, checkpoint_minutes=None, processes=1)), encode_value(job.method)
    bits = [split.parent.tensor_digest, split.digest, *settings, bench.params.data.template, tokens, looked_at, models.environment()]
    minutes = params.checkpoint_minutes
    checkpoints = None if minutes is None else Checkpoints(folder=bench.scratch / "run", run=sha256_json(bits), seconds=60 * minutes)
    return Machine(
        dtype=params.dtype,
        activation_checkpointing=params.activation_checkpointing,
        share=share,
        checkpoints=checkpoints,
        cache=ReferenceCache(folder=bench.scratch / "reference", model_digest=split.parent.tensor_digest),
    )


def _watched(bench: Workbench, sets: dict[str, list[Record]]) -> list[Record]:
    """Retained records whose loss may be watched while unlearning: none of those that the verdict will measure utility on."""
    measured = {record.tag for name in ("neighbours", "general") for record in sets[name]}
    return [record for record in watched_retain(sets["retain"], bench.params.unlearn.selection.kept_sample) if record.tag not in measured]


def swapped_twins(tokenizer: Any, template: str, forget: Sequence[Record]) -> list[Example | None]:
    """The twin of each record about a stranger, None where the data cannot say."""
    pairs = [(r.swapped_prompt, r.swapped_answer) for r in forget]
    known = [(prompt, answer) for prompt, answer in pairs if prompt is not None and answer is not None]
    twins = iter(encode(tokenizer, template, [prompt for prompt, _ in known], [answer for _, answer in known]))
    return [next(twins) if prompt is not None and answer is not None else None for prompt, answer in pairs]
