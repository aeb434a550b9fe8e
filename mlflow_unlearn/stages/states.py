"""Three states of a model through the raw sets: the parent, the unlearned model, and that model after a benign fine-tune."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from ..catalog import build
from ..digests import sha256_json, tensor_digest
from ..documents import encode
from ..engine.calibration import CalibratedAttack
from ..engine.descent import fit
from ..engine.ensemble import Ensemble
from ..errors import TamperedError
from ..evaluate import Measures, paraphrase_gap, report, utility
from ..protocols import Progress, Subject
from ..records import Evaluation, Split, Unlearned
from .jobs import load_files, load_parent
from .pools import pools, shards_of
from .scoring import RawSets, subjects
from .workbench import Workbench, progress_bar

OTHER_SHARDS = "the other shards, which saw none of them"
States = Mapping[str, Mapping[str, Subject]]


def count_attempt(bench: Workbench, split: Split, unlearned: Unlearned) -> int:
    """Number of this attempt, counted before anything is measured: whoever opens the audit canaries and stops has opened them.

    The same weights looked at in another way (another seed, another probe) are another attempt.
    """
    looked_at = sha256_json([unlearned.tensor_digest, encode(bench.params.evaluate)])
    parent, now = str(split.parent.model), datetime.now(UTC)
    return max((bench.ledger.attempt(parent, pool, looked_at, now) for pool in pools(split)), default=1)


def three_states(bench: Workbench, split: Split, unlearned: Unlearned, sets: RawSets) -> States:
    """Every set as each state sees it; the fine-tuned state of an ensemble is empty.

    Raises:
        TamperedError: the weights are not those that were pinned or described.
    """
    parent, tokenizer = load_parent(bench, split)
    states: dict[str, Mapping[str, Subject]] = {"before": subjects(parent, tokenizer, sets, bench.params)}
    folder = bench.route / "model"
    if tensor_digest(folder.glob("*.safetensors")) != unlearned.tensor_digest:
        raise TamperedError(f"{folder}: not the weights that unlearned.json describes; run `dvc repro`")
    model, tokenizer = load_files(folder, folder, bench.params.unlearn.device)
    states["after"] = subjects(model, tokenizer, sets, bench.params)
    for name in ("before", "after"):  # now, since the fine-tune changes these very weights
        _score(states[name], f"scoring {name}")
    if isinstance(model, Ensemble):  # what was never learned cannot come back: the probe decides nothing about an exact claim
        return states | {"after_finetune": {}}
    probe = bench.params.evaluate
    with progress_bar("benign fine-tune") as show:
        for done in fit(model, sets.examples(tokenizer, "retain_all"), probe.finetune, probe.seed, tokenizer.pad_token_id):
            show(done)
    states["after_finetune"] = subjects(model, tokenizer, sets, bench.params)
    _score(states["after_finetune"], "scoring after fine-tune")
    return states


def _score(found: Mapping[str, Subject], label: str) -> None:
    """Ask every question once; the subjects keep what they heard."""
    with progress_bar(label) as show:
        for number, subject in enumerate(found.values(), start=1):
            _ = subject.token_hits, subject.generations
            show(Progress(step=number, steps=len(found)))


def evaluation(bench: Workbench, split: Split, attempt: int, states: States) -> Evaluation:
    """Figures, tests and the differences between the states."""
    measures = _measures(bench)
    return Evaluation(
        requests=split.requests,
        parent=split.parent,
        unlearned=bench.value(Unlearned, "unlearned").tensor_digest,
        split_digest=split.digest,
        attempt=attempt,
        pool_spent_by=next((by for pool in pools(split) if (by := bench.ledger.pool_spent_by(pool))), None),
        before=report(states["before"], measures),
        after=report(states["after"], measures),
        after_finetune=report(states["after_finetune"], measures),
        utility=utility(states["before"], states["after"], measures),
        paraphrase_gap=paraphrase_gap(states["after"], measures),
        canaries_committed=bool(split.canaries.get("committed", False)),
        canary_shards=shards_of(split),
        settings=encode(bench.params.evaluate) | ({"calibrated_by": OTHER_SHARDS} if bench.params.unlearn.strategy == "exact" else {}),
    )


def _measures(bench: Workbench) -> Measures:
    params = bench.params.evaluate
    return Measures(
        metrics={name: build("metrics", name, where="params.yaml: evaluate.metrics") for name in params.metrics},
        attacks={name: CalibratedAttack(build("attacks", name, where="params.yaml: evaluate.attacks")) for name in params.attacks},
        bootstrap=params.bootstrap,
        permutations=params.permutations,
        seed=params.seed,
    )
