"""Which step is kept: utility first, then likeness to the never seen, then the earliest. Tuning data alone is looked at."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mlflow_unlearn.engine.reference import mean_losses
from mlflow_unlearn.engine.selection import Look, Selection, TuningSets
from mlflow_unlearn.engine.worker import Worker
from mlflow_unlearn.errors import DivergedError
from mlflow_unlearn.params import SelectionParams
from mlflow_unlearn.protocols import Example

CANARIES = [Example(tokens=tuple(range(3 + i, 9 + 2 * i)), prompt_length=2) for i in range(6)]
NOTHING = TuningSets(pad=0)


class Told(Selection):
    """A selection that is told what each look sees."""

    def __init__(self, looks: list[tuple[float | None, float | None]], **params: Any) -> None:
        super().__init__(tuning=NOTHING, params=SelectionParams(every=1, **params))
        self.told = [Look(step=step, auc=auc, kept_loss=kept) for step, (auc, kept) in enumerate(looks)]

    def _look(self, worker: Worker, step: int) -> Look:
        return self.told[step]


def chosen(model: Any, looks: list[tuple[float | None, float | None]]) -> int:
    worker, selection = Worker(model), Told(looks, utility_margin=0.1)
    selection.begin(worker)
    for step in range(1, len(looks)):
        selection.look(worker, step)
    assert selection.best is not None
    return selection.best.step


@pytest.mark.parametrize(
    ("looks", "best"),
    [
        ([(1.0, 1.0), (0.9, 1.0), (0.6, 1.05), (0.3, 1.0)], 2),  # nearest to one half, from either side
        ([(1.0, 1.0), (0.8, 1.05), (0.5, 1.2)], 1),  # utility before forgetting
        ([(1.0, 1.0), (0.9, 3.0), (0.5, 2.0), (0.5, 4.0)], 2),  # none keeps it: the least harm
        ([(1.0, 1.0), (0.4, 1.0), (0.6, 1.0)], 1),  # equal: the earlier
        ([(None, 1.0), (None, 1.0), (None, 1.05), (None, 2.0)], 2),  # no canaries: the last that keeps utility
        ([(1.0, None), (0.7, None), (0.6, None)], 2),  # nothing retained to watch
        ([(None, None), (None, None), (None, None)], 2),  # nothing at all: the last
        ([(0.5, 1.0), (0.6, 1.0)], 1),  # the parent is no candidate
    ],
)
def test_the_rule(model: Any, looks: list[tuple[float | None, float | None]], best: int) -> None:
    assert chosen(model, looks) == best


def test_the_best_weights_are_restored(model: Any) -> None:
    worker, selection = Worker(model), Told([(1.0, 1.0), (0.5, 1.0), (0.1, 1.0)])
    selection.begin(worker)
    selection.look(worker, 1)
    best = model.lm_head.weight.detach().clone()
    with torch.no_grad():
        model.lm_head.weight.add_(1.0)
    selection.look(worker, 2)
    selection.restore()
    assert torch.equal(model.lm_head.weight, best)


@pytest.mark.parametrize(("auc", "kept", "met"), [(0.51, 1.0, False), (0.5, 1.0, True), (0.2, 1.0, True), (None, 1.0, False), (0.5, 1.5, False)])
def test_the_target_is_met_once_canaries_are_no_better_known_than_never_seen_ones_and_utility_is_kept(
    model: Any, auc: float | None, kept: float, met: bool
) -> None:
    selection = Told([(0.0, 1.0), (auc, kept)])
    selection.begin(Worker(model))
    assert not selection.target_met()
    selection.look(Worker(model), 1)
    assert selection.target_met() is met


def test_a_look_measures_losses_of_the_tuning_data(model: Any) -> None:
    tuning = TuningSets(included=CANARIES[:2], excluded=CANARIES[2:4], kept=CANARIES[4:], pad=0)
    selection = Selection(tuning=tuning, params=SelectionParams())
    selection.begin(Worker(model))
    losses = mean_losses(model, CANARIES, 0)
    wins = sum(float(losses[i] < losses[j]) for i in (0, 1) for j in (2, 3)) / 4
    assert selection.looks[0].auc == pytest.approx(wins)
    assert selection.looks[0].kept_loss == pytest.approx(float(losses[4:].mean()), rel=1e-5)


def test_a_model_worse_than_guessing_is_ruined(model: Any) -> None:
    selection = Told([(1.0, 1.0), (0.5, 9.0)])
    selection.begin(Worker(model))
    with pytest.raises(DivergedError, match=r"step 1: the loss on retained records is 9.00 nats per token, expected below 5.67"):
        selection.look(Worker(model), 1)


def test_losses_that_are_no_numbers_are_ruin(model: Any) -> None:
    selection = Selection(tuning=TuningSets(kept=CANARIES, pad=0), params=SelectionParams())
    selection.begin(Worker(model))
    with torch.no_grad():
        model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(DivergedError, match="step 4: the model's losses are no longer numbers"):
        selection.look(Worker(model), 4)


@pytest.mark.parametrize(
    ("every", "steps", "looks"),
    [(0, 8, []), (10, 25, [5, 10, 15, 20, 25]), (10, 3, [1, 2, 3]), (2, 5, [1, 2, 3, 4, 5]), (10, 101, [*range(10, 101, 10), 101])],
)
def test_looks_come_every_few_steps_five_times_in_a_short_run_and_after_the_last(every: int, steps: int, looks: list[int]) -> None:
    selection = Selection(tuning=NOTHING, params=SelectionParams(every=every))
    assert [step for step in range(1, steps + 1) if selection.due(step, steps)] == looks
