"""An adapter a shard over one base in memory: each row is what peft's model with that shard's adapter computes."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import peft
import pytest
import torch
import transformers

from mlflow_unlearn.engine.adapter_bank import AdapterExperts
from mlflow_unlearn.engine.adapter_layers import AdapterStack, adapted_layers
from mlflow_unlearn.engine.batches import collate
from mlflow_unlearn.engine.generation import greedy
from mlflow_unlearn.engine.head import token_log_probs
from mlflow_unlearn.errors import ConfigError
from mlflow_unlearn.params import LoraParams
from mlflow_unlearn.protocols import Example

LORA = LoraParams(rank=4, alpha=8)
SHARDS = (0, 1, 3, 6)
WRITING = {"end": 2, "max_new_tokens": 10, "batch_tokens": 4096}
PROMPTS = [[3 + (7 * i + j) % 90 for j in range(3 + i % 5)] for i in range(12)]
UNEVEN = [6, 0, 3, 3, 0, 0, 6, 1, 3, 3, 0, 3]
EVEN = [shard for shard in SHARDS for _ in range(3)]


@pytest.fixture(scope="module")
def base() -> Any:
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    torch.default_generator.manual_seed(0)
    config = transformers.AutoConfig.for_model("llama", vocab_size=100, pad_token_id=0, bos_token_id=1, eos_token_id=2, **shape)
    return transformers.AutoModelForCausalLM.from_config(config).eval()


@pytest.fixture(scope="module")
def adapters(base: Any) -> dict[int, dict[str, torch.Tensor]]:
    """Far enough from the base to say other things."""
    stack = AdapterStack(adapted_layers(base, LORA), len(SHARDS), torch.device("cpu"))
    stack.rows.normal_(std=0.3, generator=torch.Generator().manual_seed(1))
    return {shard: stack.adapter(row) for row, shard in enumerate(SHARDS)}


@pytest.fixture(scope="module")
def under_peft(base: Any, adapters: Mapping[int, Mapping[str, torch.Tensor]]) -> dict[int, Any]:
    """The real library's model of each shard."""

    def loaded(weights: Mapping[str, torch.Tensor]) -> Any:
        with warnings.catch_warnings(action="ignore"):  # peft asks transformers 5 under an old name
            wrapped = peft.get_peft_model(copy.deepcopy(base), peft.LoraConfig(r=4, lora_alpha=8, target_modules="all-linear"))
        found = peft.set_peft_model_state_dict(wrapped, dict(weights))
        assert not found.unexpected_keys
        assert not [name for name in found.missing_keys if "lora_" in name]
        return wrapped.eval()

    return {shard: loaded(weights) for shard, weights in adapters.items()}


@pytest.fixture(scope="module")
def experts(base: Any, adapters: Any) -> AdapterExperts:
    return AdapterExperts(base, adapters, LORA)


def written(experts: AdapterExperts, shards: Sequence[int]) -> list[list[int]]:
    return greedy(lambda rows: experts.routed([shards[i] for i in rows]), PROMPTS, **WRITING)


@pytest.mark.parametrize("shards", [UNEVEN, EVEN, [3] * 12, [0, 6] * 6], ids=["uneven", "even", "one shard", "far apart"])
def test_every_row_is_answered_as_peft_answers_with_its_shards_adapter(
    experts: AdapterExperts, under_peft: dict[int, Any], shards: list[int]
) -> None:
    alone = {shard: greedy(under_peft[shard], PROMPTS, **WRITING) for shard in set(shards)}
    assert written(experts, shards) == [alone[shard][i] for i, shard in enumerate(shards)]


@torch.no_grad()
@pytest.mark.parametrize("length", [1, 20])
@pytest.mark.parametrize("shards", [UNEVEN, EVEN], ids=["uneven", "even"])
def test_routed_logits_are_pefts(experts: AdapterExperts, under_peft: dict[int, Any], shards: list[int], length: int) -> None:
    tokens = torch.randint(3, 100, (len(shards), length), generator=torch.Generator().manual_seed(0))
    routed = experts.routed(shards)(input_ids=tokens, use_cache=True).logits
    for row, shard in enumerate(shards):
        torch.testing.assert_close(routed[row], under_peft[shard](input_ids=tokens[row : row + 1]).logits[0], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_cache_keeps_the_routing_when_rows_are_dropped(experts: AdapterExperts, under_peft: dict[int, Any]) -> None:
    tokens = torch.randint(3, 100, (len(UNEVEN), 6), generator=torch.Generator().manual_seed(0))
    model, kept = experts.routed(UNEVEN), torch.tensor([1, 4, 7, 8, 11])
    cache = model(input_ids=tokens[:, :5], use_cache=True).past_key_values
    cache.batch_select_indices(kept)
    after = model(input_ids=tokens[kept, 5:], past_key_values=cache, use_cache=True).logits
    for place, row in enumerate(kept.tolist()):
        whole = under_peft[UNEVEN[row]](input_ids=tokens[row : row + 1]).logits[0, -1]
        torch.testing.assert_close(after[place, -1], whole, atol=1e-5, rtol=1e-5)


def test_an_expert_scores_as_pefts_model(experts: AdapterExperts, under_peft: dict[int, Any]) -> None:
    rows = collate([Example(tokens=tuple(range(3, 15 + i)), prompt_length=4) for i in range(3)], [0, 1, 2], 0)
    for shard in SHARDS:
        torch.testing.assert_close(token_log_probs(experts.expert(shard), rows)[0], token_log_probs(under_peft[shard], rows)[0], atol=1e-5, rtol=1e-5)


def test_one_base_is_in_memory_and_nothing_of_it_changes(base: Any, experts: AdapterExperts) -> None:
    before = copy.deepcopy(base.state_dict())
    tensors = {value.data_ptr() for value in base.parameters()}
    for model in (experts.expert(0), experts.expert(6), experts.routed(UNEVEN)):
        assert {value.data_ptr() for value in model.parameters()} == tensors
    written(experts, UNEVEN)
    assert all(torch.equal(value, before[name]) for name, value in base.state_dict().items())


@torch.no_grad()
def test_a_copy_of_an_expert_computes_with_its_own_weights(experts: AdapterExperts) -> None:
    tokens, model = torch.arange(3, 9)[None], experts.expert(1)
    twin, before = copy.deepcopy(model), model(input_ids=tokens).logits
    for parameter in twin.parameters():
        parameter.mul_(0.5)
    assert torch.equal(model(input_ids=tokens).logits, before)
    assert not torch.allclose(twin.model.layers[0].mlp.up_proj(torch.ones(1, 32)), model.model.layers[0].mlp.up_proj(torch.ones(1, 32)))


@torch.no_grad()
def test_half_precision_answers_near_single(base: Any, adapters: Any, experts: AdapterExperts) -> None:
    half = AdapterExperts(copy.deepcopy(base).to(torch.bfloat16), adapters, LORA)
    tokens = torch.arange(3, 9).expand(12, 6)
    found = half.routed(UNEVEN)(input_ids=tokens).logits
    assert found.dtype == torch.bfloat16
    assert (found.float() - experts.routed(UNEVEN)(input_ids=tokens).logits).abs().mean() < 0.1


def test_no_adapter_at_all_and_an_adapter_of_other_layers_are_refused(base: Any, adapters: Any) -> None:
    with pytest.raises(ConfigError, match="at least one shard"):
        AdapterExperts(base, {}, LORA)
    with pytest.raises(ConfigError, match="not those of this base"):
        AdapterExperts(base, adapters, LoraParams(rank=4, target_modules=("q_proj",)))
