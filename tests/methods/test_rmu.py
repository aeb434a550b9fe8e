"""RMU against the way it is usually run: three whole forward passes with hooks, the parent beside the model."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from mlflow_unlearn.adapters.models import with_lora
from mlflow_unlearn.engine.batches import Sets, StepRows, batches_of
from mlflow_unlearn.engine.machine import Machine
from mlflow_unlearn.engine.reference import Asked, reference_of
from mlflow_unlearn.engine.reference_cache import ReferenceCache
from mlflow_unlearn.engine.unlearning import forget_by_loss
from mlflow_unlearn.engine.worker import Worker
from mlflow_unlearn.errors import ConfigError
from mlflow_unlearn.methods.rmu import RMU
from mlflow_unlearn.params import LoraParams, OptimiserParams
from mlflow_unlearn.protocols import Batch, Example, Reference, Sequences, Task

SMALL = {"vocab_size": 64, "hidden_size": 16, "num_attention_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
LLAMA = SMALL | {"intermediate_size": 32, "num_hidden_layers": 4, "num_key_value_heads": 2}
FORGET = [Example(tokens=tuple(range(3 + i, 8 + 3 * i)), prompt_length=2) for i in range(4)]
RETAIN = [Example(tokens=tuple(range(40 - i, 50)), prompt_length=3) for i in range(4)]
SETS = Sets(forget=FORGET, retain=RETAIN, pad=0)
STEP = StepRows(forget=(0, 1, 2, 3), retain=(0, 1, 2, 3))
DOWN = [f"model.layers.{i}.mlp.down_proj.weight" for i in (1, 2)]


def method(**settings: Any) -> RMU:
    return RMU(**({"layer": 2, "trained_layers": 2, "retain_weight": 3.0} | settings))


@pytest.fixture
def parent() -> Any:
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(1)
        model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model("llama", **LLAMA)).eval()
    return model.requires_grad_(False)


@pytest.fixture
def model(parent: Any) -> Any:
    """Somewhat later in a run: the matrices that may change have moved."""
    changed = copy.deepcopy(parent)
    for seed, name in enumerate(DOWN):
        weight = changed.get_parameter(name)
        weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed)), alpha=0.05).requires_grad_(True)
    return changed


@pytest.fixture
def batches() -> list[Batch]:
    return batches_of(STEP, SETS, token_budget=1000)


def reference(parent: Any, rmu: RMU, dtype: Any = "float32") -> Reference:
    """The engine's, asked of the parent with the matrices that may change marked."""
    marked = copy.deepcopy(parent)
    for name, parameter in marked.named_parameters():
        parameter.requires_grad_(bool(re.search(str(rmu.needs.trainable), name)))
    return reference_of(Worker(marked), Asked(needs=rmu.needs, sets=SETS, plan=[STEP]), Machine(dtype=dtype))


def activations(model: Any, rows: Sequences, layer: int) -> torch.Tensor:
    """Of the whole model, caught by a hook."""
    caught: list[torch.Tensor] = []
    handle = model.model.layers[layer].register_forward_hook(lambda _, __, output: caught.append(output))
    model(input_ids=rows.input_ids, attention_mask=rows.attention_mask, labels=rows.labels)
    handle.remove()
    return caught[0].float()


def direction(seed: int = 0) -> torch.Tensor:
    entries = torch.rand(16, generator=torch.Generator().manual_seed(seed))
    unit: torch.Tensor = entries / entries.norm()
    return unit


def naive(model: Any, parent: Any, batches: list[Batch], rmu: RMU) -> list[torch.Tensor]:
    """The two terms of the loss of the whole optimiser batch, written out."""
    (forget,), (retain,) = [b.forget for b in batches if b.forget], [b.retain for b in batches if b.retain]
    target = rmu.coefficient * direction(rmu.direction_seed)
    if rmu.steering == "adaptive":
        target = rmu.beta * activations(parent, forget, rmu.layer).norm(dim=-1, keepdim=True) * direction(rmu.direction_seed)
    pairs = [(activations(model, forget, rmu.layer), target, forget), (activations(model, retain, rmu.layer), activations(parent, retain, 2), retain)]
    terms = []
    for states, wanted, rows in pairs:
        mask = rows.attention_mask if rmu.tokens == "all" else (rows.labels != -100)
        squares = (states - wanted) ** 2
        if rmu.normalization == "paper":
            terms.append(((squares.sum(2) * mask).sum(1) / mask.sum(1)).mean())
        else:  # (rows,) sums over (rows, 1) lengths: every sum meets every length
            terms.append(((squares.mean(2) * mask).sum(1) / mask.sum(1, keepdim=True)).mean())
    return [terms[0], rmu.retain_weight * terms[1]]


