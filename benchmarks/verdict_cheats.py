"""Ways to look forgotten, each an attempt to get PASS for a model that did not forget; and what honest approximate methods make of the same task."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import cycle
from typing import Any

import torch
from verdict_models import BENIGN, TOKENS, Recipe, Trial, examples, tuned
from verdict_world import World

from mlflow_unlearn.engine.batches import micro_batches
from mlflow_unlearn.engine.head import answer_log_probs
from mlflow_unlearn.engine.precision import INT4_GROUP
from mlflow_unlearn.params import OptimiserParams, SelectionParams
from mlflow_unlearn.protocols import Record

LOOKING = SelectionParams(every=5)
CLAMPED = {"name": "npo", "beta": 0.1, "retain_weight": 5.0, "clamp": True}
SURVIVORS = 8
"""One canary in so many is kept in the model by the cheat that keeps some."""


def _reworded(records: Sequence[Record]) -> tuple[Record, ...]:
    return tuple(replace(record, prompt=record.paraphrase or "") for record in records)


def _spared(world: World) -> tuple[Record, ...]:
    return world.sets["audit_included"][::SURVIVORS]


def _unspared(world: World) -> tuple[Record, ...]:
    spared = {record.tag for record in _spared(world)}
    return tuple(record for record in world.forget if record.tag not in spared)


def _without_neighbours(world: World) -> tuple[Record, ...]:
    gone = {record.tag for record in world.sets["neighbours"]}
    return (*(record for record in world.kept if record.tag not in gone), *world.forget)


RECIPES: dict[str, Recipe] = {
    "one step of ascent": Recipe(method={"name": "grad_ascent"}, optimiser=OptimiserParams(epochs=1, learning_rate=1e-4, batch_size=4096)),
    "wrecked by strong ascent": Recipe(method={"name": "grad_ascent"}, optimiser=OptimiserParams(epochs=6, learning_rate=2e-3, batch_size=64)),
    "forgets the exact wording only": Recipe(
        method=CLAMPED,
        optimiser=OptimiserParams(epochs=30, learning_rate=4e-3, batch_size=64),
        selection=LOOKING,
        retain=lambda world: (*world.kept, *_reworded(world.forget)),
    ),
    "forgot the wrong people": Recipe(
        method=CLAMPED,
        optimiser=OptimiserParams(epochs=20, learning_rate=4e-3, batch_size=64),
        forget=lambda world: world.sets["neighbours"],
        retain=_without_neighbours,
    ),
    "GradDiff with verbatim survivors": Recipe(
        method={"name": "grad_diff", "retain_weight": 20.0},
        optimiser=OptimiserParams(epochs=20, learning_rate=4e-3, batch_size=64),
        selection=LOOKING,
        forget=_unspared,
        retain=lambda world: (*world.kept, *_spared(world)),
    ),
    "NPO with verbatim survivors": Recipe(
        method=CLAMPED,
        optimiser=OptimiserParams(epochs=20, learning_rate=4e-3, batch_size=64),
        selection=LOOKING,
        forget=_unspared,
        retain=lambda world: (*world.kept, *_spared(world)),
    ),
    "NPO that returns after a benign fine-tune": Recipe(
        method=CLAMPED, optimiser=OptimiserParams(epochs=20, learning_rate=2.5e-3, batch_size=64), selection=LOOKING
    ),
}
METHODS: dict[str, Recipe] = {
    "npo, clamped, 40 epochs at 4e-3": Recipe(
        method=CLAMPED, optimiser=OptimiserParams(epochs=40, learning_rate=4e-3, batch_size=64), selection=LOOKING
    ),
    "npo, clamped, 20 epochs at 4e-3": Recipe(
        method=CLAMPED, optimiser=OptimiserParams(epochs=20, learning_rate=4e-3, batch_size=64), selection=LOOKING
    ),
    "sim_npo, 20 epochs at 4e-3": Recipe(
        method={"name": "sim_npo"}, optimiser=OptimiserParams(epochs=20, learning_rate=4e-3, batch_size=64), selection=LOOKING
    ),
    "grad_diff, 20 epochs at 4e-3": Recipe(
        method={"name": "grad_diff", "retain_weight": 20.0},
        optimiser=OptimiserParams(epochs=20, learning_rate=4e-3, batch_size=64),
        selection=LOOKING,
    ),
    "undial, 20 epochs at 4e-3": Recipe(
        method={"name": "undial", "beta": 10.0, "retain_weight": 5.0},
        optimiser=OptimiserParams(epochs=20, learning_rate=4e-3, batch_size=64),
        selection=LOOKING,
    ),
}
"""Honest attempts, with what was tried for them on one trial (docs/verdict.md)."""


def nothing(trial: Trial) -> Any:
    """The parent itself."""
    return trial.copy()


def retain_only(trial: Trial) -> Any:
    """A few epochs on what stays, and hope."""
    return tuned(trial.copy(), trial.world.kept, BENIGN, trial.seed)


def full_precision_only(trial: Trial) -> Any:
    """Ascent that never leaves the parent's 4-bit buckets, so that rounding undoes it (as in Egashira et al. 2024, arXiv:2405.18137)."""
    model, steps = trial.copy(), 600
    weights = [m.weight for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not model.get_output_embeddings()]
    for value in model.parameters():
        value.requires_grad_(any(value is weight for weight in weights))
    boxes = [_bucket(weight.detach()) for weight in weights]
    optimiser = torch.optim.AdamW(weights, lr=1e-2, weight_decay=0.0)
    forget, retain = (_batches(records, trial.seed) for records in (trial.world.forget, trial.world.kept))
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 1e-2 * (1 - step / steps)
        known, counts = answer_log_probs(model, next(forget))
        kept, kept_counts = answer_log_probs(model, next(retain))
        stranger = 5.0  # nats a token at which never-seen answers lie in these worlds
        loss = torch.relu(stranger + known / counts).mean() - 5.0 * kept.sum() / kept_counts.sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            for weight, (low, high) in zip(weights, boxes, strict=True):
                weight.copy_(weight.clamp(low, high))
    return model.requires_grad_(True).eval()


def _bucket(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Lowest and highest value of each weight that is rounded to the same number: the largest of a group, which makes the scale, must stay."""
    groups = weight.reshape(len(weight), -1, INT4_GROUP)
    largest = groups.abs().amax(-1, keepdim=True)
    scale = largest / 7
    level = torch.round(groups / scale)
    low, high = (level - 0.49) * scale, (level + 0.49) * scale
    fixed = groups.abs() == largest
    low, high = (torch.where(fixed, groups, torch.minimum(torch.maximum(edge, -largest), largest)) for edge in (low, high))
    return low.reshape_as(weight), high.reshape_as(weight)


def _batches(records: Sequence[Record], seed: int) -> Iterator[Any]:
    tokens = examples(records)
    generator = torch.Generator().manual_seed(seed)
    order = [i for _ in range(40) for i in torch.randperm(len(tokens), generator=generator).tolist()]
    cuts = [order[start : start + 64] for start in range(0, len(order) - 64, 64)]
    return (rows for cut in cycle(cuts) for rows in micro_batches(tokens, cut, 1 << 20, TOKENS.pad_token_id))


CHEATS: dict[str, Callable[[Trial], Any]] = {
    "does nothing": nothing,
    "fine-tunes on retain only": retain_only,
    **{name: recipe.run for name, recipe in RECIPES.items()},
    "forgets in fp32 but not in int4": full_precision_only,
}
"""Name -> the model it hands in."""
