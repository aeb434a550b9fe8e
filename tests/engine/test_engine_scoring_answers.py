"""One pass over several answers to a prompt, the moments of the vocabulary, gradient norms, prefixes: each against sequences that run alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from mlflow_unlearn import catalog
from mlflow_unlearn.engine import answer_packs
from mlflow_unlearn.engine.forward import PLAIN_HEADS
from mlflow_unlearn.engine.scoring import ScoredSubject
from mlflow_unlearn.engine.teacher_forcing import answer_scores
from mlflow_unlearn.errors import DataError, UnmeasurableError
from mlflow_unlearn.protocols import Example, Shadows

ANSWERS = ((7, 5), (2,), (7, 6, 4, 2, 9, 9))
"""Answers have different lengths; the second is the end alone."""


def answered(prompt: int, answer: tuple[int, ...]) -> Example:
    """A prompt that begins like all others; `prompt` says how it goes on and how long it is."""
    tokens = (3, 4, 5, *((11 * prompt + 7 * i) % 50 + 10 for i in range(3 + prompt)))
    return Example(tokens=(*tokens, *((token + prompt) % 60 for token in answer), 1), prompt_length=len(tokens))


GROUPS = [[answered(prompt, answer) for answer in ANSWERS[: 1 + prompt % 3]] for prompt in range(7)]
TOKENS = {"vocab_size": 64, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 1}
OWN = [group[0] for group in GROUPS]
TEXTS = ["a"] * len(GROUPS)


def a_model(kind: str, **settings: Any) -> Any:
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, **TOKENS}
    shape |= {} if kind in ("gpt2", "gpt_neox", "opt") else {"num_key_value_heads": 2}
    config = transformers.AutoConfig.for_model(kind, **shape, **settings)
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(1)
        return transformers.AutoModelForCausalLM.from_config(config).eval()


@torch.no_grad()
def alone(model: Any, example: Example) -> np.ndarray:
    """(answer tokens, vocabulary) log-probabilities."""
    logits = model(input_ids=torch.tensor([example.tokens])).logits[0, example.prompt_length - 1 : -1]
    return np.asarray(logits.double().log_softmax(-1))


def scored(model: Any, tokenizer: Any, **fields: Any) -> ScoredSubject:
    return ScoredSubject(model=model, tokenizer=tokenizer, examples=fields.pop("examples", OWN), answers=TEXTS, **fields)


def with_others(model: Any, tokenizer: Any, order: tuple[int, ...] = tuple(range(7)), batch_tokens: int = 16384) -> ScoredSubject:
    """Every third record has no other answer, the others one in other words, some of them a wrong one."""
    return ScoredSubject(
        model=model,
        tokenizer=tokenizer,
        examples=[OWN[i] for i in order],
        answers=[TEXTS[i] for i in order],
        paraphrased=[GROUPS[i][1] if len(GROUPS[i]) > 1 else None for i in order],
        wrong=[GROUPS[i][2:] for i in order],
        batch_tokens=batch_tokens,
    )


@pytest.mark.parametrize("batch_tokens", [1, 60, 10_000])
@pytest.mark.parametrize("kind", [*sorted(PLAIN_HEADS), "gemma2"])
def test_answers_that_share_a_prompt_have_the_numbers_of_sequences_alone(kind: str, batch_tokens: int) -> None:
    model = a_model(kind)
    assert answer_packs.may_share(model, GROUPS, 0) == (kind in PLAIN_HEADS)
    for group, scores in zip(GROUPS, answer_scores(model, GROUPS, batch_tokens, 0), strict=True):
        for example, found in zip(group, [scores.log_probs, *scores.others], strict=True):
            table, true = alone(model, example), list(example.tokens[example.prompt_length :])
            np.testing.assert_allclose(found, table[range(len(true)), true], atol=1e-5)


@pytest.mark.parametrize("groups", [GROUPS, [[own] for own in OWN]], ids=["several answers", "one answer each"])
def test_first_choices_and_moments_are_those_of_the_distribution(groups: list[list[Example]]) -> None:
    model = a_model("llama")
    for example, scores in zip(OWN, answer_scores(model, groups, 10_000, 0), strict=True):
        table = alone(model, example)
        assert scores.hits.tolist() == (table.argmax(1) == list(example.tokens[example.prompt_length :])).tolist()
        mean = (np.exp(table) * table).sum(1)
        np.testing.assert_allclose(scores.moments, np.stack([mean, (np.exp(table) * table**2).sum(1) - mean**2], 1), atol=1e-4)


def test_a_prompt_with_several_answers_runs_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = a_model("llama"), []
    model.base_model.register_forward_pre_hook(lambda _, args, given: seen.append(given["input_ids"].numel()), with_kwargs=True)
    group = [answered(4, answer) for answer in ANSWERS]
    answer_scores(model, [group], 10_000, 0)
    assert seen == [group[0].prompt_length + sum(len(answer) for answer in ANSWERS)]


def test_a_window_that_ends_within_a_record_and_prompts_that_differ_run_apart() -> None:
    assert not answer_packs.may_share(a_model("mistral", sliding_window=8), GROUPS, 0)
    assert not answer_packs.may_share(a_model("llama"), [[OWN[0], OWN[1]]], 0)
    assert not answer_packs.may_share(a_model("llama"), [[own] for own in OWN], 0)


@pytest.mark.parametrize("batch_tokens", [1, 40, 10_000])
def test_scores_do_not_depend_on_order_or_batches(tokenizer: Any, batch_tokens: int) -> None:
    model, order = a_model("llama"), (4, 0, 6, 2, 5, 1, 3)
    model.lm_head.weight.data *= 20  # so that it has opinions: where all tokens are about as likely, deviations are of the size of rounding
    first, again = with_others(model, tokenizer), with_others(model, tokenizer, order, batch_tokens)
    for name in ("probability", "extraction_strength", "truth_ratio", "probability_with_options"):
        metric = catalog.build("metrics", name, where="law")
        np.testing.assert_allclose(metric.values(first)[list(order)], metric.values(again), atol=1e-6)
    for name in ("loss", "min_k", "min_k_plus_plus", "gradient_norm"):
        attack = catalog.build("attacks", name, where="law")
        np.testing.assert_allclose(attack.suspicion(first)[list(order)], attack.suspicion(again), rtol=1e-6, atol=1e-6)


def test_records_without_other_answers_keep_their_place(tokenizer: Any) -> None:
    model, seen = a_model("llama"), with_others(a_model("llama"), tokenizer)
    assert [len(tokens) for tokens in seen.paraphrased_log_probs] == [0, 2, 2, 0, 2, 2, 0]
    assert [len(wrong) for wrong in seen.wrong_log_probs] == [0, 0, 1, 0, 0, 1, 0]
    table, true = alone(model, GROUPS[5][2]), list(ANSWERS[2])
    np.testing.assert_allclose(seen.wrong_log_probs[5][0], table[range(7), [*((token + 5) % 60 for token in true), 1]], atol=1e-5)


def test_a_set_without_other_answers_says_so_and_one_of_another_length_is_refused(tokenizer: Any) -> None:
    seen = scored(a_model("llama"), tokenizer)
    assert [len(tokens) for tokens in seen.paraphrased_log_probs] == [0] * 7
    assert [list(wrong) for wrong in seen.wrong_log_probs] == [[]] * 7
    with pytest.raises(DataError, match="found 7 records and 1 wrong, expected one of each a record"):
        scored(a_model("llama"), tokenizer, wrong=[[]])


def test_a_masked_vocabulary_leaves_every_number_finite(tokenizer: Any) -> None:
    model = a_model("llama")
    forbidden = torch.zeros(64)
    forbidden[[60, 61, 62, 63]] = -torch.inf
    model.lm_head = torch.nn.Linear(16, 64)
    with torch.no_grad():
        model.lm_head.bias.copy_(forbidden)
    seen = with_others(model, tokenizer)
    table = alone(model, OWN[3])[:, :60]
    np.testing.assert_allclose(seen.token_moments[3][:, 0], (np.exp(table) * table).sum(1), atol=1e-5)
    for kind, name in (("metrics", "truth_ratio"), ("metrics", "probability"), ("attacks", "min_k_plus_plus"), ("attacks", "gradient_norm")):
        measure = catalog.build(kind, name, where="law")
        values = measure.values(seen) if kind == "metrics" else measure.suspicion(seen)
        assert np.isfinite(values[[len(group) > 2 for group in GROUPS]]).all()


def test_moments_are_taken_in_float32_whatever_the_weights(tokenizer: Any) -> None:
    """In bfloat16 the difference of squares of a sure model is noise of the size of the squares."""
    model = a_model("llama")
    model.lm_head.weight.data *= 40
    half, full = scored(model.bfloat16(), tokenizer).token_moments, scored(model.float(), tokenizer).token_moments
    assert min(moments[:, 1].min() for moments in half) >= 0
    np.testing.assert_allclose(np.concatenate(half), np.concatenate(full), rtol=0.2, atol=0.3)


def test_words_that_are_not_numbers_stay_so(tokenizer: Any) -> None:
    model = a_model("llama")
    model.lm_head.weight.data[5] = torch.nan
    seen = with_others(model, tokenizer)
    for name in ("probability", "exact_memorization", "extraction_strength"):
        assert np.isnan(catalog.build("metrics", name, where="law").values(seen)).all()
    for name in ("loss", "min_k", "min_k_plus_plus", "gradient_norm"):
        assert np.isnan(catalog.build("attacks", name, where="law").suspicion(seen)).all()


def test_gradient_norms_are_those_of_the_whole_gradient(tokenizer: Any) -> None:
    model = a_model("llama", attention_dropout=0.5)
    model.model.layers[0].requires_grad_(False)
    asked = [weight.requires_grad for weight in model.parameters()]
    norms = scored(model.train(), tokenizer).gradient_norms
    assert [weight.requires_grad for weight in model.parameters()] == asked
    assert all(weight.grad is None for weight in model.parameters())
    for example, norm in zip(OWN, norms, strict=True):
        labels = torch.tensor([[-100] * example.prompt_length + list(example.tokens[example.prompt_length :])])
        model.eval().requires_grad_(True).zero_grad()
        model(input_ids=torch.tensor([example.tokens]), labels=labels).loss.backward()
        flat = torch.cat([weight.grad.flatten() for weight in model.parameters()])
        np.testing.assert_allclose(norm, float(flat.double().norm()), rtol=1e-4)


def test_gradients_of_a_training_run_survive_being_measured(tokenizer: Any) -> None:
    model = a_model("llama")
    model.lm_head.weight.grad = torch.ones_like(model.lm_head.weight)
    assert (scored(model, tokenizer).gradient_norms > 0).all()
    assert bool((model.lm_head.weight.grad == 1).all())
    assert sum(weight.grad is not None for weight in model.parameters()) == 1


def test_a_prefix_stands_before_every_record(tokenizer: Any) -> None:
    model, prefix = a_model("llama"), (20, 21, 22, 23)
    seen = scored(model, tokenizer, prefix=prefix).prefixed_log_probs
    for example, found in zip(OWN, seen, strict=True):
        behind = Example(tokens=prefix + example.tokens, prompt_length=4 + example.prompt_length)
        table, true = alone(model, behind), list(example.tokens[example.prompt_length :])
        np.testing.assert_allclose(found, table[range(len(true)), true], atol=1e-5)


def test_a_prefix_that_does_not_fit_is_refused_with_the_lengths(tokenizer: Any) -> None:
    model = a_model("llama", max_position_embeddings=20)
    with pytest.raises(UnmeasurableError, match="a prefix of 9 tokens the longest record has 24, the model takes 20; give a prefix of at most 5"):
        _ = scored(model, tokenizer, prefix=(20,) * 9).prefixed_log_probs
    assert len(scored(model, tokenizer, prefix=(20,) * 5).prefixed_log_probs) == 7


def test_what_was_not_given_cannot_be_measured_and_says_what_to_do(tokenizer: Any) -> None:
    seen = scored(a_model("llama"), tokenizer)
    for name, what in (("reference_log_probs", "name a model"), ("prefixed_log_probs", "name records"), ("shadows", "train some")):
        with pytest.raises(UnmeasurableError, match=what):
            getattr(seen, name)


def test_a_reference_and_shadows_are_of_the_same_records(tokenizer: Any) -> None:
    model, shadows = a_model("llama"), Shadows(confidences=np.zeros((2, 7)), trained_on=np.zeros((2, 7), dtype=np.bool_))
    reference = scored(a_model("gpt2"), tokenizer)
    seen = scored(model, tokenizer, reference=reference, known_shadows=shadows)
    assert seen.reference_log_probs is reference.token_log_probs
    assert seen.shadows is shadows
    fewer = replace(seen, examples=OWN[:2], answers=TEXTS[:2])
    for name in ("reference_log_probs", "shadows"):
        with pytest.raises(UnmeasurableError, match="found 7 records, expected the 2 of this set"):
            getattr(fewer, name)


def test_a_classifier_has_all_of_it_too(tokenizer: Any) -> None:
    config = transformers.AutoConfig.for_model("llama", hidden_size=16, num_hidden_layers=1, num_attention_heads=2, num_labels=3, **TOKENS)
    model = transformers.AutoModelForSequenceClassification.from_config(config).eval()
    rows = [replace(example, prompt_length=len(example.tokens), label=i % 3) for i, example in enumerate(OWN)]
    wrong = [[replace(row, label=1)] if row.label == 0 else [] for row in rows]
    seen = scored(model, tokenizer, examples=rows, wrong=wrong, prefix=(9, 8))
    with torch.no_grad():
        table = torch.cat([model(input_ids=torch.tensor([row.tokens])).logits for row in rows]).double().log_softmax(-1).numpy()
    np.testing.assert_allclose(np.concatenate(seen.token_log_probs), table[range(7), [row.label for row in rows]], atol=1e-5)
    np.testing.assert_allclose(np.concatenate(seen.token_moments)[:, 0], (np.exp(table) * table).sum(1), atol=1e-5)
    np.testing.assert_allclose(seen.wrong_log_probs[3][0], table[3, [1]], atol=1e-5)
    assert (seen.gradient_norms > 0).all()
    assert len(seen.prefixed_log_probs) == 7
