"""Models made of numbers: how well each set is known, drawn with a seed. The subjects satisfy protocols.Subject and go through the real verbs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from mlflow_unlearn.attacks.loss import Loss
from mlflow_unlearn.attacks.min_k import MinK
from mlflow_unlearn.evaluate import Measures, Subjects, paraphrase_gap, report, utility
from mlflow_unlearn.lineage import DatasetRevision, ModelVersion, Parent
from mlflow_unlearn.metrics.exact_memorization import ExactMemorization
from mlflow_unlearn.metrics.probability import Probability
from mlflow_unlearn.metrics.rouge_l_recall import RougeLRecall
from mlflow_unlearn.records import Evaluation

TOKENS = 6
SIZES = {"requested": 15, "retain": 300, "neighbours": 300, "general": 300, "audit_included": 400, "audit_excluded": 400}
REWORDED = ("requested", "general", "audit_included", "audit_excluded")
MEASURES = Measures(
    metrics={"probability": Probability(), "exact_memorization": ExactMemorization(), "rouge_l_recall": RougeLRecall()},
    attacks={"loss": Loss(), "min_k": MinK()},
    bootstrap=200,
    permutations=1000,
    seed=0,
)
KNOWN, UNKNOWN = 8.0, 0.0
PARENT = Parent(
    model=ModelVersion(name="m", version="1"), tensor_digest="c" * 64, datasets=(DatasetRevision(name="d", path="data/d", md5="a" * 32 + ".dir"),)
)


@dataclass(frozen=True, kw_only=True)
class SimulatedSubject:
    """A set of records as a model sees it."""

    token_log_probs: Sequence[NDArray[np.float64]] = ()
    token_hits: Sequence[NDArray[np.bool_]] = ()
    generations: Sequence[str] = ()
    answers: Sequence[str] = ()


def subject(n: int, knowledge: float, seed: int) -> SimulatedSubject:
    """n records whose answer tokens have a logit of `knowledge` on average; what is known (probability above one half) is also said."""
    logits = np.random.default_rng(seed).normal(knowledge - 2.0, 0.5, (n, TOKENS))
    log_probs = -np.log1p(np.exp(-logits))
    hits = log_probs > np.log(0.5)
    answer = [f"word{i}" for i in range(TOKENS - 1)]
    said = [" ".join(word if hit else "other" for word, hit in zip(answer, row, strict=False)) for row in hits]
    return SimulatedSubject(token_log_probs=list(log_probs), token_hits=list(hits), generations=said, answers=[" ".join(answer)] * n)


def model(*, forgotten: float, kept: float = KNOWN, seed: int) -> dict[str, SimulatedSubject]:
    """Every set of one state: `forgotten` is known of requests and included canaries, `kept` of what stays."""
    of = {"requested": forgotten, "audit_included": forgotten, "audit_excluded": UNKNOWN}
    sets = {name: subject(n, of.get(name, kept), seed * 100 + i) for i, (name, n) in enumerate(SIZES.items())}
    return sets | {f"{name}_paraphrased": subject(SIZES[name], of.get(name, kept) / 4, seed * 100 + 50 + i) for i, name in enumerate(REWORDED)}


def evaluated(before: Subjects, after: Subjects, after_finetune: Subjects, *, committed: bool = True) -> Evaluation:
    """The Evaluation that the stage would write about these states, first attempt."""
    states = {"before": before, "after": after, "after_finetune": after_finetune}
    settings: Mapping[str, object] = {
        "attacks": list(MEASURES.attacks),
        "permutations": MEASURES.permutations,
        "finetune": {"epochs": 3, "learning_rate": 1e-3},
    }
    return Evaluation(
        requests=("er-1",),
        parent=PARENT,
        unlearned="d" * 64,
        split_digest="e" * 64,
        attempt=1,
        pool_spent_by=None,
        utility=utility(before, after, MEASURES),
        paraphrase_gap=paraphrase_gap(after, MEASURES),
        canaries_committed=committed,
        settings=settings,
        **{name: report(state, MEASURES) for name, state in states.items()},
    )


def evaluation_of(after: float, after_finetune: float, kept: float = KNOWN) -> Evaluation:
    """A parent that knows everything, and how much its child knows of what it forgot, before and after the benign fine-tune."""
    return _drawn(after, after_finetune, kept)


@cache
def _drawn(after: float, after_finetune: float, kept: float) -> Evaluation:
    return drawn(after, after_finetune, kept)


def drawn(after: float, after_finetune: float, kept: float = KNOWN) -> Evaluation:
    """`evaluation_of`, measured anew."""
    before = model(forgotten=KNOWN, seed=1)
    return evaluated(before, model(forgotten=after, kept=kept, seed=2), model(forgotten=after_finetune, kept=kept, seed=3))


def honest() -> Evaluation:
    """A retrain: what was forgotten is as strange as what was never seen, and stays so."""
    return evaluation_of(UNKNOWN, UNKNOWN)
