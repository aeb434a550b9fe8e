"""Micro-batches are only a way of computing: the optimiser batch, its order and its loss stay what they were."""

from __future__ import annotations

from itertools import islice

import torch
from hypothesis import given
from hypothesis import strategies as st

from mlflow_unlearn.engine.batches import (
    Sets,
    batches_of,
    collate,
    micro_batches,
    shuffled_cycle,
    steps_per_epoch,
    training_plan,
    unlearning_plan,
)
from mlflow_unlearn.engine.forward import IGNORED
from mlflow_unlearn.params import OptimiserParams
from mlflow_unlearn.protocols import Batch, Example


def training_steps(data: list[Example], optimiser: OptimiserParams, seed: int) -> list[list[Batch]]:
    sets = Sets(retain=data, pad=0)
    return [batches_of(rows, sets, optimiser.token_budget) for rows in training_plan(len(data), optimiser, seed)]


def unlearning_steps(forget: list[Example], retain: list[Example], optimiser: OptimiserParams, seed: int) -> list[list[Batch]]:
    sets = Sets(forget=forget, retain=retain, pad=0)
    return [batches_of(rows, sets, optimiser.token_budget) for rows in unlearning_plan(len(forget), len(retain), optimiser, seed)]


examples = st.lists(
    st.integers(1, 6).flatmap(
        lambda prompt: st.builds(lambda n: Example(tokens=tuple(range(1, prompt + n + 1)), prompt_length=prompt), st.integers(1, 9))
    ),
    min_size=1,
    max_size=30,
)
settings = st.builds(
    OptimiserParams, epochs=st.integers(1, 3), learning_rate=st.just(1e-3), batch_size=st.integers(1, 9), token_budget=st.integers(1, 64)
)


def test_collate_pads_on_the_right_and_labels_answers_only() -> None:
    rows = collate([Example(tokens=(7, 8, 9), prompt_length=2), Example(tokens=(4, 5), prompt_length=1)], [1, 0], pad=0)
    assert rows.input_ids.tolist() == [[4, 5, 0], [7, 8, 9]]
    assert rows.attention_mask.tolist() == [[1, 1, 0], [1, 1, 1]]
    assert rows.labels.tolist() == [[IGNORED, 5, IGNORED], [IGNORED, IGNORED, 9]]
    assert rows.index.tolist() == [1, 0]


@given(examples, st.integers(1, 64))
def test_micro_batches_partition_the_rows_within_the_budget(data: list[Example], budget: int) -> None:
    pieces = micro_batches(data, range(len(data)), budget, pad=0)
    assert sorted(i for piece in pieces for i in piece.index.tolist()) == list(range(len(data)))
    assert all(piece.input_ids.numel() <= budget or len(piece.index) == 1 for piece in pieces)


@given(examples, settings)
def test_each_training_epoch_passes_over_every_record_once(data: list[Example], optimiser: OptimiserParams) -> None:
    steps = training_steps(data, optimiser, 0)
    per_epoch = steps_per_epoch(len(data), optimiser)
    assert len(steps) == optimiser.epochs * per_epoch
    for epoch in range(optimiser.epochs):
        seen = [i for step in steps[epoch * per_epoch : (epoch + 1) * per_epoch] for b in step if b.retain for i in b.retain.index.tolist()]
        assert sorted(seen) == list(range(len(data)))


@given(examples, examples, settings)
def test_totals_are_those_of_the_whole_optimiser_batch(forget: list[Example], retain: list[Example], optimiser: OptimiserParams) -> None:
    for step in unlearning_steps(forget, retain, optimiser, 0):
        forgets, retains = [b.forget for b in step if b.forget], [b.retain for b in step if b.retain]
        labels = [sum(int((rows.labels != IGNORED).sum()) for rows in side) for side in (forgets, retains)]
        assert {(b.forget_tokens, b.retain_tokens) for b in step} == {tuple(labels)}
        assert {b.forget_records for b in step} == {sum(len(rows.index) for rows in forgets)} == {sum(len(rows.index) for rows in retains)}


