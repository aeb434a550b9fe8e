"""One model of a trial through the real audit and the real verdict."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

from verdict_models import TOKENS, Trial
from verdict_world import TEMPLATE

from mlflow_unlearn.attacks.loss import Loss
from mlflow_unlearn.attacks.min_k import MinK
from mlflow_unlearn.audit import Audited, AuditJob, Known, Origin, audit
from mlflow_unlearn.audit_sets import AuditSets
from mlflow_unlearn.digests import sha256_json
from mlflow_unlearn.documents import encode
from mlflow_unlearn.evaluate import Measures
from mlflow_unlearn.judge import judge
from mlflow_unlearn.lineage import DatasetRevision, ModelVersion, Parent
from mlflow_unlearn.metrics.exact_memorization import ExactMemorization
from mlflow_unlearn.metrics.probability import Probability
from mlflow_unlearn.metrics.rouge_l_recall import RougeLRecall
from mlflow_unlearn.params import EvaluateParams
from mlflow_unlearn.policy import Policy, policy_digest
from mlflow_unlearn.records import Claim, Evaluation, Unlearned, Verdict

POLICY = Policy(deployed_precisions=("fp32", "int8", "int4"))
PARAMS = EvaluateParams(bootstrap=1000, max_new_tokens=6)
MEASURES = Measures(
    metrics={"probability": Probability(), "exact_memorization": ExactMemorization(), "rouge_l_recall": RougeLRecall()},
    attacks={"loss": Loss(), "min_k": MinK()},
    bootstrap=PARAMS.bootstrap,
    permutations=PARAMS.permutations,
    seed=0,
)


_LAST: dict[str, tuple[Any, Any]] = {}
"""The world that was looked at last and what its parent said: all models of a trial are compared with the same one."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What the verdict said of one model."""

    removal: Verdict
    suppression: Verdict


def digest_of(model: Any) -> str:
    """A digest of the weights, for the documents."""
    return sha256_json([[name, float(value.double().sum()), float(value.double().pow(2).sum())] for name, value in model.state_dict().items()])


def evaluated(trial: Trial, model: Any) -> Evaluation:
    """The evaluation that the stage would write of the first attempt."""
    return looked_at(trial, model)[0]


def looked_at(trial: Trial, model: Any) -> tuple[Evaluation, Audited, AuditSets]:
    """The same, with what every state said and what it was asked."""
    sets = replace(AuditSets.of(trial.world.sets, TEMPLATE, PARAMS), retained=trial.world.kept)
    job = AuditJob(
        parent=Origin(load=lambda: (trial.copy(), TOKENS), digest=digest_of(trial.parent)),
        model=Origin(load=lambda: (copy.deepcopy(model), TOKENS), digest=digest_of(model)),
        sets=sets,
        measures=MEASURES,
        params=PARAMS,
        precisions=POLICY.deployed_precisions,
    )
    world, known = _LAST.get("parent", (None, None))
    seen = audit(job, known if world is trial.world else None)
    _LAST["parent"] = (trial.world, Known(report=seen.before, subjects=seen.subjects["before"]))
    found = Evaluation(
        requests=("er-1",),
        parent=PARENT,
        unlearned=digest_of(model),
        split_digest="0" * 64,
        attempt=1,
        pool_spent_by=None,
        before=seen.before,
        after=seen.after,
        after_finetune=seen.after_finetune,
        precisions=seen.precisions,
        utility=seen.utility,
        paraphrase_gap=seen.paraphrase_gap,
        canaries_committed=True,
        policy=policy_digest(POLICY),
        first_policy=policy_digest(POLICY),
        settings=encode(PARAMS),
    )
    return found, seen, sets


PARENT = Parent(
    model=ModelVersion(name="m", version="1"), tensor_digest="c" * 64, datasets=(DatasetRevision(name="d", path="data/d", md5="a" * 32 + ".dir"),)
)


def verdict(evaluation: Evaluation, claimed: str | None = None) -> Judged:
    """The verdicts for an approximate claim about the weights with this digest, or about those that were evaluated.

    Raises:
        TamperedError: the evaluation is of other weights than those claimed.
    """
    run = Unlearned(
        requests=("er-1",),
        parent=PARENT,
        tensor_digest=claimed or evaluation.unlearned,
        split_digest=evaluation.split_digest,
        method={"name": "bench"},
        claim=Claim.APPROXIMATE,
        steps=1,
        seconds=0.0,
        stopped="all epochs done",
    )
    removal, suppression = judge(evaluation, POLICY, run)
    return Judged(removal=removal, suppression=suppression)
