"""Adapters of several shards trained side by side: every shard's bits are those it has alone, and its numbers those that peft's adapter has."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import peft
import pytest
import torch
import transformers

from mlflow_unlearn.engine import adapter_pass, together
from mlflow_unlearn.engine.batches import collate
from mlflow_unlearn.engine.checkpoints import Checkpoint
from mlflow_unlearn.engine.descent import fit
from mlflow_unlearn.engine.machine import Machine
from mlflow_unlearn.engine.together import SliceRun, train_slices
from mlflow_unlearn.errors import ConfigError, DivergedError, UnlearnError
from mlflow_unlearn.params import LoraParams, OptimiserParams
from mlflow_unlearn.protocols import Example

LORA = LoraParams(rank=4, alpha=8)
OPTIMISER = OptimiserParams(epochs=2, learning_rate=1e-2, batch_size=3, token_budget=100, schedule="linear")
TINY = {"vocab_size": 301, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
SHAPES: dict[str, dict[str, Any]] = {
    "llama": {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 64,
    },
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 50, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
}


def base(kind: str = "llama") -> Any:
    torch.default_generator.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(kind, **TINY, **SHAPES[kind])).eval()


def records(shard: int, count: int, shared: int = 0) -> list[Example]:
    """Of unequal lengths; with `shared` leading tokens alike they run in packs."""
    draw = torch.Generator().manual_seed(shard)
    made = []
    for i in range(count):
        body = torch.randint(3, 301, (6 + (5 * i + shard) % 12,), generator=draw).tolist()
        made.append(Example(tokens=(*range(3, 3 + shared), *body), prompt_length=shared + 2 + i % 3))
    return made


def run(shard: int, count: int, start: Checkpoint | None = None, shared: int = 0, **settings: Any) -> SliceRun:
    optimiser = OptimiserParams(**vars(OPTIMISER) | settings)
    return SliceRun(shard=shard, examples=records(shard, count, shared), seed=10 + shard, optimiser=optimiser, start=start)


def ends(model: Any, runs: Sequence[SliceRun], how: Any = "on", lora: LoraParams = LORA, machine: Machine | None = None) -> dict[int, Checkpoint]:
    steps = train_slices(model, lora, runs, 0, machine or Machine(), how)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def same(one: Checkpoint, other: Checkpoint) -> bool:
    moments = [each.optimiser["state"][0] for each in (one, other)]
    weights = [each.weights for each in (one, other)]
    return one.history == other.history and all(torch.equal(a[name], b[name]) for a, b in (moments, weights) for name in a)


def assert_alone_as_in_company(model: Any, runs: Sequence[SliceRun], lora: LoraParams = LORA, machine: Machine | None = None) -> None:
    company = ends(model, runs, "on", lora, machine)
    assert all(same(company[each.shard], ends(model, [each], "off", lora, machine)[each.shard]) for each in runs)


@pytest.fixture
def shared_passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Adapters in each pass."""
    sizes: list[int] = []
    add = adapter_pass.AdapterPass.add
    monkeypatch.setattr(adapter_pass.AdapterPass, "add", lambda work, parts: sizes.append(len(parts)) or add(work, parts))
    return sizes


@pytest.mark.parametrize("kind", list(SHAPES))
def test_unequal_shards_have_the_bits_that_they_have_alone(kind: str, shared_passes: list[int]) -> None:
    assert_alone_as_in_company(base(kind), [run(0, 7), run(2, 3), run(5, 9), run(6, 7)])
    assert max(shared_passes) >= 3


def test_a_state_carried_over_goes_on_with_the_bits_that_it_has_alone() -> None:
    model = base()
    first = ends(model, [run(shard, 4) for shard in range(3)])
    assert_alone_as_in_company(model, [run(shard, 6, start=first[shard] if shard else None) for shard in range(3)])


def test_dropout_is_each_shards_own() -> None:
    dropping = LoraParams(rank=4, alpha=8, dropout=0.3)
    assert_alone_as_in_company(base(), [run(0, 5), run(1, 5)], dropping)
    assert not same(ends(base(), [run(0, 5)], lora=dropping)[0], ends(base(), [run(0, 5)])[0])


