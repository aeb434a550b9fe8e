"""What the stage `evaluate` does: an attempt is counted, every state of the model is looked at, and the figures are put together."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from ..adapters import bases
from ..audit import AuditJob, Origin, measures_of
from ..audit_sets import AuditSets
from ..deep import DeepAudited, deep_audit, wanted
from ..digests import sha256_json, tensor_digest
from ..documents import encode
from ..ensembles import is_ensemble
from ..errors import ConfigError, TamperedError
from ..policy import policy_digest
from ..protocols import PartialMetric
from ..records import Evaluation, Split, Unlearned
from .jobs import load_files, load_parent
from .pools import pools, shards_of
from .shadow_models import retraining
from .workbench import Workbench, progress_bar

OTHER_SHARDS = "the other shards, which saw none of them"


def count_attempt(bench: Workbench, split: Split, unlearned: Unlearned) -> int:
    """Number of this attempt, counted before anything is measured: whoever opens the audit canaries and stops has opened them.

    The same weights looked at in another way (another seed, another probe, another policy) are another attempt.
    """
    policy, params = policy_digest(bench.policy), bench.params
    how = [encode(params.evaluate), encode(params.data), params.unlearn.selection.kept_sample, dict(split.files)]
    looked_at = sha256_json([unlearned.tensor_digest, how, policy])
    parent, now = str(split.parent.model), datetime.now(UTC)
    return max((bench.ledger.attempt(parent, pool, looked_at, now, policy) for pool in pools(split)), default=1)


def look(bench: Workbench, split: Split, unlearned: Unlearned, sets: AuditSets) -> DeepAudited:
    """Every set as each state sees it.

    Raises:
        TamperedError: the weights are not those that were pinned or described.
    """
    folder = bench.route / "model"
    if tensor_digest(folder.glob("*.safetensors")) != unlearned.tensor_digest:
        raise TamperedError(f"{folder}: not the weights that unlearned.json describes; run `dvc repro`")
    measures = measures_of(bench.params.evaluate, "params.yaml: evaluate.")
    if any(isinstance(metric, PartialMetric) for metric in measures.metrics.values()):
        sets = sets.with_other_answers()
    parent = bench.registry.files(split.parent.model)
    with progress_bar("looking at the models") as show:
        job = AuditJob(
            parent=Origin(
                load=partial(load_parent, bench, split), digest=_digest(split.parent.tensor_digest, parent.tokenizer), many=is_ensemble(parent.model)
            ),
            model=Origin(load=partial(_unlearned, bench, folder), digest=_digest(unlearned.tensor_digest, folder), many=is_ensemble(folder)),
            sets=sets,
            measures=measures,
            reference=_reference(bench, (split.parent.tensor_digest, unlearned.tensor_digest)),
            retraining=retraining(bench, split, sets),
            params=bench.params.evaluate,
            precisions=bench.policy.deployed_precisions,
            folder=bench.scratch / "evaluation",
            tell=lambda _what, how_far: show(how_far),
        )
        return deep_audit(job)


def evaluation(bench: Workbench, split: Split, attempt: int, found: DeepAudited) -> Evaluation:
    """Figures, tests and the differences between the states, with what they hold for."""
    used, seen = pools(split), found.audited
    settings = (
        encode(bench.params.evaluate)
        | {"probes": list(wanted(bench.params.evaluate))}
        | ({"calibrated_by": OTHER_SHARDS} if bench.params.unlearn.strategy == "exact" else {})
    )
    return Evaluation(
        requests=split.requests,
        parent=split.parent,
        unlearned=bench.value(Unlearned, "unlearned").tensor_digest,
        split_digest=split.digest,
        attempt=attempt,
        pool_spent_by=next((by for pool in used if (by := bench.ledger.pool_spent_by(pool))), None),
        before=seen.before,
        after=seen.after,
        after_finetune=seen.after_finetune,
        precisions=seen.precisions,
        utility=seen.utility,
        paraphrase_gap=seen.paraphrase_gap,
        canaries_committed=bool(split.canaries.get("committed", False)),
        canary_shards=shards_of(split),
        curves=found.curves,
        policy=policy_digest(bench.policy),
        first_policy=_first_policy(bench, used),
        settings=settings,
    )


def _first_policy(bench: Workbench, used: Sequence[str]) -> str:
    """The policy that counts: the one in force when these canaries were first opened; without canaries today's, since nothing was looked at."""
    found = {bench.ledger.first_policy(pool) for pool in used} or {policy_digest(bench.policy)}
    return found.pop() if len(found) == 1 else sha256_json(sorted(found))  # several: none of them is that of the evaluation


def _reference(bench: Workbench, taken: Collection[str]) -> Origin | None:
    """The model that `evaluate.reference` names."""
    named = bench.params.evaluate.reference
    if named is None:
        return None
    files = bases.fetch(named)
    digest = files.pinned.tensor_digest
    if digest in taken:
        raise ConfigError(
            "params.yaml: evaluate.reference: these are the weights of the parent, or of the model in question; name one that never saw them"
        )
    return Origin(load=partial(bases.load, files, bench.params.unlearn.device), digest=_digest(digest, files.tokenizer))


def _digest(weights: str, tokenizer: Path) -> str:
    """Weights and tokenizer: the same weights under other tokens say something else."""
    return sha256_json([weights, bases.tokenizer_digest(tokenizer)])


def _unlearned(bench: Workbench, folder: Path) -> tuple[object, object]:
    return load_files(folder, folder, bench.params.unlearn.device)
