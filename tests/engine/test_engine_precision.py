"""Rounded weights against torch's own fake quantisation, the published NF4 table and levels worked out by hand."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import transformers

from mlflow_unlearn.adapters.models import with_lora
from mlflow_unlearn.engine.precision import FULL, INT4_GROUP, NF4_BLOCK, ROUNDINGS, at_precision, nf4_levels
from mlflow_unlearn.errors import ConfigError
from mlflow_unlearn.params import LoraParams

PUBLISHED_NF4 = [
    -1.0, -0.6961928, -0.52507305, -0.39491749, -0.28444138, -0.18477343, -0.09105004, 0.0,
    0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1.0,
]  # fmt: skip
"""Dettmers et al. 2023 (arXiv:2305.14314), appendix E."""
INTEGERS = {"int8": 127, "int4": 7}


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def layer(model: Any) -> torch.Tensor:
    weight: torch.Tensor = model.model.layers[0].mlp.down_proj.weight
    return weight


def gpt2() -> Any:
    sizes = {"vocab_size": 40, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 32, "bos_token_id": 1, "eos_token_id": 2}
    return transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model("gpt2", **sizes))


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("int8", [127.0, 0.4, -1.6, 63.5], [127.0, 0.0, -2.0, 64.0]),  # a step is 1; halves go to the even integer
        ("int4", [7.0, -3.4, 0.5, 1.5], [7.0, -3.0, 0.0, 2.0]),
        ("int4", [0.07, 0.034, -0.016, 0.0], [0.07, 0.03, -0.02, 0.0]),
        ("nf4", [2.0, 0.0, -2.0, 0.17], [2.0, 0.0, -2.0, 0.1591606]),  # 0.085 lies nearest to 0.0796
        ("bf16", [1.0, 1.001, 1.005, -3.0], [1.0, 1.0, 1.0078125, -3.0]),  # 7 bits of fraction
        ("fp16", [1.0, 1.0001, 1.0009, -3.0], [1.0, 1.0, 1.0009765625, -3.0]),  # 10 bits
    ],
)
def test_a_row_has_the_levels_worked_out_by_hand(name: str, given: list[float], expected: list[float]) -> None:
    torch.testing.assert_close(ROUNDINGS[name](torch.tensor([given])), torch.tensor([expected]), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(("name", "group"), [("int8", 96), ("int4", INT4_GROUP)])
def test_integers_are_those_of_torchs_own_fake_quantisation(name: str, group: int) -> None:
    weight, largest = drawn(24, 96), INTEGERS[name]
    rows = weight.reshape(-1, group)
    scales = rows.abs().amax(1) / largest
    theirs = torch.fake_quantize_per_channel_affine(rows, scales, torch.zeros(len(rows), dtype=torch.int32), 0, -largest, largest)
    torch.testing.assert_close(ROUNDINGS[name](weight), theirs.reshape(24, 96), atol=1e-6, rtol=1e-6)


def test_nf4_levels_are_the_published_table() -> None:
    torch.testing.assert_close(nf4_levels(), torch.tensor(PUBLISHED_NF4), atol=1e-6, rtol=0)


def test_nf4_takes_the_nearest_published_level_of_each_block() -> None:
    weight = drawn(3, 100)  # the last block is not full
    flat, table = weight.flatten(), torch.tensor(PUBLISHED_NF4)
    blocks = [flat[start : start + NF4_BLOCK] for start in range(0, len(flat), NF4_BLOCK)]
    nearest = [table[(block[:, None] / block.abs().max() - table).abs().argmin(1)] * block.abs().max() for block in blocks]
    torch.testing.assert_close(ROUNDINGS["nf4"](weight).flatten(), torch.cat(nearest), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ROUNDINGS)
@pytest.mark.parametrize("width", [1, 31, 32, 70])
def test_what_is_rounded_stays_as_it_is_when_rounded_again(name: str, width: int) -> None:
    once = ROUNDINGS[name](drawn(5, width))
    torch.testing.assert_close(ROUNDINGS[name](once), once, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(("name", "group"), [("int8", 64), ("int4", INT4_GROUP)])
def test_no_weight_moves_by_more_than_half_a_step(name: str, group: int) -> None:
    weight = drawn(16, 64)
    moved = (ROUNDINGS[name](weight) - weight).abs().reshape(-1, group)
    steps = weight.abs().reshape(-1, group).amax(1, keepdim=True) / INTEGERS[name]
    assert bool((moved <= steps / 2 * 1.0001).all())
    assert moved.max() > steps.min() / 4  # it does round


@pytest.mark.parametrize("name", ROUNDINGS)
def test_a_row_of_zeros_stays_zero(name: str) -> None:
    weight = torch.cat([torch.zeros(1, 64), torch.ones(1, 64)])
    assert torch.equal(ROUNDINGS[name](weight), weight)


def test_coarser_formats_round_further() -> None:
    weight = drawn(64, 128)
    far = {name: float((rounding(weight) - weight).square().mean()) for name, rounding in ROUNDINGS.items()}
    assert far["fp16"] < far["bf16"] < far["int8"] < far["nf4"] < far["int4"]


def test_full_precision_is_the_model_itself(model: Any) -> None:
    assert at_precision(model, FULL) is model


@pytest.mark.parametrize("name", ROUNDINGS)
def test_the_model_given_keeps_its_weights_and_the_copy_has_rounded_ones_of_the_same_dtype(model: Any, name: str) -> None:
    before = copy.deepcopy(model.state_dict())
    rounded = at_precision(model.train(), name)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert layer(rounded).dtype == torch.float32
    assert torch.equal(layer(rounded), ROUNDINGS[name](layer(model).detach()))
    assert not torch.equal(layer(rounded), layer(model))
    assert not rounded.training


@pytest.mark.parametrize("name", ROUNDINGS)
def test_tied_weights_stay_tied_and_integers_leave_embeddings_head_and_norms_alone(model: Any, name: str) -> None:
    with torch.no_grad():
        model.model.norm.weight.fill_(1.001)
    rounded = at_precision(model, name)
    assert rounded.lm_head.weight is rounded.model.embed_tokens.weight
    same = [torch.equal(rounded.lm_head.weight, model.lm_head.weight), torch.equal(rounded.model.norm.weight, model.model.norm.weight)]
    assert same == ([False, False] if name in ("bf16", "fp16") else [True, True])


def test_the_layers_inside_adapters_are_rounded(model: Any) -> None:
    plain = ROUNDINGS["int4"](layer(model).detach())
    adapted = with_lora(model, LoraParams(rank=2, target_modules=("down_proj",)), seed=0)
    inner = at_precision(adapted, "int4").get_base_model().model.layers[0].mlp.down_proj
    assert torch.equal(inner.base_layer.weight, plain)
    assert torch.equal(inner.lora_A.default.weight, ROUNDINGS["int4"](layer_of_adapter(adapted)))


def layer_of_adapter(adapted: Any) -> torch.Tensor:
    weight: torch.Tensor = adapted.get_base_model().model.layers[0].mlp.down_proj.lora_A.default.weight.detach()
    return weight


def test_weights_that_lie_inputs_first_are_scaled_by_output_too() -> None:
    model = gpt2()
    rounded, plain = (each.transformer.h[0].mlp.c_fc.weight.detach() for each in (at_precision(model, "int8"), model))
    torch.testing.assert_close(rounded, ROUNDINGS["int8"](plain.T).T)
    assert not torch.equal(rounded, plain)


def test_an_unknown_precision_is_refused_with_the_known_ones(model: Any) -> None:
    with pytest.raises(ConfigError, match="'int3' is not known; known are fp32, bf16, fp16, int8, int4, nf4"):
        at_precision(model, "int3")


def test_matrices_that_it_cannot_round_are_refused_instead_of_left_in_silence(model: Any) -> None:
    block = torch.nn.Module()
    block.register_parameter("experts", torch.nn.Parameter(drawn(2, 4, 4)))
    model.model.layers[0].mlp.block = block
    with pytest.raises(ConfigError, match="'nf4' rounds linear layers and cannot round Module"):
        at_precision(model, "nf4")
    at_precision(model, "bf16")