def test_activations_made_again_change_no_bit() -> None:
    dropping, again = LoraParams(rank=4, alpha=8, dropout=0.3), Machine(activation_checkpointing="on")
    runs = [run(0, 5), run(1, 5)]
    made_again, kept = ends(base(), runs, lora=dropping, machine=again), ends(base(), runs, lora=dropping)
    assert all(same(made_again[shard], kept[shard]) for shard in kept)


def test_packs_of_records_that_begin_alike_have_the_bits_that_they_have_alone(shared_passes: list[int]) -> None:
    runs = [run(shard, 6, shared=30, batch_size=6, token_budget=600) for shard in range(3)]
    assert_alone_as_in_company(base(), runs)
    assert max(shared_passes) >= 2


def test_a_classifier_has_the_bits_that_it_has_alone(shared_passes: list[int]) -> None:
    config = transformers.AutoConfig.for_model("llama", **TINY, **SHAPES["llama"], num_labels=3)
    model = transformers.AutoModelForSequenceClassification.from_config(config).eval()

    def classed(shard: int) -> SliceRun:
        examples = [Example(tokens=each.tokens, prompt_length=len(each.tokens), label=i % 3) for i, each in enumerate(records(shard, 5))]
        return SliceRun(shard=shard, examples=examples, seed=shard, optimiser=OPTIMISER, start=None)

    assert_alone_as_in_company(model, [classed(0), classed(1)])
    assert not any("score" in name for name in ends(model, [classed(0)])[0].weights)


def test_half_precision_has_the_bits_that_it_has_alone() -> None:
    assert_alone_as_in_company(base(), [run(0, 5), run(1, 5)], machine=Machine(dtype="bfloat16"))


def test_a_start_depends_on_the_seed_of_its_own_shard_only() -> None:
    still = {"learning_rate": 1e-30}
    one, two = ends(base(), [run(3, 3, **still)])[3], ends(base(), [run(1, 3, **still), run(3, 3, **still)])
    assert same(one, two[3])
    names = [name for name in one.weights if "lora_A" in name]
    assert not any(torch.equal(one.weights[name], two[1].weights[name]) for name in names)


def under_peft(model: Any, weights: Mapping[str, torch.Tensor]) -> Any:
    """The real library's model with an adapter."""
    settings = peft.LoraConfig(r=LORA.rank, lora_alpha=LORA.alpha, target_modules="all-linear", fan_in_fan_out=model.config.model_type == "gpt2")
    with warnings.catch_warnings(action="ignore"):  # peft asks transformers 5 under an old name
        wrapped = peft.get_peft_model(copy.deepcopy(model), settings)
    found = peft.set_peft_model_state_dict(wrapped, dict(weights))
    assert not found.unexpected_keys
    assert not [name for name in found.missing_keys if "lora_" in name]
    return wrapped


@pytest.mark.parametrize("kind", list(SHAPES))
@pytest.mark.parametrize("shared", [0, 30], ids=["padded", "packed"])
def test_steps_are_those_of_the_plain_descent_on_pefts_adapter(kind: str, shared: int) -> None:
    model, settings = base(kind), {"batch_size": 6, "token_budget": 600, "shared": shared}
    begun = ends(model, [run(1, 6, learning_rate=1e-30, **settings)])[1]
    wrapped = under_peft(model, begun.weights)
    history = [step.losses for step in fit(wrapped, records(1, 6, shared), run(1, 6, **settings).optimiser, 11, 0)]
    ours = ends(model, [run(1, 6, **settings), run(2, 6, **settings)])[1]
    assert [each["loss"] for each in ours.history] == pytest.approx([each["loss"] for each in history], abs=1e-5)
    assert [each["gradient_norm"] for each in ours.history] == pytest.approx([each["gradient_norm"] for each in history], rel=1e-4)


@pytest.mark.parametrize("kind", list(SHAPES))
def test_peft_loads_the_adapter_and_says_the_same_loss(kind: str) -> None:
    model = base(kind)
    trained = ends(model, [run(0, 6), run(1, 6)])[1]
    rows = collate(records(1, 1), [0], 0)
    logits = under_peft(model, trained.weights)(input_ids=rows.input_ids).logits[0, :-1].log_softmax(-1)
    plain = -logits.gather(1, rows.input_ids[0, 1:, None])[1:].mean().item()
    start = Checkpoint(step=0, weights=trained.weights, optimiser=trained.optimiser, token_budget=1, history=())
    only = SliceRun(shard=1, examples=records(1, 1), seed=0, optimiser=OptimiserParams(epochs=1, learning_rate=1e-9), start=start)
    assert ends(model, [only])[1].history[0]["loss"] == pytest.approx(plain, abs=1e-5)


