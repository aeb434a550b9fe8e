"""Laws over the directory listings: whoever adds a component is held to them without touching this file."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import mlflow_unlearn
from mlflow_unlearn import catalog
from mlflow_unlearn.config import OptimiserParams
from mlflow_unlearn.engine.batches import unlearning_steps
from mlflow_unlearn.engine.reference import reference_of
from mlflow_unlearn.errors import ConfigError
from mlflow_unlearn.protocols import Example, LossMethod, Reference, StepsMethod, Task
from mlflow_unlearn.records import Claim

METHODS = catalog.names("methods")
LOSS_METHODS = [name for name in METHODS if hasattr(catalog.load("methods", name, "law"), "loss")]
STEPS_METHODS = [name for name in METHODS if name not in LOSS_METHODS]
OPTIMISER = OptimiserParams(epochs=1, learning_rate=1e-2, batch_size=4)
FORGET = [Example(tokens=tuple(range(3 + i, 8 + 2 * i)), prompt_length=2) for i in range(4)]
RETAIN = [Example(tokens=tuple(range(20 - i, 30)), prompt_length=3) for i in range(6)]


@pytest.fixture
def model() -> Any:
    small = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "max_position_embeddings": 64}
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(1)
        config = transformers.AutoConfig.for_model("llama", **small, **tokens, initialised_from="scratch")
        return transformers.AutoModelForCausalLM.from_config(config).eval()


@pytest.fixture
def reference(model: Any) -> Reference:
    return reference_of(model, FORGET, [None] * 4, pad=0)


def total_loss(method: LossMethod, model: Any, reference: Reference) -> torch.Tensor:
    batches = next(unlearning_steps(FORGET, RETAIN, OPTIMISER, 0, 0))
    return torch.stack([method.loss(model, batch, reference) for batch in batches]).sum()


@pytest.mark.parametrize("name", METHODS)
def test_every_method_builds_with_defaults_and_is_frozen(name: str) -> None:
    method = catalog.build("methods", name, where="law")
    assert catalog.name_of(method, "methods") == name
    assert isinstance(method, LossMethod | StepsMethod)
    assert isinstance(method.claim, Claim)
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign"):
        method.claim = Claim.EXACT


@pytest.mark.parametrize("name", METHODS)
def test_every_method_names_its_paper_and_what_it_does_not_guarantee(name: str) -> None:
    text = catalog.load("methods", name, "law").__doc__ or ""
    assert "Paper:" in text
    assert "not guarantee" in text


@pytest.mark.parametrize("name", METHODS)
def test_every_field_has_a_docstring_and_the_file_ends_with_its_export(name: str) -> None:
    source = (Path(mlflow_unlearn.__file__).parent / "methods" / f"{name}.py").read_text()
    component = catalog.load("methods", name, "law")
    assert source.rstrip().endswith(f"EXPORT = {component.__name__}")
    lines = source.splitlines()
    for field in dataclasses.fields(component):
        place = next(i for i, line in enumerate(lines) if line.startswith(f"    {field.name}: "))
        assert lines[place + 1].strip().startswith('"""'), f"methods/{name}.py: {field.name} has no docstring under it"


@pytest.mark.parametrize("name", METHODS)
def test_every_method_refuses_keys_nobody_reads(name: str) -> None:
    with pytest.raises(ConfigError, match="law: unknown key 'never_a_key'"):
        catalog.build("methods", {"name": name, "never_a_key": 1}, where="law")


@pytest.mark.parametrize("name", LOSS_METHODS)
def test_every_loss_is_finite_moves_the_weights_and_leaves_the_reference_alone(name: str, model: Any, reference: Reference) -> None:
    before = copy.deepcopy(reference)
    loss = total_loss(catalog.build("methods", name, where="law"), model, reference)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(bool(parameter.grad is not None and parameter.grad.any()) for parameter in model.parameters())
    assert torch.equal(reference.log_probs, before.log_probs)
    assert torch.equal(reference.floors, before.floors)
    assert not reference.log_probs.requires_grad


@pytest.mark.parametrize("name", LOSS_METHODS)
def test_micro_batches_add_up_to_the_loss_of_the_whole_batch(name: str, model: Any, reference: Reference) -> None:
    method = catalog.build("methods", name, where="law")
    small = dataclasses.replace(OPTIMISER, token_budget=1)
    pieces = [method.loss(model, batch, reference) for batch in next(unlearning_steps(FORGET, RETAIN, small, 0, 0))]
    torch.testing.assert_close(torch.stack(pieces).sum(), total_loss(method, model, reference), atol=1e-5, rtol=1e-5)
    assert len(pieces) == 8


@pytest.mark.parametrize("name", LOSS_METHODS)
def test_every_loss_is_the_same_twice(name: str, model: Any, reference: Reference) -> None:
    method = catalog.build("methods", name, where="law")
    assert torch.equal(total_loss(method, model, reference), total_loss(method, model, reference))


@pytest.mark.parametrize("name", STEPS_METHODS)
def test_every_method_with_its_own_steps_follows_the_seed(name: str, model: Any) -> None:
    method = catalog.build("methods", name, where="law")
    models = [copy.deepcopy(model) for _ in range(2)]
    for changed in models:
        task = Task(model=changed, forget=FORGET, retain=RETAIN[:2], optimiser=OPTIMISER, seed=3, pad=0)
        steps = [progress.step for progress in method.steps(task)]
        assert steps == list(range(1, len(steps) + 1))
    torch.testing.assert_close(models[0].state_dict(), models[1].state_dict(), atol=0, rtol=0)
