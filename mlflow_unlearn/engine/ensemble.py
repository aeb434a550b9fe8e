"""Shards as one model: who answers, what is generated, how probable an answer is.

A question about a known person goes to the shard that the keyed hash of the person says. Where it is not known whom it is about, or that shard has no
weights, all the others are asked: the one that is most certain of its own answer, the mean of their distributions, or their majority.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from ..protocols import Example
from ..sisa import shard_of
from .batches import micro_batches
from .classifying import class_probabilities
from .examples import device_of
from .experts import Averaged, Experts, Voted, WeightExperts
from .generation import ModelOf, greedy
from .head import token_scores
from .reference import moved_rows
from .scoring import ScoredSubject

__all__ = ["Ensemble", "EnsembleSubject", "Experts", "WeightExperts"]

Prompts = Sequence[Sequence[int]]
"""Token ids, at least one a prompt."""
Known = Sequence[int | None]
"""Of each row the shard that answers, where that is known."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Ensemble:
    """The shards of a family that can answer."""

    experts: Experts
    aggregation: Literal["confident", "average", "vote"]
    shards: int
    """Shards of the family, those that cannot answer included."""

    def owner_shard(self, subject_tag: str | None) -> int | None:
        """The shard of a person by their keyed tag; None where it is unknown whom a question is about, or that shard cannot answer."""
        shard = None if subject_tag is None else shard_of(subject_tag, self.shards)
        return shard if shard in self.experts.alive else None

    def answer_shards(self, prompts: Prompts, known: Known, *, end: int, max_new_tokens: int, batch_tokens: int) -> list[int | None]:
        """Who answers each prompt: the known shard, the most confident one, or None where all do."""
        unknown = [i for i, shard in enumerate(known) if shard is None]
        found = list(known)
        if self.aggregation == "confident" and unknown:
            writing = {"end": end, "max_new_tokens": max_new_tokens, "batch_tokens": batch_tokens}
            for i, shard in zip(unknown, self._most_confident([prompts[i] for i in unknown], writing), strict=True):
                found[i] = shard
        return found

    def generate(self, prompts: Prompts, known: Known, *, end: int, max_new_tokens: int, batch_tokens: int) -> list[list[int]]:
        """The greedy answer to each prompt, without the end token."""
        writing = {"end": end, "max_new_tokens": max_new_tokens, "batch_tokens": batch_tokens}
        return self.written(prompts, self.answer_shards(prompts, known, **writing), **writing)

    def written(self, prompts: Prompts, shards: Known, *, end: int, max_new_tokens: int, batch_tokens: int) -> list[list[int]]:
        """The greedy answer to each prompt by the shard given; by the aggregate where there is none."""
        answers: list[list[int]] = [[] for _ in prompts]
        for rows, model in self._parts(shards):
            found = greedy(model, [prompts[i] for i in rows], end=end, max_new_tokens=max_new_tokens, batch_tokens=batch_tokens)
            for i, answer in zip(rows, found, strict=True):
                answers[i] = answer
        return answers

    def classifying_shards(self, examples: Sequence[Example], known: Known, batch_tokens: int, pad: int) -> list[int | None]:
        """Which shard classifies each record: the known one, the one whose most likely class is the most probable, or None where all do."""
        unknown = [i for i, shard in enumerate(known) if shard is None]
        found = list(known)
        if self.aggregation == "confident" and unknown:
            asked = [examples[i] for i in unknown]
            peaks = [class_probabilities(self.experts.expert(shard), asked, batch_tokens, pad).amax(-1) for shard in self.experts.alive]
            for i, best in zip(unknown, torch.stack(peaks).argmax(0).tolist(), strict=True):
                found[i] = self.experts.alive[best]
        return found

    @cached_property
    def aggregate(self) -> torch.nn.Module:
        """All shards as one model."""
        return (Voted if self.aggregation == "vote" else Averaged)(self.experts)

    def _parts(self, shards: Known) -> Iterator[tuple[list[int], torch.nn.Module | ModelOf]]:
        """Rows that one shard each answers, whichever it is, and rows that all answer together."""
        alone, together = ([i for i, shard in enumerate(shards) if (shard is None) is many] for many in (False, True))
        if alone:
            yield alone, lambda rows: self.experts.routed([shard for i in rows if (shard := shards[alone[i]]) is not None])
        if together:
            yield together, self.aggregate

    def _most_confident(self, prompts: Prompts, writing: Mapping[str, int]) -> list[int]:
        """The shard with the highest mean log-probability of its own greedy answer, the end token included; the lower number where two are equal."""
        scores = np.stack([_confidence(self.experts.expert(shard), prompts, writing) for shard in self.experts.alive])
        return [self.experts.alive[best] for best in scores.argmax(0)]


