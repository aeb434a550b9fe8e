"""Models made of numbers: how well each set is known, drawn with a seed. The subjects satisfy protocols.Subject and go through the real verbs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlflow_unlearn.attacks.loss import Loss
from mlflow_unlearn.attacks.min_k import MinK
from mlflow_unlearn.documents import encode
from mlflow_unlearn.evaluate import Measures, Subjects, paraphrase_gap, remaining, report, utility
from mlflow_unlearn.lineage import DatasetRevision, ModelVersion, Parent
from mlflow_unlearn.metrics.exact_memorization import ExactMemorization
from mlflow_unlearn.metrics.probability import Probability
from mlflow_unlearn.metrics.rouge_l_recall import RougeLRecall
from mlflow_unlearn.params import OptimiserParams
from mlflow_unlearn.policy import Policy, policy_digest
from mlflow_unlearn.protocols import Shadows
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
SHADOWS = 16
PARENT = Parent(
    model=ModelVersion(name="m", version="1"), tensor_digest="c" * 64, datasets=(DatasetRevision(name="d", path="data/d", md5="a" * 32 + ".dir"),)
)


@dataclass(frozen=True, kw_only=True)
class SimulatedSubject:
    """A set of records as a model sees it."""

    token_log_probs: Sequence[NDArray[np.float64]] = ()
    token_hits: Sequence[NDArray[np.bool_]] = ()
    token_moments: Sequence[NDArray[np.float64]] = ()
    paraphrased_log_probs: Sequence[NDArray[np.float64]] = ()
    wrong_log_probs: Sequence[Sequence[NDArray[np.float64]]] = ()
    gradient_norms: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    generations: Sequence[str] = ()
    answers: Sequence[str] = ()
    reference_log_probs: Sequence[NDArray[np.float64]] = ()
    prefixed_log_probs: Sequence[NDArray[np.float64]] = ()
    shadows: Shadows = field(default_factory=lambda: shadows_of(np.empty((0, 0)), np.empty((0, 0))))


def shadows_of(confidences: NDArray[np.float64], trained_on: NDArray[Any]) -> Shadows:
    """(models, records) each."""
    return Shadows(confidences=confidences, trained_on=trained_on.astype(np.bool_))


def subject(n: int, knowledge: float, seed: int) -> SimulatedSubject:
    """n records whose answer tokens have a logit of `knowledge` on average; what is known (probability above one half) is also said.

    What the true token does not get of the probability, one other token gets. A record has half that knowledge in other words, three wrong answers
    as likely as what is not known, and shadows to half of which it is known. A prefix takes half of what is known away.
    """
    draw = np.random.default_rng(seed)
    logits = draw.normal(knowledge - 2.0, 0.5, (n, TOKENS))
    log_probs = log_sigmoid(logits)
    hits = log_probs > np.log(0.5)
    answer = [f"word{i}" for i in range(TOKENS - 1)]
    said = [" ".join(word if hit else "other" for word, hit in zip(answer, row, strict=False)) for row in hits]
    trained_on = draw.permuted(np.arange(SHADOWS)[:, None] % 2 == np.zeros(n), axis=0)
    return SimulatedSubject(
        token_log_probs=list(log_probs),
        token_hits=list(hits),
        token_moments=list(two_token_moments(logits)),
        paraphrased_log_probs=list(log_sigmoid(logits - knowledge / 2)),
        wrong_log_probs=[list(each) for each in log_sigmoid(draw.normal(UNKNOWN - 2.0, 0.5, (n, 3, TOKENS)))],
        gradient_norms=(1.0 - np.exp(log_probs)).mean(1),
        generations=said,
        answers=[" ".join(answer)] * n,
        reference_log_probs=list(log_sigmoid(draw.normal(UNKNOWN - 2.0, 0.5, (n, TOKENS)))),
        prefixed_log_probs=list(log_sigmoid(logits - knowledge / 2)),
        shadows=shadows_of(draw.normal(np.where(trained_on, KNOWN, UNKNOWN) - 2.0, 0.5), trained_on),
    )


def log_sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log-probability of one of two tokens."""
    found: NDArray[np.float64] = -np.log1p(np.exp(-logits))
    return found


def two_token_moments(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """(..., 2) mean and variance of log p over two tokens with these logits between them."""
    true, other = log_sigmoid(logits), log_sigmoid(-logits)
    share = np.exp(true)
    return np.stack([share * true + (1.0 - share) * other, share * (1.0 - share) * (true - other) ** 2], -1)


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
        "finetune": encode(OptimiserParams(epochs=3, learning_rate=1e-3)),
    }
    reports = {name: report(state, MEASURES) for name, state in states.items()}
    reports |= {name: replace(reports[name], gap=remaining(before, states[name], {})) for name in ("after", "after_finetune")}
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
        policy=policy_digest(Policy()),
        first_policy=policy_digest(Policy()),
        **reports,
    )


def under(evaluation: Evaluation, policy: Policy) -> Evaluation:
    """The same evaluation, made with this policy in force from the first attempt on."""
    return replace(evaluation, policy=policy_digest(policy), first_policy=policy_digest(policy))


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
