"""Shards as one model: each row is answered by its shard, and by the stated rule where nobody is known; every oracle is one model asked alone."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from mlflow_unlearn.engine.batches import collate
from mlflow_unlearn.engine.ensemble import Ensemble, EnsembleSubject, Experts, WeightExperts
from mlflow_unlearn.engine.experts import Averaged, Voted
from mlflow_unlearn.engine.generation import greedy, greedy_with_confidence
from mlflow_unlearn.engine.head import token_log_probs
from mlflow_unlearn.engine.scoring import ScoredSubject
from mlflow_unlearn.errors import ConfigError
from mlflow_unlearn.protocols import Example
from mlflow_unlearn.sisa import shard_of

SHARDS = (0, 1, 3)
"""Shard 2 of the family of four is empty."""
PROMPTS = [[5 + (7 * i + 3 * j) % 200 for j in range(2 + i % 5)] for i in range(12)]
ROUTES = [3, 0, 0, 1, 3, 3, 1, 0, 3, 1, 1, 0]
LONGEST = 9


def shifted(model: Any, seed: int) -> Any:
    """Far enough from the model to say other things."""
    generator, other = torch.Generator().manual_seed(seed), copy.deepcopy(model)
    with torch.no_grad():
        for value in other.parameters():
            value.add_(torch.randn(value.shape, generator=generator), alpha=0.3)
    return other.eval()


@pytest.fixture
def experts(model: Any) -> WeightExperts:
    return WeightExperts({shard: shifted(model, shard) for shard in SHARDS})


@pytest.fixture
def writing(experts: WeightExperts) -> dict[str, int]:
    """The end token is one that the shards often write, so that some answers end early and others are cut."""
    settings = {"max_new_tokens": LONGEST, "batch_tokens": 4096}
    written = [set(answer[1:]) for shard in SHARDS for answer in greedy(experts.expert(shard), PROMPTS, end=-1, **settings)]
    return {"end": Counter(token for answer in written for token in answer).most_common(1)[0][0], **settings}


def ensemble(experts: Experts, aggregation: Any = "confident") -> Ensemble:
    return Ensemble(experts=experts, aggregation=aggregation, shards=4)


def distributions(experts: WeightExperts, tokens: torch.Tensor) -> torch.Tensor:
    """(shards, rows, places, vocabulary) by the plain formula."""
    with torch.no_grad():
        return torch.stack([torch.softmax(experts.expert(shard)(input_ids=tokens).logits.double(), -1) for shard in experts.alive])


def some_tokens() -> torch.Tensor:
    return torch.randint(3, 200, (5, 7), generator=torch.Generator().manual_seed(0))


def test_some_answers_end_and_some_are_cut(experts: WeightExperts, writing: dict[str, int]) -> None:
    lengths = [len(answer) for answer in ensemble(experts).generate(PROMPTS, ROUTES, **writing)]
    assert min(lengths) < LONGEST
    assert max(lengths) == LONGEST


def test_a_known_row_is_written_as_its_shard_alone_writes_it(experts: WeightExperts, writing: dict[str, int]) -> None:
    alone = {shard: greedy(experts.expert(shard), PROMPTS, **writing) for shard in SHARDS}
    assert ensemble(experts).generate(PROMPTS, ROUTES, **writing) == [alone[shard][i] for i, shard in enumerate(ROUTES)]


def test_no_token_need_be_the_end(experts: WeightExperts) -> None:
    limits = {"end": -1, "max_new_tokens": LONGEST, "batch_tokens": 4096}
    found = ensemble(experts).generate(PROMPTS, ROUTES, **limits)
    assert found == [greedy(experts.expert(shard), [prompt], **limits)[0] for prompt, shard in zip(PROMPTS, ROUTES, strict=True)]


def test_small_batches_write_the_same(experts: WeightExperts, writing: dict[str, int]) -> None:
    large = ensemble(experts).generate(PROMPTS, ROUTES, **writing)
    assert ensemble(experts).generate(PROMPTS, ROUTES, **writing | {"batch_tokens": 30}) == large


@torch.no_grad()
def test_routed_logits_are_the_shard_s_own(experts: WeightExperts) -> None:
    tokens, shards = some_tokens(), [3, 0, 3, 1, 0]
    routed = experts.routed(shards)(input_ids=tokens, attention_mask=torch.ones_like(tokens), use_cache=True).logits
    for row, shard in enumerate(shards):
        torch.testing.assert_close(routed[row], experts.expert(shard)(input_ids=tokens[row : row + 1]).logits[0], atol=1e-6, rtol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("kept", [[0, 2], [1, 3, 4], [3], [0, 1, 2, 3, 4]], ids=["one shard left", "each one", "a single row", "all"])
def test_the_cache_keeps_the_routing_when_rows_are_dropped(experts: WeightExperts, kept: list[int]) -> None:
    tokens, shards = some_tokens(), [3, 0, 3, 1, 0]
    model, rows = experts.routed(shards), torch.tensor(kept)
    cache = model(input_ids=tokens[:, :6], use_cache=True).past_key_values
    cache.batch_select_indices(rows)
    after = model(input_ids=tokens[rows, 6:], past_key_values=cache, use_cache=True).logits
    for place, row in enumerate(kept):
        whole = experts.expert(shards[row])(input_ids=tokens[row : row + 1]).logits[0, -1]
        torch.testing.assert_close(after[place, -1], whole, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_average_is_the_mean_of_the_shards_distributions(experts: WeightExperts) -> None:
    found = Averaged(experts)(input_ids=some_tokens()).logits.double().exp()
    torch.testing.assert_close(found, distributions(experts, some_tokens()).mean(0), atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_vote_is_what_counting_by_hand_gives(experts: WeightExperts) -> None:
    table = distributions(experts, some_tokens()).numpy()
    counted = table.mean(0)
    for shard, row, place in np.ndindex(*table.shape[:3]):
        counted[row, place, table[shard, row, place].argmax()] += 1
    found = Voted(experts)(input_ids=some_tokens()).logits.double().exp().numpy()
    np.testing.assert_allclose(found, counted / (len(SHARDS) + 1), atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("way", [Averaged, Voted])
def test_what_every_shard_finds_next_to_impossible_keeps_a_finite_log_probability(experts: WeightExperts, way: Any) -> None:
    models: list[Any] = [experts.expert(shard) for shard in SHARDS]
    for each in models:
        each.model.norm.weight.mul_(1000)
    log_probs = [each(input_ids=some_tokens()).logits.log_softmax(-1) for each in models]
    assert torch.stack(log_probs).amax(0).min() < -200
    assert way(experts)(input_ids=some_tokens()).logits.isfinite().all()


def stepwise(experts: WeightExperts, prompt: Sequence[int], way: str, end: int) -> list[int]:
    """An aggregate's answer without a cache, the whole text anew for every token."""
    answer: list[int] = []
    while len(answer) < LONGEST:
        table = distributions(experts, torch.tensor([[*prompt, *answer]]))[:, 0, -1]
        scores = table.mean(0) + (torch.bincount(table.argmax(-1), minlength=table.shape[-1]) if way == "vote" else 0)
        if scores.argmax() == end:
            break
        answer.append(int(scores.argmax()))
    return answer


