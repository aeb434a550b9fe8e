"""Stage `evaluate`: the parent, the unlearned model, and the unlearned model after a benign fine-tune, through the same sets."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from ..adapters import models
from ..catalog import build
from ..digests import tensor_digest, write_document
from ..documents import encode
from ..engine.descent import fit
from ..errors import TamperedError
from ..evaluate import Measures, paraphrase_gap, report, utility
from ..records import Evaluation, Split, Unlearned
from .scoring import RawSets, spoken, subjects
from .unlearn import load_parent
from .workbench import NO_REQUEST, Workbench, body, progress_bar, stage_schema


def run(bench: Workbench) -> str:
    """Write build/evaluation.json (figures) and build/raw/answers.json (what the models say; git-ignored, never cached)."""
    answers = bench.folder / "build/raw/answers.json"
    if bench.no_request("evaluation", "split"):
        write_document(answers, stage_schema("answers"), {"requests": []})
        return NO_REQUEST
    split, unlearned = bench.value(Split, "split"), bench.value(Unlearned, "unlearned")
    sets = RawSets.read(bench, split)
    attempt = _attempt(bench, split, unlearned)
    states = _states(bench, split, unlearned, sets)
    evaluation = _evaluation(bench, split, unlearned, states) | {"attempt": attempt}
    bench.write("evaluation", body(Evaluation(**evaluation)))
    write_document(answers, stage_schema("answers"), {"requests": list(split.requests), "spoken": spoken(sets, states)})
    asked = sum(len(subject.answers) for subject in states["after"].values())
    return f"attempt {attempt}: 3 states of the model, {asked} questions each"


def _attempt(bench: Workbench, split: Split, unlearned: Unlearned) -> int:
    """Counted before anything is measured: whoever opens the audit canaries and stops has opened them."""
    pool = split.canaries.get("commitment")
    if not pool:
        return 1
    return bench.ledger.attempt(str(split.parent.model), str(pool), unlearned.tensor_digest, datetime.now(UTC))


def _states(bench: Workbench, split: Split, unlearned: Unlearned, sets: RawSets) -> dict[str, Mapping[str, Any]]:
    parent, tokenizer = load_parent(bench, split)
    states: dict[str, Mapping[str, Any]] = {"before": subjects(parent, tokenizer, sets, bench.params)}
    folder = bench.route / "model"
    if tensor_digest(folder.glob("*.safetensors")) != unlearned.tensor_digest:
        raise TamperedError(f"{folder}: not the weights that unlearned.json describes; run `dvc repro`")
    model = models.load_model(folder, bench.params.unlearn.device)
    tokenizer = models.load_tokenizer(folder)
    states["after"] = subjects(model, tokenizer, sets, bench.params)
    for subject in states["after"].values():
        _ = subject.token_hits, subject.generations  # computed now: the fine-tune changes these very weights
    probe = bench.params.evaluate
    with progress_bar("benign fine-tune") as show:
        for done in fit(model, sets.examples(tokenizer, "retain_all"), probe.finetune, probe.seed, tokenizer.pad_token_id):
            show(done)
    states["after_finetune"] = subjects(model, tokenizer, sets, bench.params)
    return states


def _evaluation(bench: Workbench, split: Split, unlearned: Unlearned, states: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    params = bench.params.evaluate
    measures = Measures(
        metrics={name: build("metrics", name, where="params.yaml: evaluate.metrics") for name in params.metrics},
        attacks={name: build("attacks", name, where="params.yaml: evaluate.attacks") for name in params.attacks},
        bootstrap=params.bootstrap,
        permutations=params.permutations,
        seed=params.seed,
    )
    pool = split.canaries.get("commitment")
    return {name: report(found, measures) for name, found in states.items()} | {
        "requests": split.requests,
        "parent": split.parent,
        "unlearned": unlearned.tensor_digest,
        "split_digest": split.digest,
        "pool_spent_by": bench.ledger.pool_spent_by(str(pool)) if pool else None,
        "utility": utility(states["before"], states["after"], measures),
        "paraphrase_gap": paraphrase_gap(states["after"], measures),
        "canaries_committed": bool(split.canaries.get("committed", False)),
        "settings": encode(params),
    }
