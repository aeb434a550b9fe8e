"""GradDiff against its formula."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from plain_formulas import FORGET, RETAIN, answers, assert_same, gradient, logits, mean_nll, moved, places, row_by_row, sides, told_by, total

from mlflow_unlearn.errors import ConfigError
from mlflow_unlearn.methods.grad_ascent import GradAscent
from mlflow_unlearn.methods.grad_diff import GradDiff
from mlflow_unlearn.protocols import Batch, Reference, Sequences, View


def floors(*values: float) -> Reference:
    return Reference(forget=View(floors=torch.tensor(values)))


def divergence(model: Any, parent: Any, rows: Sequences, *, everywhere: bool) -> torch.Tensor:
    """Mean KL(parent || model) over answers or over all tokens."""
    ours, theirs = logits(model, rows).log_softmax(-1), logits(parent, rows).log_softmax(-1).detach()
    return torch.stack([(theirs[i, t - 1].exp() * (theirs[i, t - 1] - ours[i, t - 1])).sum() for i, t in places(rows, everywhere=everywhere)]).mean()


def test_loss_is_the_difference_of_two_means_over_tokens(model: Any, batches: list[Batch]) -> None:
    forget, retain = sides(batches)
    ours = total(GradDiff(retain_weight=2.0), model, batches, Reference())
    assert_same(model, ours, 2.0 * mean_nll(model, retain) - mean_nll(model, forget))


@pytest.mark.parametrize(("normalization", "everywhere"), [("paper", False), ("published_code", True)])
def test_the_kl_retain_loss_is_the_mean_divergence_from_the_parent(model: Any, batches: list[Batch], normalization: Any, everywhere: bool) -> None:
    method, (forget, retain) = GradDiff(retain="kl", retain_weight=3.0, normalization=normalization), sides(batches)
    reference, changed = told_by(model, method.needs, FORGET, RETAIN), moved(model)
    plain = 3.0 * divergence(changed, model, retain, everywhere=everywhere) - mean_nll(changed, forget)
    assert_same(changed, total(method, changed, batches, reference), plain)


def test_at_the_parent_the_kl_retain_loss_pulls_nowhere(model: Any, batches: list[Batch]) -> None:
    method = GradDiff(retain="kl", retain_weight=3.0)
    ours = total(method, model, batches, told_by(model, method.needs, FORGET, RETAIN))
    alone = total(GradAscent(), model, batches, Reference())
    torch.testing.assert_close(gradient(model, ours), gradient(model, alone), atol=1e-6, rtol=1e-5)


def test_without_retain_weight_it_is_gradient_ascent_and_draws_no_retained_record(model: Any, batches: list[Batch]) -> None:
    method = GradDiff(retain_weight=0.0)
    assert not method.needs.retain
    assert torch.equal(total(method, model, batches, Reference()), total(GradAscent(), model, batches, Reference()))


def test_clamp_drops_records_at_their_floor(model: Any, batches: list[Batch]) -> None:
    loss = GradDiff(clamp=True).loss(model, batches[0], floors(0.0, 0.0, 0.0, 0.0))
    loss.backward()
    assert loss.item() == 0.0
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in model.parameters())


def test_each_record_meets_its_own_floor_however_the_batch_is_cut(model: Any, batches: list[Batch]) -> None:
    forget, _ = sides(batches)
    lines = dict(zip(forget.index.tolist(), answers(model, forget), strict=True))
    plain = (lines[1].sum() + lines[3].sum()) / sum(len(line) for line in lines.values())
    method = GradDiff(clamp=True, retain_weight=0.0)
    assert_same(model, total(method, model, row_by_row(), floors(0.0, math.inf, 0.1, math.inf)), plain)


def test_clamp_far_below_every_floor_changes_nothing(model: Any, batches: list[Batch]) -> None:
    free = total(GradDiff(), model, batches, Reference())
    assert torch.equal(total(GradDiff(clamp=True), model, batches, floors(*[math.inf] * 4)), free)


def test_a_clamp_without_floors_is_refused(model: Any, batches: list[Batch]) -> None:
    assert GradDiff(clamp=True).needs.floors
    with pytest.raises(ConfigError, match="clamp: needs the floors of the forget records"):
        GradDiff(clamp=True).loss(model, batches[0], Reference())


def test_a_missing_parent_is_refused(model: Any, batches: list[Batch]) -> None:
    retain = next(batch for batch in batches if batch.retain)
    with pytest.raises(ConfigError, match="needs the parent's states, found none"):
        GradDiff(retain="kl").loss(model, retain, Reference())
    with pytest.raises(ValueError, match="has no retain rows"):
        GradDiff().loss(model, replace(retain, retain=None), Reference())


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="retain_weight must not be below zero"):
        GradDiff(retain_weight=-1.0)
