"""Looks at a model that is trained again: they change nothing, and a memory that was hidden comes back while one that is gone does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny_memory import FORGOTTEN, KEPT, LEARNING, NEVER, mean_log_probs, parent, retrained

from mlflow_unlearn.engine.descent import fit
from mlflow_unlearn.engine.relearning import relearned
from mlflow_unlearn.protocols import Example

FEW = replace(LEARNING, epochs=12, batch_size=4)
"""24 steps on eight records."""
GENTLE = replace(LEARNING, epochs=24, batch_size=8, learning_rate=2e-3)


def seldom(step: int, _steps: int) -> bool:
    return step % 10 == 0


@pytest.mark.parametrize(
    ("every", "expected"),
    [(seldom, [0, 10, 20, 24]), (lambda step, steps: step == steps, [0, 24]), (lambda *_: False, [0, 24]), (lambda step, _: step == 1, [0, 1, 24])],
)
def test_it_stops_before_the_first_step_where_it_was_asked_to_and_at_the_end(every: Callable[[int, int], bool], expected: list[int]) -> None:
    assert list(relearned(retrained(), KEPT, FEW, 0, 0, every)) == expected


def test_looking_changes_nothing_of_what_is_learned() -> None:
    looked_at, plain = retrained().train(), retrained()
    for _ in relearned(looked_at, FORGOTTEN, FEW, 3, 0, lambda *_: True):
        assert not looked_at.training
        torch.rand(5)
        mean_log_probs(looked_at, NEVER)
    for _ in fit(plain, FORGOTTEN, FEW, 3, 0):
        pass
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(looked_at.parameters(), plain.parameters(), strict=True))
    assert not looked_at.training


def dazed(model: Any) -> Any:
    """So much noise on the last layer that what is known shows in nothing that is said."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in (each for each in model.model.layers[-1].parameters() if each.ndim > 1):
            weight.add_(0.4 * torch.randn(weight.shape, generator=generator))
    return model


@pytest.mark.parametrize("lesson", [KEPT, FORGOTTEN[:4]], ids=["what stays", "half of what was forgotten"])
def test_a_memory_that_was_hidden_comes_back_and_one_that_is_gone_does_not(lesson: list[Example]) -> None:
    def advantages(model: Any) -> list[float]:
        """Of the other half of the forgotten over what was never seen, nats a token."""
        steps = relearned(model, lesson, GENTLE, 0, 0, seldom)
        return [(mean_log_probs(model, FORGOTTEN[4:]).mean() - mean_log_probs(model, NEVER).mean()).item() for _ in steps]

    hidden, gone = advantages(dazed(parent())), advantages(dazed(retrained()))
    assert hidden[0] < 0.7
    assert hidden[-1] - hidden[0] > 1.2
    assert hidden[-1] - gone[-1] > 0.8
