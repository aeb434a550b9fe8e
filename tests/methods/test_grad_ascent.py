"""Gradient ascent is minus the answers' loss, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from plain_formulas import assert_same, mean_nll, sides, total

from mlflow_unlearn.methods.grad_ascent import GradAscent
from mlflow_unlearn.protocols import Batch, Reference


def test_loss_is_minus_the_mean_over_answer_tokens(model: Any, batches: list[Batch]) -> None:
    forget, _ = sides(batches)
    assert_same(model, total(GradAscent(), model, batches, Reference()), -mean_nll(model, forget))


def test_retained_records_are_not_looked_at(model: Any, batches: list[Batch]) -> None:
    assert not GradAscent().needs.retain
    with pytest.raises(ValueError, match="no forget rows; this method asks for no retained records"):
        GradAscent().loss(model, batches[-1], Reference())