def test_the_measured_choice_changes_no_bit(shared_passes: list[int]) -> None:
    runs = [run(shard, 9, batch_size=1, epochs=3) for shard in range(4)]
    by_measure, in_turn = ends(base(), runs, "auto"), ends(base(), runs, "off")
    assert all(same(by_measure[shard], in_turn[shard]) for shard in in_turn)
    assert {1, 4} <= set(shared_passes)


def test_shards_run_in_turn_where_sharing_would_change_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    add = adapter_pass.AdapterPass.add

    def other_kernels(work: Any, parts: Any) -> list[float]:
        losses = add(work, parts)
        if len(parts) > 1:
            work.gradients.rows[parts[0].row] *= 1.0 + 1e-6
        return losses

    runs = [run(0, 5), run(1, 5)]
    expected = ends(base(), runs, "off")
    monkeypatch.setattr(adapter_pass.AdapterPass, "add", other_kernels)
    found = ends(base(), runs, "on")
    assert all(torch.equal(found[shard].weights[name], value) for shard in found for name, value in expected[shard].weights.items())
    assert any("in turn" in note for note in found[0].notes)


def test_without_memory_for_all_they_run_in_turn_to_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [run(0, 5), run(1, 5)]
    expected, add = ends(base(), runs, "off"), adapter_pass.AdapterPass.add
    monkeypatch.setattr(adapter_pass.AdapterPass, "add", lambda work, parts: add(work, parts) if len(parts) == 1 else _no_memory())
    found = ends(base(), runs, "on")
    assert all(torch.equal(found[shard].weights[name], value) for shard in found for name, value in expected[shard].weights.items())
    assert any("out of memory" in note for note in found[0].notes)


def test_without_memory_for_one_micro_batch_the_setting_to_change_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter_pass.AdapterPass, "add", lambda work, parts: _no_memory())
    with pytest.raises(UnlearnError, match="token_budget"):
        ends(base(), [run(0, 5)])


def _no_memory() -> list[float]:
    raise torch.OutOfMemoryError("none left")


def test_the_base_and_the_state_that_a_slice_starts_from_stay_as_they_were() -> None:
    model = base()
    before, first = copy.deepcopy(model.state_dict()), ends(model, [run(0, 4)])[0]
    kept = copy.deepcopy(first)
    ends(model, [run(0, 6, start=first)])
    assert same(first, kept)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_no_pass_holds_more_than_the_budget_of_one_micro_batch(shared_passes: list[int]) -> None:
    ends(base(), [run(shard, 4, batch_size=1, token_budget=40) for shard in range(6)])
    assert max(shared_passes) == 2  # of 16 tokens each; longer rows of 32 go alone


@pytest.mark.parametrize("name", ["nothing_here", "lm_head"])
def test_a_layer_that_cannot_have_an_adapter_is_named_with_those_that_can(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}.*q_proj"):
        ends(base(), [run(0, 4)], lora=LoraParams(target_modules=(name,)))


def test_a_start_of_another_rank_is_refused() -> None:
    first = ends(base(), [run(0, 4)])[0]
    with pytest.raises(ConfigError, match="lora"):
        ends(base(), [run(0, 4, start=first)], lora=LoraParams(rank=2))


def test_a_loss_that_is_no_number_names_shard_and_step() -> None:
    model = base()
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(DivergedError, match="shard 4, step 1"):
        ends(model, [run(4, 4)])


def test_sharing_has_to_be_worth_it_in_the_best_of_two_trials() -> None:
    kind = together._Kind(shared=[0.96], in_turn=[1.0])
    assert kind.to_be_tried("auto")
    assert not kind.to_be_tried("on")
    kind = together._Kind(shared=[0.96, 0.94], in_turn=[1.0, 1.1])
    assert not kind.to_be_tried("auto")
    assert kind.ratio == pytest.approx(0.94)


def test_one_trial_is_enough_where_it_is_clear() -> None:
    assert not together._Kind(shared=[0.5], in_turn=[1.0]).to_be_tried("auto")
