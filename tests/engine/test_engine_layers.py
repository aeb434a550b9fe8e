"""A truncated pass against the whole model, bit for bit, over architectures that call their layers in different ways."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import transformers

from mlflow_unlearn.adapters.models import with_lora
from mlflow_unlearn.engine.batches import collate
from mlflow_unlearn.engine.layers import first_trainable_layer, kept_layers, layer_output, require_layer
from mlflow_unlearn.engine.ragged import Ragged
from mlflow_unlearn.errors import ConfigError
from mlflow_unlearn.params import LoraParams
from mlflow_unlearn.protocols import Example, View

SMALL = {
    "vocab_size": 97,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GROUPED = SMALL | {"intermediate_size": 48, "num_key_value_heads": 2}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": GROUPED,
    "qwen2": GROUPED | {"use_sliding_window": True, "max_window_layers": 2, "sliding_window": 8},  # two kinds of layers
    "mistral": GROUPED | {"sliding_window": 8},
    "gemma2": GROUPED | {"sliding_window": 8, "head_dim": 8},
    "phi": GROUPED,
    "gpt_neox": SMALL | {"intermediate_size": 48},
    "gpt2": SMALL | {"n_positions": 64},  # learned positions, arguments by place
    "bloom": SMALL,  # layers put out tuples; slopes instead of positions
    "opt": SMALL | {"ffn_dim": 48, "word_embed_proj_dim": 32},  # the layers lie one module deeper
}
LENGTHS = (13, 20, 9, 17)
DRAWN = torch.randint(3, 97, (4, max(LENGTHS)), generator=torch.Generator().manual_seed(0)).tolist()
ROWS = collate([Example(tokens=tuple(row[:length]), prompt_length=3) for row, length in zip(DRAWN, LENGTHS, strict=True)], range(4), pad=0)
REAL = ROWS.attention_mask.bool()


def fresh(architecture: str) -> Any:
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(0)
        config = transformers.AutoConfig.for_model(architecture, **ARCHITECTURES[architecture])
        return transformers.AutoModelForCausalLM.from_config(config).eval()


@pytest.fixture
def llama() -> Any:
    return fresh("llama")


@torch.no_grad()
def hidden_states(model: Any) -> tuple[torch.Tensor, ...]:
    """What enters layer 0, 1, ... of the whole model, run as anybody would."""
    states: tuple[torch.Tensor, ...] = model(input_ids=ROWS.input_ids, attention_mask=ROWS.attention_mask, output_hidden_states=True).hidden_states
    return states


def both(found: tuple[torch.Tensor | None, torch.Tensor | None]) -> tuple[torch.Tensor, torch.Tensor]:
    inputs, outputs = found
    assert inputs is not None
    assert outputs is not None
    return inputs, outputs


def kept(inputs: torch.Tensor) -> View:
    return View(layer_inputs=Ragged.of([line[:length] for line, length in zip(inputs, LENGTHS, strict=True)], range(4), 4))


@contextmanager
def called(layers: torch.nn.ModuleList) -> Iterator[list[int]]:
    """Which layers run inside."""
    seen: list[int] = []
    handles = [layer.register_forward_hook(lambda *_, i=i: seen.append(i)) for i, layer in enumerate(layers)]
    yield seen
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_truncated_and_continued_passes_are_the_whole_models_bit_for_bit(architecture: str) -> None:
    model = fresh(architecture)
    whole = hidden_states(model)
    inputs, outputs = both(kept_layers(model, ROWS, first=1, layer=2))
    continued = layer_output(model, ROWS, 2, kept(inputs), first=1)
    assert torch.equal(inputs[REAL], whole[1][REAL])
    assert torch.equal(outputs[REAL], whole[3][REAL])
    assert torch.equal(continued[REAL], whole[3][REAL])
    assert torch.equal(layer_output(model, ROWS, 2, View(), first=1), outputs)
    assert not outputs.requires_grad


@pytest.mark.parametrize(("cached", "expected"), [(True, [1, 2]), (False, [0, 1, 2])])
def test_no_layer_runs_that_is_not_needed(llama: Any, cached: bool, expected: list[int]) -> None:
    view = kept(both(kept_layers(llama, ROWS, 1, 2))[0]) if cached else View()
    llama.lm_head.register_forward_hook(lambda *_: pytest.fail("the head ran"))
    with called(llama.model.layers) as seen:
        layer_output(llama, ROWS, 2, view, first=1)
    assert seen == expected


def test_a_pass_from_the_bottom_keeps_no_inputs(llama: Any) -> None:
    inputs, outputs = kept_layers(llama, ROWS, 0, 3)
    seen: list[torch.Tensor] = []
    llama.model.norm.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    hidden_states(llama)
    assert inputs is None
    assert outputs is not None
    assert torch.equal(outputs[REAL], seen[0][REAL])


def test_where_only_inputs_are_wanted_the_pass_ends_below(llama: Any) -> None:
    with called(llama.model.layers) as seen:
        inputs, outputs = kept_layers(llama, ROWS, 2, None)
    assert seen == [0, 1]
    assert outputs is None
    assert torch.equal(inputs, both(kept_layers(llama, ROWS, 2, 3))[0])  # type: ignore[arg-type]
    assert kept_layers(llama, ROWS, 0, None) == (None, None)


def test_one_layer_may_be_both_the_first_and_the_last(llama: Any) -> None:
    whole = hidden_states(llama)
    inputs, outputs = both(kept_layers(llama, ROWS, 2, 2))
    assert torch.equal(outputs[REAL], whole[3][REAL])
    assert torch.equal(layer_output(llama, ROWS, 2, kept(inputs), 2)[REAL], whole[3][REAL])


@pytest.mark.parametrize("broken", [False, True])
def test_the_model_is_whole_again_afterwards(llama: Any, broken: bool) -> None:
    layers, names = llama.model.layers, [name for name, _ in llama.named_parameters()]
    handle = layers[1].register_forward_pre_hook(lambda *_: 1 / 0) if broken else None
    if handle is None:
        kept_layers(llama, ROWS, 1, 2)
    else:
        with pytest.raises(ZeroDivisionError, match="division"):
            kept_layers(llama, ROWS, 1, 2)
    assert llama.model.layers is layers
    assert [name for name, _ in llama.named_parameters()] == names


@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16])
def test_the_precision_is_the_one_the_model_computes_in(llama: Any, weights: torch.dtype) -> None:
    llama.to(weights)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        whole = hidden_states(llama)
        inputs, outputs = both(kept_layers(llama, ROWS, 1, 2))
        continued = layer_output(llama, ROWS, 2, kept(inputs), 1)
    assert outputs.dtype == whole[3].dtype == weights
    assert torch.equal(outputs[REAL], whole[3][REAL])
    assert torch.equal(continued[REAL], whole[3][REAL])


def test_adapters_run_and_get_the_gradient_of_the_whole_model(llama: Any) -> None:
    adapted = with_lora(llama, LoraParams(rank=2, target_modules=("down_proj",)), seed=0)
    trained = [p for name, p in adapted.named_parameters() if "layers.2" in name and "lora" in name]
    whole = adapted(input_ids=ROWS.input_ids, output_hidden_states=True).hidden_states[3]
    expected = torch.autograd.grad(whole[REAL].square().sum(), trained)
    got = torch.autograd.grad(layer_output(adapted, ROWS, 2, View(), 0)[REAL].square().sum(), trained)
    torch.testing.assert_close(got, expected, atol=0, rtol=0)


def test_recomputed_activations_give_the_same_gradient(llama: Any) -> None:
    def gradients() -> tuple[torch.Tensor, ...]:
        states = layer_output(llama, ROWS, 2, kept(both(kept_layers(llama, ROWS, 1, 2))[0]), 1)
        return torch.autograd.grad(states[REAL].square().sum(), list(llama.model.layers[2].parameters()))

    plain = gradients()
    llama.train().activation_checkpointing_enable()
    torch.testing.assert_close(gradients(), plain, atol=0, rtol=0)


@pytest.mark.parametrize(
    ("trainable", "expected"),
    [("layers.[23].mlp", 2), ("layers.3.self_attn", 3), (".", 0), ("embed_tokens", 0), ("lm_head", 4), (r"layers.2|lm_head", 2)],
)
def test_the_first_layer_is_the_lowest_that_may_change(llama: Any, trainable: str, expected: int) -> None:
    for name, parameter in llama.named_parameters():
        parameter.requires_grad_(bool(re.search(trainable, name)))
    assert first_trainable_layer(llama) == expected


def test_a_head_tied_to_the_embeddings_lies_below_all_layers() -> None:
    model = fresh("gpt2").requires_grad_(False)
    model.lm_head.weight.requires_grad_(True)
    assert first_trainable_layer(model) == 0


@pytest.mark.parametrize("layer", [4, -1])
def test_a_layer_that_the_model_lacks_is_refused_with_their_number(llama: Any, layer: int) -> None:
    with pytest.raises(ConfigError, match=f"layer {layer}: the model has 4 decoder layers"):
        require_layer(llama, layer)


def test_a_layer_below_all_that_may_change_is_refused(llama: Any) -> None:
    with pytest.raises(ConfigError, match="layer 1: none of the parameters that may change lies in it or below"):
        kept_layers(llama, ROWS, first=2, layer=1)


def test_an_architecture_without_a_list_of_layers_is_refused(llama: Any) -> None:
    llama.config.num_hidden_layers = 5
    with pytest.raises(ConfigError, match="no list of 5 decoder layers was found"):
        first_trainable_layer(llama)
