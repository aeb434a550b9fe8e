"""The label-only head, the shared prefix and the pieces against full logits, written out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers
from torch.nn import functional

from mlflow_unlearn.adapters.models import with_lora
from mlflow_unlearn.engine import head
from mlflow_unlearn.engine.batches import collate
from mlflow_unlearn.engine.forward import IGNORED, PLAIN_HEADS, with_prompts
from mlflow_unlearn.engine.head import Teacher, cross_entropy, divergences, taught, token_log_probs
from mlflow_unlearn.params import LoraParams
from mlflow_unlearn.protocols import Batch, Example, Sequences

SHARED = 8
PREFIX = tuple(3 + i % 7 for i in range(SHARED))
EXAMPLES = [
    Example(tokens=(5, 6, 7, 8, 2), prompt_length=2),
    Example(tokens=(9, 3, 4, 11, 6, 13, 2), prompt_length=5),
    Example(tokens=(4, 2), prompt_length=1),
]
SHARING = [replace(example, tokens=PREFIX + example.tokens, prompt_length=len(PREFIX) + example.prompt_length) for example in EXAMPLES]
SMALL = {"vocab_size": 16, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "max_position_embeddings": 32}
WIDTHS = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
OWN_NAMES = {"gpt2": {"n_embd": 8, "n_layer": 2, "n_head": 2}, "opt": WIDTHS | {"ffn_dim": 16, "word_embed_proj_dim": 8}}
ARCHITECTURES = sorted({*PLAIN_HEADS, "granite", "gemma2"})


def tiny(model_type: str = "llama") -> Any:
    config = transformers.AutoConfig.for_model(model_type, **SMALL, **OWN_NAMES.get(model_type, WIDTHS))
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(3)
        return transformers.AutoModelForCausalLM.from_config(config).eval()


@pytest.fixture
def model() -> Any:
    return tiny()


@pytest.fixture
def rows() -> Sequences:
    return collate(EXAMPLES, [0, 1, 2], pad=0)


@pytest.fixture
def sharing() -> Sequences:
    rows = collate(SHARING, [0, 1, 2], pad=0)
    assert rows.shared == SHARED
    return rows


def naive_log_probs(model: Any, rows: Sequences) -> list[torch.Tensor]:
    """Full logits with the attention mask, then one token after another."""
    logits = model(input_ids=rows.input_ids, attention_mask=rows.attention_mask).logits.log_softmax(-1)
    lines = []
    for i in range(len(rows.labels)):
        places = [t for t in range(1, rows.labels.shape[1]) if rows.labels[i, t] != IGNORED]
        lines.append(torch.stack([logits[i, t - 1, rows.labels[i, t]] for t in places]))
    return lines


def gradients(model: Any, loss: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.autograd.grad(loss, list(model.parameters())))


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_label_only_head_equals_full_logits_in_every_architecture(model_type: str, rows: Sequences) -> None:
    model = tiny(model_type)
    log_probs, owners = token_log_probs(model, rows)
    torch.testing.assert_close(log_probs, torch.cat(naive_log_probs(model, rows)), atol=1e-5, rtol=0)
    assert owners.tolist() == [0, 0, 0, 1, 1, 2]


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_a_shared_prefix_changes_neither_values_nor_gradients_in_any_architecture(model_type: str, sharing: Sequences) -> None:
    model = tiny(model_type)
    log_probs, naive = token_log_probs(model, sharing)[0], torch.cat(naive_log_probs(model, sharing))
    torch.testing.assert_close(log_probs, naive, atol=1e-5, rtol=0)
    weights = torch.arange(1.0, len(naive) + 1)
    torch.testing.assert_close(gradients(model, log_probs @ weights), gradients(model, naive @ weights), atol=1e-5, rtol=1e-5)


def test_the_shared_prefix_runs_once(model: Any, sharing: Sequences) -> None:
    seen: list[tuple[int, ...]] = []
    model.model.layers[0].register_forward_pre_hook(lambda _, args: seen.append(tuple(args[0].shape[:2])))
    token_log_probs(model, sharing)
    assert seen == [(1, SHARED + sum(len(example.tokens) - 1 for example in EXAMPLES))]


def test_recomputed_activations_give_the_same(model: Any, sharing: Sequences) -> None:
    plain = gradients(model, token_log_probs(model, sharing)[0].sum())
    model.activation_checkpointing_enable()
    torch.testing.assert_close(gradients(model.train(), token_log_probs(model, sharing)[0].sum()), plain, atol=1e-5, rtol=1e-5)


def test_label_only_head_has_the_gradient_of_full_logits(model: Any, rows: Sequences) -> None:
    naive = gradients(model, torch.cat(naive_log_probs(model, rows)).sum())
    torch.testing.assert_close(gradients(model, token_log_probs(model, rows)[0].sum()), naive, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("held", [1, 32, 1 << 20])
def test_pieces_of_a_linear_head_give_the_gradients_of_the_plain_formula(bias: bool, held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(head.PIECE_LOGITS, "cpu", held)
    generator = torch.Generator().manual_seed(0)
    linear = torch.nn.Linear(5, 11, bias=bias)
    linear.weight.data = torch.randn(11, 5, generator=generator)
    states, targets = torch.randn(7, 5, generator=generator, requires_grad=True), torch.arange(7)
    leaves, upstream = [states, *linear.parameters()], torch.linspace(-1, 2, 7)
    naive = functional.cross_entropy(linear(states), targets, reduction="none")
    ours = cross_entropy(linear, states, targets)
    torch.testing.assert_close(ours, naive, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(torch.autograd.grad(ours @ upstream, leaves), torch.autograd.grad(naive @ upstream, leaves), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("held", [1, 32, 1 << 20])
def test_a_module_that_is_no_plain_linear_goes_piece_by_piece_too(held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(head.PIECE_LOGITS, "cpu", held)
    inner = torch.nn.Linear(5, 11)
    wrapped = torch.nn.Sequential(inner)
    states, targets = torch.linspace(-1, 1, 35).view(7, 5).requires_grad_(), torch.arange(7)
    ours, plain = (torch.autograd.grad(cross_entropy(module, states, targets).sum(), inner.weight) for module in (wrapped, inner))
    torch.testing.assert_close(ours, plain, atol=1e-6, rtol=1e-5)


def teacher_of(parent: Any, rows: Sequences, penalty: float = 0.0) -> Teacher:
    at = head.answer_states(parent, rows)
    penalties = torch.full((len(at.targets),), penalty) if penalty else None
    return Teacher(states=at.states.detach(), head=parent.lm_head, penalties=penalties)


def naive_divergence(model: Any, parent: Any, rows: Sequences, penalty: float = 0.0) -> torch.Tensor:
    """KL(parent || model) at every token that carries loss, from full logits."""
    terms = []
    ours, theirs = (m(input_ids=rows.input_ids, attention_mask=rows.attention_mask).logits for m in (model, parent))
    for i, t in ((rows.labels[:, 1:] != IGNORED).nonzero()).tolist():
        target = theirs[i, t].detach().clone()
        target[rows.labels[i, t + 1]] -= penalty
        terms.append((target.softmax(-1) * (target.log_softmax(-1) - ours[i, t].log_softmax(-1))).sum())
    return torch.stack(terms)


@pytest.mark.parametrize("held", [1, 1 << 20])
@pytest.mark.parametrize("penalty", [0.0, 3.0])
def test_divergence_from_a_teacher_is_the_plain_formula_with_its_gradient(
    model: Any, rows: Sequences, penalty: float, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(head.PIECE_LOGITS, "cpu", held)
    parent = tiny()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.3)
    teacher = teacher_of(parent, rows, penalty)
    ours, cross = divergences(model, rows, teacher), taught(model, rows, teacher)
    naive = naive_divergence(model, parent, rows, penalty)
    torch.testing.assert_close(ours, naive, atol=1e-6, rtol=1e-5)
    expected = gradients(model, naive.sum())
    torch.testing.assert_close(gradients(model, ours.sum()), expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(gradients(model, cross.sum()), expected, atol=1e-6, rtol=1e-5)


def test_a_model_does_not_diverge_from_itself(model: Any, rows: Sequences) -> None:
    assert divergences(model, rows, teacher_of(model, rows)).abs().max() < 1e-6


def test_with_prompts_every_real_token_but_the_first_carries_loss(rows: Sequences) -> None:
    whole = with_prompts(rows)
    assert (whole.labels[:, 1:] != IGNORED).sum(1).tolist() == [len(example.tokens) - 1 for example in EXAMPLES]


def test_bfloat16_is_no_farther_from_float32_than_the_plain_formula(rows: Sequences) -> None:
    model = tiny()
    exact = torch.cat(naive_log_probs(model, rows)).sum()
    reference = gradients(model, exact)

    def distance(log_probs: torch.Tensor) -> float:
        found = gradients(model, log_probs.sum())
        return float(sum(((a - b) ** 2).sum() for a, b in zip(found, reference, strict=True)) ** 0.5)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours, naive = token_log_probs(model, rows)[0], torch.cat(naive_log_probs(model, rows))
    assert distance(ours) <= 1.1 * distance(naive)


def test_the_head_inside_lora_sees_the_adapters(model: Any, rows: Sequences) -> None:
    adapted = with_lora(model, LoraParams(rank=2), seed=0)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.data.fill_(0.1)
    torch.testing.assert_close(token_log_probs(adapted, rows)[0], torch.cat(naive_log_probs(adapted, rows)), atol=1e-5, rtol=0)


def test_answer_log_probs_are_sums_over_the_answer(model: Any, rows: Sequences) -> None:
    sums, tokens = head.answer_log_probs(model, rows)
    torch.testing.assert_close(sums, torch.stack([line.sum() for line in naive_log_probs(model, rows)]), atol=1e-5, rtol=0)
    assert tokens.tolist() == [3, 2, 1]


@pytest.mark.parametrize("held", [1, 32, 1 << 26])
def test_scores_are_the_log_probs_and_the_most_likely_tokens(model: Any, rows: Sequences, held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(head.PIECE_LOGITS, "cpu", held)
    at = head.answer_states(model, rows)
    log_probs, hits, _ = head.token_scores(at)
    likeliest = model(input_ids=rows.input_ids).logits.argmax(-1)
    torch.testing.assert_close(log_probs, torch.cat(naive_log_probs(model, rows)), atol=1e-5, rtol=0)
    assert hits.tolist() == (likeliest[:, :-1] == rows.labels[:, 1:])[rows.labels[:, 1:] != IGNORED].tolist()
    assert at.rows.tolist() == [0, 0, 0, 1, 1, 2]


def test_retain_nll_is_the_mean_cross_entropy(model: Any, rows: Sequences) -> None:
    logits = model(input_ids=rows.input_ids, attention_mask=rows.attention_mask).logits
    naive = functional.cross_entropy(logits[:, :-1].flatten(0, 1), rows.labels[:, 1:].flatten(), ignore_index=IGNORED)
    torch.testing.assert_close(head.retain_nll(model, Batch(retain=rows, retain_tokens=6)), naive, atol=1e-5, rtol=0)


def test_retain_nll_refuses_a_batch_without_retain(model: Any) -> None:
    with pytest.raises(ValueError, match="has no retain rows"):
        head.retain_nll(model, Batch())


def test_a_classifier_answers_with_its_class(rows: Sequences) -> None:
    config = transformers.AutoConfig.for_model("llama", **SMALL, **WIDTHS, num_labels=3)
    model = transformers.AutoModelForSequenceClassification.from_config(config).eval()
    examples: Sequence[Example] = [replace(e, prompt_length=len(e.tokens), label=i) for i, e in enumerate(EXAMPLES)]
    batch = collate(examples, [0, 1, 2], pad=0)
    logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits.log_softmax(-1)
    log_probs, tokens = head.answer_log_probs(model, batch)
    torch.testing.assert_close(log_probs, logits.diagonal(), atol=1e-6, rtol=0)
    assert tokens.tolist() == [1, 1, 1]


def test_in_bfloat16_too_the_parent_pulls_nowhere(model: Any, rows: Sequences) -> None:
    """Teacher and model have to be rounded alike, there and back."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        values = divergences(model, rows, teacher_of(model, rows))
    assert max(float(each.abs().max()) for each in gradients(model, values.sum())) < 1e-6
