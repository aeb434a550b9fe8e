"""UNDIAL against its formula, token by token."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from plain_formulas import FORGET, FORGET_CLASSES, RETAIN, RETAIN_CLASSES, assert_same, gradient, logits, moved, places, sides, told_by, total

from mlflow_unlearn.engine.batches import Sets, StepRows, batches_of
from mlflow_unlearn.errors import ConfigError
from mlflow_unlearn.methods.undial import UNDIAL
from mlflow_unlearn.protocols import Batch


def formula(model: Any, parent: Any, batches: list[Batch], beta: float, *, everywhere: bool) -> torch.Tensor:
    """Mean cross-entropy against the parent's distribution with the true answer tokens' logits lowered by beta."""
    forget, _ = sides(batches)
    ours, theirs = logits(model, forget).log_softmax(-1), logits(parent, forget).detach()
    terms = []
    for i, t in places(forget, everywhere=everywhere):
        adjusted = theirs[i, t - 1].clone()
        if forget.labels[i, t] != -100:
            adjusted[forget.labels[i, t]] -= beta
        terms.append(-(adjusted.softmax(-1) * ours[i, t - 1]).sum())
    return torch.stack(terms).mean()


@pytest.mark.parametrize(("normalization", "everywhere"), [("paper", False), ("published_code", True)])
def test_loss_is_the_papers_formula(model: Any, batches: list[Batch], normalization: Any, everywhere: bool) -> None:
    method, changed = UNDIAL(beta=3.0, normalization=normalization), moved(model)
    reference = told_by(model, method.needs, FORGET, RETAIN)
    assert_same(changed, total(method, changed, batches, reference), formula(changed, model, batches, 3.0, everywhere=everywhere))


def test_as_beta_vanishes_the_parent_is_its_minimum(model: Any, batches: list[Batch]) -> None:
    method = UNDIAL(beta=1e-6)
    loss = total(method, model, batches, told_by(model, method.needs, FORGET, RETAIN))
    assert gradient(model, loss).norm() < 1e-5


def test_at_the_parent_it_pushes_true_tokens_down(model: Any, batches: list[Batch]) -> None:
    method, (forget, _) = UNDIAL(), sides(batches)
    step = gradient(model, total(method, model, batches, told_by(model, method.needs, FORGET, RETAIN)))
    ascent = gradient(
        model, torch.stack([logits(model, forget).log_softmax(-1)[i, t - 1, forget.labels[i, t]] for i, t in places(forget, everywhere=False)]).mean()
    )
    assert float(torch.nn.functional.cosine_similarity(step, ascent, dim=0)) > 0.9


def test_no_retained_record_is_drawn_by_default() -> None:
    assert not UNDIAL().needs.retain
    assert UNDIAL(retain_weight=1.0).needs.retain


@pytest.mark.parametrize("normalization", ["paper", "published_code"])
def test_a_classifier_is_taught_the_parents_distribution_with_the_true_class_lowered(classifier: Any, normalization: Any) -> None:
    method, changed, rows = UNDIAL(beta=3.0, normalization=normalization), moved(classifier), StepRows(forget=(0, 1, 2, 3), retain=())
    batches = batches_of(rows, Sets(forget=FORGET_CLASSES, retain=RETAIN_CLASSES, pad=0), token_budget=1000)
    terms = []
    for each in FORGET_CLASSES:
        ours, theirs = (told(input_ids=torch.tensor([each.tokens])).logits[0] for told in (changed, classifier))
        adjusted = theirs.detach() - 3.0 * torch.nn.functional.one_hot(torch.tensor(each.label), 3)
        terms.append(-(adjusted.softmax(-1) * ours.log_softmax(-1)).sum())
    reference = told_by(classifier, method.needs, FORGET_CLASSES, RETAIN_CLASSES)
    assert_same(changed, total(method, changed, batches, reference), torch.stack(terms).mean())


@pytest.mark.parametrize("beta", [0.0, math.inf, math.nan])
def test_settings_out_of_range_are_refused(beta: float) -> None:
    with pytest.raises(ConfigError, match="beta must be above zero and finite"):
        UNDIAL(beta=beta)