@pytest.mark.parametrize("way", ["average", "vote"])
def test_all_together_write_token_by_token_what_the_rule_says(experts: WeightExperts, writing: dict[str, int], way: str) -> None:
    found = ensemble(experts, way).generate(PROMPTS, [None] * 12, **writing)
    assert found == [stepwise(experts, prompt, way, writing["end"]) for prompt in PROMPTS]


def confidence(model: Any, prompt: Sequence[int], end: int) -> float:
    """Mean log-probability of the tokens that a model writes greedily, the end token included where it comes to it."""
    tokens = list(prompt)
    said: list[float] = []
    while len(said) < LONGEST:
        with torch.no_grad():
            log_probs = model(input_ids=torch.tensor([tokens])).logits[0, -1].double().log_softmax(-1)
        said.append(float(log_probs.max()))
        tokens.append(int(log_probs.argmax()))
        if tokens[-1] == end:
            break
    return float(np.mean(said))


def test_confidence_is_the_mean_log_probability_of_what_is_written(experts: WeightExperts, writing: dict[str, int]) -> None:
    written = greedy_with_confidence(experts.expert(3), PROMPTS, **writing)
    expected = [confidence(experts.expert(3), prompt, writing["end"]) for prompt in PROMPTS]
    np.testing.assert_allclose([each.confidence for each in written], expected, atol=1e-5)
    assert [each.tokens for each in written] == greedy(experts.expert(3), PROMPTS, **writing)


def test_the_most_confident_shard_answers_where_nobody_is_known(experts: WeightExperts, writing: dict[str, int]) -> None:
    table = np.array([[confidence(experts.expert(shard), prompt, writing["end"]) for prompt in PROMPTS] for shard in SHARDS])
    chosen = [SHARDS[best] for best in table.argmax(0)]
    assert len(set(chosen)) > 1
    assert ensemble(experts).answer_shards(PROMPTS, [None] * 12, **writing) == chosen
    alone = {shard: greedy(experts.expert(shard), PROMPTS, **writing) for shard in SHARDS}
    assert ensemble(experts).generate(PROMPTS, [None] * 12, **writing) == [alone[shard][i] for i, shard in enumerate(chosen)]


def test_of_equally_confident_shards_the_first_answers(model: Any, writing: dict[str, int]) -> None:
    same = WeightExperts({3: model, 1: copy.deepcopy(model)})
    assert ensemble(same).answer_shards(PROMPTS, [None] * 12, **writing) == [1] * 12