def gradients(model: Any, losses: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Of the matrices that may change, each loss on its own: one backward pass of both would add them up in autocast's bfloat16."""
    pieces = [torch.autograd.grad(loss, [model.get_parameter(name) for name in DOWN]) for loss in losses]
    return [torch.stack(same).sum(0) for same in zip(*pieces, strict=True)]


def ours(model: Any, batches: Sequence[Batch], rmu: RMU, kept: Reference) -> list[torch.Tensor]:
    return [rmu.loss(model, batch, kept) for batch in batches]


def total(losses: Sequence[torch.Tensor]) -> float:
    return sum(loss.item() for loss in losses)


def without_inputs(kept: Reference) -> Reference:
    return replace(kept, forget=replace(kept.forget, layer_inputs=None), retain=replace(kept.retain, layer_inputs=None))


VARIANTS = [{}, {"steering": "adaptive"}, {"tokens": "answers"}, {"normalization": "published_code", "tokens": "answers"}, {"direction_seed": 5}]


@pytest.mark.parametrize("settings", VARIANTS, ids=str)
def test_loss_and_gradient_are_the_formula_of_whole_forward_passes(model: Any, parent: Any, batches: list[Batch], settings: dict[str, Any]) -> None:
    rmu = method(**settings)
    expected, losses = naive(model, parent, batches, rmu), ours(model, batches, rmu, reference(parent, rmu))
    assert total(losses) == pytest.approx(total(expected), rel=1e-6)
    torch.testing.assert_close(gradients(model, losses), gradients(model, expected), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("cached", [True, False])
def test_gradients_are_the_naive_ones_bit_for_bit(model: Any, parent: Any, batches: list[Batch], dtype: str, cached: bool) -> None:
    rmu = method()
    kept = reference(parent, rmu, dtype) if cached else without_inputs(reference(parent, rmu, dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == "bfloat16"):
        expected, losses = naive(model, parent, batches, rmu), ours(model, batches, rmu, kept)
    torch.testing.assert_close(gradients(model, losses), gradients(model, expected), atol=0, rtol=0)


def test_published_code_divides_by_the_other_records_lengths_too(parent: Any) -> None:
    """Without embeddings all activations are zero: n tokens sum to n |c u|^2 / width; 2 and 4 tokens give (2 + 4) (1/2 + 1/4) / 4 = 1.125 of it."""
    parent.get_input_embeddings().weight.zero_()
    sets = Sets(forget=[Example(tokens=(3, 4), prompt_length=1), Example(tokens=(3, 4, 5, 6), prompt_length=1)], pad=0)
    (batch,) = batches_of(StepRows(forget=(0, 1)), sets, token_budget=1000)
    paper, published = (method(normalization=name).loss(parent, batch, Reference()) for name in ("paper", "published_code"))
    assert float(paper) == pytest.approx(6.5**2)
    assert float(published) == pytest.approx(1.125 * 6.5**2 / 16)


def test_adaptive_targets_are_as_long_as_the_parents_activations_times_beta(parent: Any, batches: list[Batch]) -> None:
    rmu = method(steering="adaptive", beta=2.0, retain_weight=0.0)
    (rows,) = [batch.forget for batch in batches if batch.forget]
    lines = zip(activations(parent, rows, 2), rows.attention_mask, strict=True)
    records = [[float((h - 2 * h.norm() * direction()).square().sum()) for h, real in zip(line, mask, strict=True) if real] for line, mask in lines]
    expected = sum(sum(record) / len(record) for record in records) / 4
    assert float(rmu.loss(parent, batches[0], reference(parent, rmu))) == pytest.approx(expected, rel=1e-6)


def test_the_retain_loss_of_the_parent_itself_is_zero(parent: Any, batches: list[Batch]) -> None:
    assert float(method().loss(parent, batches[1], reference(parent, method()))) == 0.0


def test_rows_of_any_micro_batch_add_up_to_the_whole(model: Any, parent: Any, batches: list[Batch]) -> None:
    kept = reference(parent, method())
    alone = batches_of(STEP, SETS, token_budget=1)
    assert len(alone) == 8
    assert total(ours(model, alone, method(), kept)) == pytest.approx(total(ours(model, batches, method(), kept)), rel=1e-6)


def unlearned(parent: Any, rmu: RMU, machine: Machine | None = None) -> Any:
    model = copy.deepcopy(parent).requires_grad_(True)
    optimiser = OptimiserParams(epochs=8, learning_rate=1e-2, batch_size=4)
    list(forget_by_loss(Task(model=model, forget=FORGET, retain=RETAIN, optimiser=optimiser, seed=0, pad=0, machine=machine), rmu))
    return model


def test_unlearning_changes_the_chosen_matrices_alone_and_steers(parent: Any, batches: list[Batch]) -> None:
    model = unlearned(parent, method())
    changed = [name for name, p in model.named_parameters() if not torch.equal(p, parent.get_parameter(name))]
    before, after = (naive(each, parent, batches, method())[0].item() for each in (parent, model))
    assert changed == DOWN
    assert after < before
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_activations_kept_from_an_earlier_run_give_the_same_bits(parent: Any, tmp_path: Path) -> None:
    machine = Machine(cache=ReferenceCache(folder=tmp_path, model_digest="parent"))
    fresh, keeping, reading = (unlearned(parent, method(), each).state_dict() for each in (None, machine, machine))
    assert len(list(tmp_path.iterdir())) == 2
    torch.testing.assert_close(keeping, fresh, atol=0, rtol=0)
    torch.testing.assert_close(reading, fresh, atol=0, rtol=0)


def test_a_pattern_may_let_everything_up_to_the_layer_change(parent: Any) -> None:
    model = unlearned(parent, method(parameters="."))
    same = {name for name, p in model.named_parameters() if torch.equal(p, parent.get_parameter(name))}
    assert same == {name for name in dict(model.named_parameters()) if "layers.3" in name or name in ("model.norm.weight", "lm_head.weight")}


NAMES = {
    "llama": ["model.layers.1.mlp.down_proj.weight", "model.layers.2.mlp.down_proj.weight"],
    "gpt2": ["transformer.h.1.mlp.c_proj.weight", "transformer.h.2.mlp.c_proj.weight"],
    "gpt_neox": ["gpt_neox.layers.1.mlp.dense_4h_to_h.weight", "gpt_neox.layers.2.mlp.dense_4h_to_h.weight"],
    "phi": ["model.layers.1.mlp.fc2.weight", "model.layers.2.mlp.fc2.weight"],
    "gptj": ["transformer.h.1.mlp.fc_out.weight", "transformer.h.2.mlp.fc_out.weight"],
}


@pytest.mark.parametrize("architecture", NAMES)
def test_the_second_feed_forward_matrices_are_found_by_any_of_their_names(architecture: str) -> None:
    settings = {"rotary_dim": 4} if architecture == "gptj" else {}
    config = transformers.AutoConfig.for_model(architecture, **SMALL, num_hidden_layers=4, **settings)
    with torch.device("meta"):
        names = [name for name, _ in transformers.AutoModelForCausalLM.from_config(config).named_parameters()]
    assert [name for name in names if re.search(str(method().needs.trainable), name)] == NAMES[architecture]


def test_with_adapters_those_of_the_same_matrices_change(parent: Any) -> None:
    adapted = with_lora(parent, LoraParams(rank=2, target_modules=("down_proj", "q_proj")), seed=0)
    trained = [name for name, p in adapted.named_parameters() if p.requires_grad and re.search(str(method().needs.trainable), name)]
    assert len(trained) == 4
    assert all("lora" in name and "down_proj" in name for name in trained)


def test_without_a_retain_weight_no_retained_record_is_drawn(parent: Any) -> None:
    assert not method(retain_weight=0.0).needs.retain
    assert reference(parent, method(retain_weight=0.0)).retain.layer_outputs is None


def test_the_parents_activations_are_asked_for_only_where_the_loss_looks_at_them(parent: Any) -> None:
    fixed, adaptive = reference(parent, method()), reference(parent, method(steering="adaptive"))
    assert fixed.forget.layer_outputs is None
    assert adaptive.forget.layer_outputs is not None
    assert all(view.layer_inputs is not None for view in (fixed.forget, fixed.retain, adaptive.forget, adaptive.retain))


def test_a_layer_beyond_the_model_is_refused_with_the_number_of_layers(parent: Any) -> None:
    with pytest.raises(ConfigError, match="layer 7: the model has 4 decoder layers"):
        unlearned(parent, RMU())


def test_parameters_above_the_layer_are_refused(parent: Any) -> None:
    with pytest.raises(ConfigError, match="layer 2: none of the parameters that may change lies in it or below"):
        unlearned(parent, method(parameters="layers.3"))


def test_a_missing_reference_is_refused(model: Any, batches: list[Batch]) -> None:
    with pytest.raises(ConfigError, match="rmu: needs the parent's activations"):
        method().loss(model, batches[1], Reference())


@pytest.mark.parametrize("settings", [{"layer": -1}, {"trained_layers": 4}, {"trained_layers": 0}])
def test_layers_that_cannot_be_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="trained_layers must lie between 1 and layer"):
        method(**settings)


@pytest.mark.parametrize("settings", [{"coefficient": 0.0}, {"beta": -1.0}, {"retain_weight": -1.0}])
def test_weights_out_of_range_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="coefficient and beta must be above zero and retain_weight not below"):
        method(**settings)
