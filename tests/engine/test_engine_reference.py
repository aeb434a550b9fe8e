"""What the frozen parent says, against one record at a time; asked once, and only about what the run will look at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mlflow_unlearn.adapters.models import with_lora
from mlflow_unlearn.engine.batches import Sets, StepRows
from mlflow_unlearn.engine.machine import Machine
from mlflow_unlearn.engine.ragged import Ragged
from mlflow_unlearn.engine.reference import Asked, mean_losses, reference_of
from mlflow_unlearn.engine.reference_cache import ReferenceCache
from mlflow_unlearn.engine.worker import Worker
from mlflow_unlearn.errors import StoreError
from mlflow_unlearn.params import LoraParams
from mlflow_unlearn.protocols import Example, Needs, Reference

FORGET = [Example(tokens=tuple(range(3 + i, 9 + 2 * i)), prompt_length=2 + i % 3) for i in range(5)]
RETAIN = [Example(tokens=tuple(range(30 + i, 40 + i)), prompt_length=3) for i in range(6)]
PLAN = [StepRows(forget=(0, 1, 2), retain=(4, 1)), StepRows(forget=(3, 4), retain=(1,))]


def ask(model: Any, needs: Needs, machine: Machine | None = None, **about: Any) -> Reference:
    sets = Sets(forget=FORGET, alternatives=about.pop("alternatives", ()), retain=RETAIN, pad=0)
    return reference_of(Worker(model), Asked(needs=needs, sets=sets, plan=PLAN, **about), machine or Machine())


@torch.no_grad()
def logits(model: Any, example: Example) -> torch.Tensor:
    return model(input_ids=torch.tensor([example.tokens])).logits[0]


def log_prob(model: Any, example: Example) -> float:
    lines = logits(model, example).log_softmax(-1)
    return sum(float(lines[t - 1, example.tokens[t]]) for t in range(example.prompt_length, len(example.tokens)))


def test_nothing_is_computed_that_was_not_asked_for(model: Any) -> None:
    calls: list[int] = []
    model.register_forward_hook(lambda *_: calls.append(1))
    model.model.register_forward_hook(lambda *_: calls.append(1))
    assert ask(model, Needs()) == Reference()
    assert calls == []


def test_log_probs_are_sums_over_each_answer_and_each_alternative(model: Any) -> None:
    reference = ask(model, Needs(log_probs=True, alternatives="data"), alternatives=FORGET[::-1])
    expected = torch.tensor([log_prob(model, example) for example in FORGET])
    assert reference.forget.log_probs is not None
    assert reference.alternative.log_probs is not None
    torch.testing.assert_close(reference.forget.log_probs, expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(reference.alternative.log_probs, expected.flip(0), atol=1e-4, rtol=0)


def test_floors_are_the_strangers_losses_or_the_mean_of_the_never_seen(model: Any) -> None:
    swapped = [None, RETAIN[0], None, RETAIN[2], None]
    losses, never_seen = mean_losses(model, RETAIN, 0), mean_losses(model, RETAIN[3:], 0).mean()
    known = ask(model, Needs(floors=True), swapped=swapped, strangers=RETAIN[3:]).forget.floors
    unknown = ask(model, Needs(floors=True), swapped=swapped).forget.floors
    torch.testing.assert_close(known, torch.stack([never_seen, losses[0], never_seen, losses[2], never_seen]), atol=1e-5, rtol=0)
    assert unknown is not None
    assert unknown.isinf().tolist() == [True, False, True, False, True]
    torch.testing.assert_close(unknown[[1, 3]], losses[[0, 2]], atol=1e-5, rtol=0)


def test_states_become_the_parents_logits_and_only_of_records_to_be_drawn(model: Any) -> None:
    reference = ask(model, Needs(answer_states=frozenset({"retain"})))
    states, head = reference.retain.answer_states, reference.head
    assert states is not None
    assert head is not None
    expected = torch.cat([logits(model, RETAIN[i])[2:-1] for i in (1, 4)])
    torch.testing.assert_close(head(states.rows(torch.tensor([1, 4]))), expected, atol=1e-5, rtol=0)
    with pytest.raises(KeyError, match="1 of 2 records were not kept"):
        states.rows(torch.tensor([1, 2]))


def test_states_cover_prompts_where_asked(model: Any) -> None:
    states = ask(model, Needs(answer_states=frozenset({"forget"}), prompts_too=True)).forget.answer_states
    assert states is not None
    assert states.lengths.tolist() == [len(example.tokens) - 1 for example in FORGET]


def test_the_parents_head_stays_when_the_model_changes(model: Any) -> None:
    head = ask(model, Needs(answer_states=frozenset({"retain"}))).head
    before = model.lm_head.weight.detach().clone()
    with torch.no_grad():
        model.lm_head.weight.add_(1.0)
    assert head is not None
    assert torch.equal(head.weight, before)
    assert not any(parameter.requires_grad for parameter in head.parameters())


def test_a_frozen_head_is_not_copied(model: Any) -> None:
    adapted = with_lora(model, LoraParams(rank=2, target_modules=("q_proj",)), seed=0)
    assert ask(adapted, Needs(answer_states=frozenset({"retain"}))).head is model.lm_head


def test_with_lora_the_parent_is_the_model_with_its_adapters_off(model: Any) -> None:
    adapted = with_lora(model, LoraParams(rank=2), seed=0)
    before = ask(adapted, Needs(log_probs=True)).forget.log_probs
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.1)
    changed = ask(adapted, Needs(log_probs=True)).forget.log_probs
    with adapted.disable_adapter():
        off = ask(adapted, Needs(log_probs=True)).forget.log_probs
    torch.testing.assert_close(off, before, atol=1e-6, rtol=1e-6)
    assert not torch.allclose(changed, before, atol=1e-2)  # type: ignore[arg-type]


def cache(folder: Path, digest: str = "parent") -> Machine:
    return Machine(cache=ReferenceCache(folder=folder, model_digest=digest))


def test_what_was_said_once_is_read_the_next_time(model: Any, tmp_path: Path) -> None:
    needs = Needs(log_probs=True, floors=True, answer_states=frozenset({"retain"}))
    first = ask(model, needs, cache(tmp_path), strangers=RETAIN)
    with torch.no_grad():
        model.lm_head.weight.add_(1.0)  # a parent that would say something else
    second = ask(model, needs, cache(tmp_path), strangers=RETAIN)
    assert torch.equal(first.forget.log_probs, second.forget.log_probs)  # type: ignore[arg-type]
    assert torch.equal(first.forget.floors, second.forget.floors)  # type: ignore[arg-type]
    assert torch.equal(first.retain.answer_states.flat, second.retain.answer_states.flat)  # type: ignore[union-attr]


@pytest.mark.parametrize("change", ["weights", "tokens", "template", "precision"])
def test_another_model_text_template_or_precision_is_asked_anew(model: Any, tmp_path: Path, change: str) -> None:
    kept = ReferenceCache(folder=tmp_path, model_digest="parent")
    kept.get("log_probs float32", FORGET, lambda: {"x": torch.zeros(1)})
    other = ReferenceCache(folder=tmp_path, model_digest="other" if change == "weights" else "parent")
    examples = {"tokens": FORGET[::-1], "template": [Example(tokens=e.tokens, prompt_length=1) for e in FORGET]}.get(change, FORGET)
    what = "log_probs bfloat16" if change == "precision" else "log_probs float32"
    assert other.get(what, examples, lambda: {"x": torch.ones(1)})["x"].item() == 1.0


@pytest.mark.parametrize("change", ["weights in bfloat16", "configuration"])
def test_a_parent_that_computes_otherwise_is_asked_anew(model: Any, tmp_path: Path, change: str) -> None:
    first = ask(model, Needs(log_probs=True), cache(tmp_path)).forget.log_probs
    if change == "configuration":
        model.config.rms_norm_eps = 0.1
    else:
        model.to(torch.bfloat16)
    second = ask(model, Needs(log_probs=True), cache(tmp_path)).forget.log_probs
    assert len(list(tmp_path.iterdir())) == 2
    assert change == "configuration" or not torch.equal(first, second)  # type: ignore[arg-type]


def test_a_damaged_file_is_computed_again(tmp_path: Path) -> None:
    kept = ReferenceCache(folder=tmp_path, model_digest="parent")
    kept.get("a", FORGET, lambda: {"x": torch.zeros(9)})
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:20])
    assert kept.get("a", FORGET, lambda: {"x": torch.ones(9)})["x"].tolist() == [1.0] * 9


def test_a_disk_that_refuses_is_said_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="what the parent says could not be kept"):
        ReferenceCache(folder=tmp_path / "file", model_digest="p").get("a", FORGET, lambda: {"x": torch.zeros(1)})


def test_ragged_blocks_come_back_whole_joined_or_padded() -> None:
    blocks = [torch.full((n, 2), float(n)) for n in (3, 1, 2)]
    kept = Ragged.of(blocks, owners=[4, 0, 2], records=5)
    assert kept.rows(torch.tensor([2, 4]))[:, 0].tolist() == [2, 2, 3, 3, 3]
    assert kept.padded(torch.tensor([0, 2]), 3)[:, :, 0].tolist() == [[1, 0, 0], [2, 2, 0]]