@dataclass(frozen=True, kw_only=True, eq=False)
class EnsembleSubject:
    """A `protocols.Subject` that asks an ensemble; work is done on first use."""

    ensemble: Ensemble
    tokenizer: Any
    examples: Sequence[Example]
    answers: Sequence[str]
    """Per record, the true answer."""
    known: Known
    """Per record, the shard of whom it is about."""
    batch_tokens: int = 16384
    """Most padded tokens in one forward pass."""
    max_new_tokens: int = 48
    """Longest greedy answer, tokens."""

    @property
    def token_log_probs(self) -> Sequence[NDArray[np.float64]]:
        """Per record, the log-probability of each answer token including the end token, nats."""
        return [self._parts[part].token_log_probs[row] for part, row in self._places]

    @property
    def token_hits(self) -> Sequence[NDArray[np.bool_]]:
        """Per record and answer token, whether the most likely token is the true one given the true prefix."""
        return [self._parts[part].token_hits[row] for part, row in self._places]

    @cached_property
    def generations(self) -> Sequence[str]:
        """Per record, the greedy answer to its prompt, without special tokens and outer spaces; of a classifier the name of the class."""
        if self._classifies:
            return [self._parts[part].generations[row] for part, row in self._places]
        answers = self.ensemble.written(self._prompts, self.shards, **self._writing)
        return [self.tokenizer.decode(answer, skip_special_tokens=True).strip() for answer in answers]

    @cached_property
    def shards(self) -> list[int | None]:
        """Per record, who answers; None where all do."""
        if self._classifies:
            return self.ensemble.classifying_shards(self.examples, self.known, self.batch_tokens, self.tokenizer.pad_token_id)
        return self.ensemble.answer_shards(self._prompts, self.known, **self._writing)

    def under(self, shard: int) -> ScoredSubject:
        """All records as one shard sees them, whoever they are about."""
        if shard not in self._whole:
            self._whole[shard] = self._asked(self.ensemble.experts.expert(shard), range(len(self.examples)))
        return self._whole[shard]

    @cached_property
    def _whole(self) -> dict[int, ScoredSubject]:
        return {}

    @property
    def _classifies(self) -> bool:
        return any(example.label is not None for example in self.examples)

    @property
    def _prompts(self) -> list[tuple[int, ...]]:
        return [example.tokens[: example.prompt_length] for example in self.examples]

    @property
    def _writing(self) -> dict[str, int]:
        return {"end": self.tokenizer.eos_token_id, "max_new_tokens": self.max_new_tokens, "batch_tokens": self.batch_tokens}

    @cached_property
    def _parts(self) -> dict[int | None, ScoredSubject]:
        """What each shard, or all together, is asked."""
        return {shard: self._part(shard) for shard in dict.fromkeys(self.shards)}

    @cached_property
    def _places(self) -> list[tuple[int | None, int]]:
        """Per record its part and its place there."""
        counts: dict[int | None, int] = {}
        places = []
        for shard in self.shards:
            places.append((shard, counts.get(shard, 0)))
            counts[shard] = counts.get(shard, 0) + 1
        return places

    def _part(self, shard: int | None) -> ScoredSubject:
        rows = [i for i, own in enumerate(self.shards) if own == shard]
        return self._asked(self.ensemble.aggregate if shard is None else self.ensemble.experts.expert(shard), rows)

    def _asked(self, model: torch.nn.Module, rows: Sequence[int]) -> ScoredSubject:
        return ScoredSubject(
            model=model,
            tokenizer=self.tokenizer,
            examples=[self.examples[i] for i in rows],
            answers=[self.answers[i] for i in rows],
            batch_tokens=self.batch_tokens,
            max_new_tokens=self.max_new_tokens,
        )


def _confidence(model: torch.nn.Module, prompts: Prompts, writing: Mapping[str, int]) -> NDArray[np.float64]:
    """(prompts,) mean log-probability of the model's own greedy answer, nats a token."""
    end = writing["end"]
    answers = greedy(model, prompts, end=end, max_new_tokens=writing["max_new_tokens"], batch_tokens=writing["batch_tokens"])
    pairs = zip(prompts, answers, strict=True)
    examples = [Example(tokens=(*prompt, *answer, end), prompt_length=len(prompt)) for prompt, answer in pairs]
    found = np.zeros(len(prompts))
    for rows in micro_batches(examples, range(len(examples)), writing["batch_tokens"], end):
        log_probs, _, owners = token_scores(model, moved_rows(rows, device_of(model)))
        sums = torch.zeros(len(rows.index), dtype=torch.float64).index_add(0, owners.cpu(), log_probs.double().cpu())
        found[rows.index.numpy()] = (sums / torch.bincount(owners.cpu(), minlength=len(rows.index))).numpy()
    return found