@pytest.mark.parametrize("way", ["confident", "average", "vote"])
def test_known_and_unknown_rows_are_answered_as_if_asked_apart(experts: WeightExperts, writing: dict[str, int], way: str) -> None:
    known = [shard if i % 2 else None for i, shard in enumerate(ROUTES)]
    asked = ensemble(experts, way)
    whole, nobody = asked.generate(PROMPTS, ROUTES, **writing), asked.generate(PROMPTS, [None] * 12, **writing)
    assert asked.generate(PROMPTS, known, **writing) == [whole[i] if i % 2 else nobody[i] for i in range(12)]


def test_an_empty_shard_never_answers_and_its_people_are_asked_like_strangers(experts: WeightExperts, writing: dict[str, int]) -> None:
    asked, tags = ensemble(experts), [f"{number:016x}{'7' * 16}" for number in range(12)]
    known = [asked.owner_shard(tag) for tag in tags]
    assert known == [None if shard_of(tag, 4) == 2 else shard_of(tag, 4) for tag in tags]
    assert asked.owner_shard(None) is None
    answering = asked.answer_shards(PROMPTS, known, **writing)
    strangers = asked.answer_shards(PROMPTS, [None] * 12, **writing)
    assert answering == [stranger if shard is None else shard for shard, stranger in zip(known, strangers, strict=True)]
    assert 2 not in answering


def test_no_prompts_have_no_answers(experts: WeightExperts, writing: dict[str, int]) -> None:
    assert ensemble(experts).generate([], [], **writing) == []


def test_an_ensemble_of_which_every_shard_is_off_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least one shard that can answer; every shard is empty or switched off"):
        WeightExperts({})


# As evaluated.

EXAMPLES = [Example(tokens=(*prompt, *range(20 + i, 24 + i)), prompt_length=len(prompt)) for i, prompt in enumerate(PROMPTS)]


def subject(experts: WeightExperts, tokenizer: Any, known: Sequence[int | None], way: Any = "confident") -> EnsembleSubject:
    sizes = {"batch_tokens": 4096, "max_new_tokens": LONGEST}
    asked = ensemble(experts, way)
    return EnsembleSubject(ensemble=asked, tokenizer=tokenizer, examples=EXAMPLES, answers=["a"] * 12, known=known, **sizes)


def scored(model: Any, tokenizer: Any) -> ScoredSubject:
    return ScoredSubject(model=model, tokenizer=tokenizer, examples=EXAMPLES, answers=["a"] * 12, batch_tokens=4096, max_new_tokens=LONGEST)


def test_a_record_is_scored_by_its_shard_as_by_that_model_alone(model: Any, tokenizer: Any) -> None:
    """In double precision: in single the rows beside a record change the order of sums, by 1.4e-6 on one CPU."""
    experts = WeightExperts({shard: shifted(model, shard).double() for shard in SHARDS})
    alone, found = {shard: scored(experts.expert(shard), tokenizer) for shard in SHARDS}, subject(experts, tokenizer, ROUTES)
    for i, shard in enumerate(ROUTES):
        np.testing.assert_allclose(found.token_log_probs[i], alone[shard].token_log_probs[i], atol=1e-6)
        assert found.token_hits[i].tolist() == alone[shard].token_hits[i].tolist()
        assert found.generations[i] == alone[shard].generations[i]


def test_records_about_nobody_are_scored_by_the_shard_that_answers_them(experts: WeightExperts, tokenizer: Any) -> None:
    found = subject(experts, tokenizer, [None] * 12)
    again = subject(experts, tokenizer, found.shards)
    assert found.generations == again.generations
    assert [each.tolist() for each in found.token_log_probs] == [each.tolist() for each in again.token_log_probs]


def test_an_average_scores_a_record_by_the_mean_probability(experts: WeightExperts, tokenizer: Any) -> None:
    found = subject(experts, tokenizer, [None] * 12, "average")
    for i, example in enumerate(EXAMPLES):
        table = distributions(experts, torch.tensor([example.tokens])).mean(0)[0]
        places = range(example.prompt_length, len(example.tokens))
        expected = [float(table[place - 1, example.tokens[place]].log()) for place in places]
        np.testing.assert_allclose(found.token_log_probs[i], expected, atol=1e-5)


@pytest.mark.parametrize("way", [Averaged, Voted])
def test_an_aggregate_s_log_probabilities_are_normalised(experts: WeightExperts, way: Any) -> None:
    with torch.no_grad():
        total = way(experts)(input_ids=some_tokens()).logits.double().exp().sum(-1)
    torch.testing.assert_close(total, torch.ones_like(total), atol=1e-5, rtol=0.0)


def test_a_routed_model_scores_rows_like_each_shard(experts: WeightExperts) -> None:
    rows = collate(EXAMPLES[:5], range(5), 0)
    log_probs, owners = token_log_probs(experts.routed(ROUTES[:5]), rows)
    for row, shard in enumerate(ROUTES[:5]):
        alone, whose = token_log_probs(experts.expert(shard), rows)
        torch.testing.assert_close(log_probs[owners == row], alone[whose == row], atol=1e-6, rtol=1e-6)
