"""The label-only head and the loss terms against the plain formulas, written out."""

from __future__ import annotations

import math

import pytest
import torch
import transformers
from torch.nn import functional

from mlflow_unlearn import losses
from mlflow_unlearn.config import LoraParams
from mlflow_unlearn.engine.batches import collate
from mlflow_unlearn.protocols import Batch, Example, Sequences

EXAMPLES = [
    Example(tokens=(5, 6, 7, 8, 2), prompt_length=2),
    Example(tokens=(9, 3, 4, 11, 6, 13, 2), prompt_length=5),
    Example(tokens=(4, 2), prompt_length=1),
]
SMALL = {"vocab_size": 16, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "max_position_embeddings": 32}
WIDTHS = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
OWN_NAMES = {"gpt2": {"n_embd": 8, "n_layer": 2, "n_head": 2}, "opt": WIDTHS | {"ffn_dim": 16, "word_embed_proj_dim": 8}}


def tiny(model_type: str = "llama") -> torch.nn.Module:
    config = transformers.AutoConfig.for_model(model_type, **SMALL, **OWN_NAMES.get(model_type, WIDTHS))
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(3)
        return transformers.AutoModelForCausalLM.from_config(config).eval()


@pytest.fixture
def model() -> torch.nn.Module:
    return tiny()


@pytest.fixture
def rows() -> Sequences:
    return collate(EXAMPLES, [0, 1, 2], pad=0)


def naive_log_probs(model: torch.nn.Module, rows: Sequences) -> list[torch.Tensor]:
    """Full logits with the attention mask, then one token after another."""
    logits = model(input_ids=rows.input_ids, attention_mask=rows.attention_mask).logits.log_softmax(-1)
    lines = []
    for i in range(len(rows.labels)):
        places = [t for t in range(1, rows.labels.shape[1]) if rows.labels[i, t] != losses.IGNORED]
        lines.append(torch.stack([logits[i, t - 1, rows.labels[i, t]] for t in places]))
    return lines


@pytest.mark.parametrize("model_type", sorted({*losses.PLAIN_HEADS, "granite", "gemma2"}))
def test_label_only_head_equals_full_logits_in_every_architecture(model_type: str, rows: Sequences) -> None:
    model = tiny(model_type)
    log_probs, owners = losses.token_log_probs(model, rows)
    torch.testing.assert_close(log_probs, torch.cat(naive_log_probs(model, rows)), atol=1e-5, rtol=0)
    assert owners.tolist() == [0, 0, 0, 1, 1, 2]


def test_label_only_head_has_the_gradient_of_full_logits(model: torch.nn.Module, rows: Sequences) -> None:
    parameters = list(model.parameters())
    naive = torch.autograd.grad(torch.cat(naive_log_probs(model, rows)).sum(), parameters)
    ours = torch.autograd.grad(losses.token_log_probs(model, rows)[0].sum(), parameters)
    torch.testing.assert_close(ours, naive, atol=1e-5, rtol=1e-5)


def test_chunks_change_neither_value_nor_gradient(model: torch.nn.Module, rows: Sequences, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = losses.token_log_probs(model, rows)[0]
    monkeypatch.setattr(losses, "CHUNK_LOGITS", 2 * SMALL["vocab_size"])
    pieces = losses.token_log_probs(model, rows)[0]
    head = model.get_output_embeddings().weight
    torch.testing.assert_close(pieces, whole)
    torch.testing.assert_close(torch.autograd.grad(pieces.sum(), head), torch.autograd.grad(whole.sum(), head))


def test_the_head_inside_lora_sees_the_adapters(model: torch.nn.Module, rows: Sequences) -> None:
    from mlflow_unlearn.adapters.models import with_lora

    adapted = with_lora(model, LoraParams(rank=2), seed=0)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.data.fill_(0.1)
    torch.testing.assert_close(losses.token_log_probs(adapted, rows)[0], torch.cat(naive_log_probs(adapted, rows)), atol=1e-5, rtol=0)


def test_answer_log_probs_are_sums_over_the_answer(model: torch.nn.Module, rows: Sequences) -> None:
    sums, tokens = losses.answer_log_probs(model, rows)
    torch.testing.assert_close(sums, torch.stack([line.sum() for line in naive_log_probs(model, rows)]), atol=1e-5, rtol=0)
    assert tokens.tolist() == [3, 2, 1]


@pytest.mark.parametrize("chunk", [1, 32, 1 << 26])
def test_scores_are_the_log_probs_and_the_most_likely_tokens(
    model: torch.nn.Module, rows: Sequences, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "CHUNK_LOGITS", chunk)
    log_probs, hits, owners = losses.token_scores(model, rows)
    likeliest = model(input_ids=rows.input_ids).logits.argmax(-1)
    torch.testing.assert_close(log_probs, torch.cat(naive_log_probs(model, rows)), atol=1e-5, rtol=0)
    assert hits.tolist() == (likeliest[:, :-1] == rows.labels[:, 1:])[rows.labels[:, 1:] != losses.IGNORED].tolist()
    assert owners.tolist() == [0, 0, 0, 1, 1, 2]


def test_npo_term_by_hand() -> None:
    """At pi = pi_ref it is (2 / beta) log 2 = 20 log 2; three nats below, -20 log(1 / (1 + e^-0.3))."""
    terms = losses.npo_terms(torch.tensor([-4.0, -7.0]), torch.tensor([-4.0, -4.0]), beta=0.1)
    assert terms.tolist() == pytest.approx([20 * math.log(2), 20 * math.log(1 + math.exp(-0.3))], rel=1e-5)


def test_npo_gradient_at_the_parent_is_gradient_ascent() -> None:
    log_probs = torch.tensor([-4.0], requires_grad=True)
    losses.npo_terms(log_probs, torch.tensor([-4.0]), beta=0.1).sum().backward()
    assert log_probs.grad is not None
    assert log_probs.grad.item() == pytest.approx(1.0)


def test_a_record_at_its_floor_is_not_above_it() -> None:
    """Mean losses 1.0, 2.0 and 3.0 nats against a floor of 2.0."""
    above = losses.above_floor(torch.tensor([-2.0, -4.0, -6.0]), torch.tensor([2, 2, 2]), torch.tensor([2.0, 2.0, 2.0]))
    assert above.tolist() == [1.0, 0.0, 0.0]


def test_retain_nll_is_the_mean_cross_entropy(model: torch.nn.Module, rows: Sequences) -> None:
    batch = Batch(forget=None, retain=rows, forget_records=0, forget_tokens=0, retain_tokens=6)
    logits = model(input_ids=rows.input_ids, attention_mask=rows.attention_mask).logits
    naive = functional.cross_entropy(logits[:, :-1].flatten(0, 1), rows.labels[:, 1:].flatten(), ignore_index=-100)
    torch.testing.assert_close(losses.retain_nll(model, batch), naive, atol=1e-5, rtol=0)


def test_retain_nll_refuses_a_batch_without_retain(model: torch.nn.Module) -> None:
    with pytest.raises(ValueError, match="has no retain rows"):
        losses.retain_nll(model, Batch(forget=None, retain=None, forget_records=0, forget_tokens=0, retain_tokens=0))
