"""Shards as one model: who answers, what is generated, how probable an answer is.

A question about a known person goes to the shard that the keyed hash of the person says. Where it is not known whom it is about, or that shard has no
weights, all the others are asked: the one that is most certain of its own answer, the mean of their distributions, or their majority.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from ..protocols import Example
from ..sisa import shard_of
from .classifying import class_probabilities
from .examples import padding
from .experts import Averaged, Experts, Voted, WeightExperts
from .generation import ModelOf, Written, end_of, greedy, greedy_with_confidence
from .scoring import Compared, ScoredSubject

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
        surest = self.surest(prompts, known, end=end, max_new_tokens=max_new_tokens, batch_tokens=batch_tokens)
        return [surest[i].shard if i in surest else shard for i, shard in enumerate(known)]

    def generate(self, prompts: Prompts, known: Known, *, end: int, max_new_tokens: int, batch_tokens: int) -> list[list[int]]:
        """The greedy answer to each prompt, without the end token."""
        limits = {"end": end, "max_new_tokens": max_new_tokens, "batch_tokens": batch_tokens}
        return self.completed(prompts, known, self.surest(prompts, known, **limits), limits)

    def surest(self, prompts: Prompts, known: Known, *, end: int, max_new_tokens: int, batch_tokens: int) -> dict[int, Surest]:
        """Positions of the prompts about nobody known, to what the most confident shard says; nothing where the rule is another.

        Confident is who gives its own greedy answer the highest mean log-probability, the end token included; of equals the lower number.
        """
        unknown = [i for i, shard in enumerate(known) if shard is None] if self.aggregation == "confident" else []
        pairs = [(shard, i) for shard in self.experts.alive for i in unknown]
        said = greedy_with_confidence(
            lambda rows: self.experts.routed([pairs[row][0] for row in rows]),
            [prompts[i] for _, i in pairs],
            end=end,
            max_new_tokens=max_new_tokens,
            batch_tokens=batch_tokens,
        )
        found: dict[int, Surest] = {}
        for (shard, i), written in zip(pairs, said, strict=True):
            if i not in found or written.confidence > found[i].written.confidence:
                found[i] = Surest(shard=shard, written=written)
        return found

    def completed(self, prompts: Prompts, known: Known, surest: Mapping[int, Surest], limits: Mapping[str, int]) -> list[list[int]]:
        """The answers of the surest, and those that are still to be written."""
        answers = {i: each.written.tokens for i, each in surest.items()}
        for rows, model in self._parts([i for i in range(len(prompts)) if i not in answers], known):
            found = greedy(
                model,
                [prompts[i] for i in rows],
                end=limits["end"],
                max_new_tokens=limits["max_new_tokens"],
                batch_tokens=limits["batch_tokens"],
            )
            answers.update(zip(rows, found, strict=True))
        return [answers[i] for i in range(len(prompts))]

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

    def _parts(self, rows: Sequence[int], known: Known) -> Iterator[tuple[list[int], torch.nn.Module | ModelOf]]:
        """Rows that one shard each answers, whichever it is, and rows that all answer together."""
        alone = [(i, shard) for i in rows if (shard := known[i]) is not None]
        together = [i for i in rows if known[i] is None]
        if alone:
            yield [i for i, _ in alone], lambda places: self.experts.routed([alone[place][1] for place in places])
        if together:
            yield together, self.aggregate


@dataclass(frozen=True, kw_only=True)
class Surest:
    """The most confident shard."""

    shard: int
    written: Written


@dataclass(frozen=True, kw_only=True, eq=False)
class EnsembleSubject(Compared):
    """A `protocols.Subject` that asks an ensemble; work is done on first use."""

    ensemble: Ensemble
    known: Known
    """Per record, the shard of whom it is about."""

    @property
    def token_log_probs(self) -> Sequence[NDArray[np.float64]]:
        """Per record, the log-probability of each answer token including the end token, nats."""
        return [self._parts[part].token_log_probs[row] for part, row in self._places]

    @property
    def token_hits(self) -> Sequence[NDArray[np.bool_]]:
        """Per record and answer token, whether the most likely token is the true one given the true prefix."""
        return [self._parts[part].token_hits[row] for part, row in self._places]

    @property
    def token_moments(self) -> Sequence[NDArray[np.float64]]:
        """Per record (answer tokens, 2): mean and variance of log p over the vocabulary at that place; nats."""
        return [self._parts[part].token_moments[row] for part, row in self._places]

    @property
    def paraphrased_log_probs(self) -> Sequence[NDArray[np.float64]]:
        """Per record, the log-probability of each token of the true answer in other words; empty where the data have none."""
        return [self._parts[part].paraphrased_log_probs[row] for part, row in self._places]

    @property
    def wrong_log_probs(self) -> Sequence[Sequence[NDArray[np.float64]]]:
        """Per record and wrong answer, the log-probability of each token; empty where the data have none."""
        return [self._parts[part].wrong_log_probs[row] for part, row in self._places]

    @property
    def gradient_norms(self) -> NDArray[np.float64]:
        """(records,) L2 norm of the gradient of the mean answer-token loss for the weights of whoever answers, in eval mode."""
        return np.array([self._parts[part].gradient_norms[row] for part, row in self._places], dtype=np.float64)

    @property
    def prefixed_log_probs(self) -> Sequence[NDArray[np.float64]]:
        """`token_log_probs` behind a prefix of records that were never trained on; who answers is as without it.

        Raises:
            UnmeasurableError: there is no prefix, or a record behind it is longer than a model takes.
        """
        return [self._parts[part].prefixed_log_probs[row] for part, row in self._places]

    @cached_property
    def generations(self) -> Sequence[str]:
        """Per record, the greedy answer to its prompt, without special tokens and outer spaces; of a classifier the name of the class."""
        if self._classifies:
            return [self._parts[part].generations[row] for part, row in self._places]
        answers = self.ensemble.completed(self._prompts, self.known, self._surest, self._limits)
        return [self.tokenizer.decode(answer, skip_special_tokens=True).strip() for answer in answers]

    @cached_property
    def shards(self) -> list[int | None]:
        """Per record, who answers; None where all do."""
        if self._classifies:
            return self.ensemble.classifying_shards(self.examples, self.known, self.batch_tokens, padding(self.tokenizer))
        return [self._surest[i].shard if i in self._surest else shard for i, shard in enumerate(self.known)]

    def under(self, shard: int) -> ScoredSubject:
        """All records as one shard sees them, whoever they are about."""
        if shard not in self._whole:
            whole = self._asked(self.ensemble.experts.expert(shard), range(len(self.examples)))
            self._whole[shard] = replace(whole, reference=self.reference, known_shadows=self.known_shadows)
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

    @cached_property
    def _surest(self) -> dict[int, Surest]:
        return self.ensemble.surest(self._prompts, self.known, **self._limits)

    @property
    def _limits(self) -> dict[str, int]:
        return {"end": end_of(self.tokenizer), "max_new_tokens": self.max_new_tokens, "batch_tokens": self.batch_tokens}

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
            paraphrased=[self.paraphrased[i] for i in rows] if self.paraphrased else (),
            wrong=[self.wrong[i] for i in rows] if self.wrong else (),
            prefix=self.prefix,
            batch_tokens=self.batch_tokens,
            max_new_tokens=self.max_new_tokens,
        )
