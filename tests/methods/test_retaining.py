"""What keeps a model whole: the retain side that methods share, against its formulas."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from plain_formulas import FORGET, FORGET_CLASSES, RETAIN, RETAIN_CLASSES, assert_same, gradient, logits, mean_nll, moved, places, sides, told_by

from mlflow_unlearn.engine.batches import Sets, StepRows, batches_of
from mlflow_unlearn.engine.retaining import Keeping
from mlflow_unlearn.errors import ConfigError
from mlflow_unlearn.protocols import Batch, Needs, Reference, Sequences

KL = (Keeping(retain="kl"), Keeping(retain="kl", normalization="published_code"))


def kept(keeping: Keeping, model: Any, batches: list[Batch], reference: Reference) -> torch.Tensor:
    """The retain loss over the optimiser batch."""
    return torch.stack([keeping.loss(model, batch, reference) for batch in batches if batch.retain is not None]).sum()


def cut_by(token_budget: int) -> list[Batch]:
    return batches_of(StepRows(forget=(0, 1), retain=(0, 2, 3, 5)), Sets(forget=FORGET, retain=RETAIN, pad=0), token_budget)


def divergence(model: Any, parent: Any, rows: Sequences, *, everywhere: bool) -> torch.Tensor:
    """Mean KL(parent || model) over answers, or over all real tokens but the first of each row."""
    ours, theirs = logits(model, rows).log_softmax(-1), logits(parent, rows).log_softmax(-1).detach()
    return torch.stack([(theirs[i, t - 1].exp() * (theirs[i, t - 1] - ours[i, t - 1])).sum() for i, t in places(rows, everywhere=everywhere)]).mean()


def test_nll_is_the_weighted_mean_loss_over_answer_tokens(model: Any, batches: list[Batch]) -> None:
    _, retain = sides(batches)
    assert_same(model, kept(Keeping(weight=2.5), model, batches, Reference()), 2.5 * mean_nll(model, retain))


@pytest.mark.parametrize("keeping", KL, ids=lambda keeping: keeping.normalization)
def test_kl_is_the_mean_divergence_from_the_parent(keeping: Keeping, model: Any, batches: list[Batch]) -> None:
    changed, (_, retain) = moved(model), sides(batches)
    plain = divergence(changed, model, retain, everywhere=keeping.normalization == "published_code")
    assert_same(changed, kept(keeping, changed, batches, told_by(model, keeping.needs(Needs()), FORGET, RETAIN)), plain)


@pytest.mark.parametrize("keeping", [Keeping(), *KL], ids=lambda keeping: f"{keeping.retain} {keeping.normalization}")
def test_micro_batches_add_up_whoever_shares_one(keeping: Keeping, model: Any) -> None:
    """Published code counts padding, so its loss depends on who shares a batch; here none does."""
    changed, reference = moved(model), told_by(model, keeping.needs(Needs()), FORGET, RETAIN)
    assert len(cut_by(1)) > len(cut_by(1000))
    assert_same(changed, kept(keeping, changed, cut_by(1), reference), kept(keeping, changed, cut_by(1000), reference))


@pytest.mark.parametrize("keeping", KL, ids=lambda keeping: keeping.normalization)
def test_a_classifier_has_one_distribution_a_record(keeping: Keeping, classifier: Any) -> None:
    changed, rows = moved(classifier), StepRows(forget=(0,), retain=(1, 4, 5))
    batches = batches_of(rows, Sets(forget=FORGET_CLASSES, retain=RETAIN_CLASSES, pad=0), token_budget=20)
    terms = []
    for each in (RETAIN_CLASSES[i] for i in rows.retain):
        ours, theirs = (told(input_ids=torch.tensor([each.tokens])).logits[0].log_softmax(-1) for told in (changed, classifier))
        terms.append((theirs.detach().exp() * (theirs.detach() - ours)).sum())
    reference = told_by(classifier, keeping.needs(Needs()), FORGET_CLASSES, RETAIN_CLASSES)
    assert_same(changed, kept(keeping, changed, batches, reference), torch.stack(terms).mean())


@pytest.mark.parametrize("keeping", KL, ids=lambda keeping: keeping.normalization)
def test_at_the_parent_kl_is_zero_and_pulls_nowhere(keeping: Keeping, model: Any, batches: list[Batch]) -> None:
    loss = kept(keeping, model, batches, told_by(model, keeping.needs(Needs()), FORGET, RETAIN))
    assert abs(loss.item()) < 1e-6
    assert gradient(model, loss).norm() < 1e-5


def test_needs_are_those_of_the_forget_side_and_what_kl_asks_for() -> None:
    own = Needs(log_probs=True, answer_states=frozenset({"forget"}))
    assert Keeping().needs(own) == own
    assert KL[0].needs(own) == Needs(log_probs=True, answer_states=frozenset({"forget", "retain"}))
    assert KL[1].needs(own) == Needs(log_probs=True, answer_states=frozenset({"forget", "retain"}), prompts_too=True)


def test_without_weight_no_retained_record_is_drawn_and_the_parent_not_asked() -> None:
    for retain in ("nll", "kl"):
        assert Keeping(retain=retain, weight=0.0, normalization="published_code").needs(Needs()) == Needs(retain=False)


def test_settings_out_of_range_are_refused() -> None:
    for weight in (-1.0, math.inf, math.nan):
        with pytest.raises(ConfigError, match="retain_weight must not be below zero and must be finite"):
            Keeping(weight=weight)
    for words in ({"retain": "embeddings"}, {"normalization": "mine"}):
        with pytest.raises(ConfigError, match="retain must be one of nll, kl and normalization one of paper, published_code"):
            Keeping(**words)  # type: ignore[arg-type]