@given(examples, settings, st.integers(0, 5))
def test_the_token_budget_does_not_change_which_records_meet(data: list[Example], optimiser: OptimiserParams, seed: int) -> None:
    wide = OptimiserParams(epochs=optimiser.epochs, learning_rate=1e-3, batch_size=optimiser.batch_size, token_budget=10**6)
    meetings = [
        [sorted(i for b in step if b.retain for i in b.retain.index.tolist()) for step in training_steps(data, o, seed)] for o in (optimiser, wide)
    ]
    assert meetings[0] == meetings[1]


@given(st.integers(1, 20), st.integers(0, 5))
def test_a_shuffled_cycle_repeats_nothing_within_a_pass(size: int, seed: int) -> None:
    drawn = list(islice(shuffled_cycle(size, torch.Generator().manual_seed(seed)), 2 * size))
    assert sorted(drawn[:size]) == sorted(drawn[size:]) == list(range(size))


def test_without_retain_only_forget_rows_come() -> None:
    optimiser = OptimiserParams(epochs=1, learning_rate=1e-3)
    (step,) = unlearning_steps([Example(tokens=(1, 2), prompt_length=1)], [], optimiser, 0)
    assert [batch.retain for batch in step] == [None]


PREFIX = tuple(range(1, 8 + 1))


def test_shared_leading_tokens_end_before_the_last_prompt_token_of_any_row() -> None:
    """The last prompt token predicts the answer, so it has to run in its own row."""
    whole = [Example(tokens=(*PREFIX, 20), prompt_length=len(PREFIX)), Example(tokens=(*PREFIX, 21, 22), prompt_length=len(PREFIX) + 1)]
    longer = [Example(tokens=(*PREFIX, 9, 20 + i, 30), prompt_length=len(PREFIX) + 2) for i in range(3)]
    assert collate(whole, [0, 1], pad=0).shared == len(PREFIX) - 1
    assert collate(longer, [0, 1, 2], pad=0).shared == len(PREFIX) + 1


def test_a_single_row_and_unequal_starts_share_nothing() -> None:
    rows = [Example(tokens=(*PREFIX, 20 + i, 21, 22, 23), prompt_length=len(PREFIX) + 2) for i in range(2)]
    assert collate(rows, [0], pad=0).shared == 0
    assert collate(rows, [0, 1], pad=0).shared == len(PREFIX)
    assert collate([*rows, Example(tokens=(9,) * 20, prompt_length=15)], [0, 2], pad=0).shared == 0


def test_alternatives_go_with_their_forget_rows_and_count_in_the_budget() -> None:
    forget = [Example(tokens=(1, 2, 3 + i), prompt_length=2) for i in range(4)]
    others = [Example(tokens=(1, 2, 9, 9, 9 + i), prompt_length=2) for i in range(4)]
    (rows,) = unlearning_plan(4, 0, OptimiserParams(epochs=1, learning_rate=1.0), 0)
    batches = batches_of(rows, Sets(forget=forget, alternatives=others, pad=0), token_budget=16)
    assert [len(b.forget.index) for b in batches if b.forget] == [2, 2]
    assert all(b.forget and b.alternative and torch.equal(b.forget.index, b.alternative.index) for b in batches)
    assert {(b.forget_tokens, b.alternative_tokens, b.forget_sequence_tokens) for b in batches} == {(4, 12, 8)}


def test_a_classifiers_record_carries_one_loss_and_no_label_token() -> None:
    rows = collate([Example(tokens=(4, 5, 6), prompt_length=3, label=1), Example(tokens=(4, 5), prompt_length=2, label=0)], [0, 1], pad=0)
    assert rows.classes is not None
    assert rows.classes.tolist() == [1, 0]
    assert rows.labels.unique().tolist() == [IGNORED]
