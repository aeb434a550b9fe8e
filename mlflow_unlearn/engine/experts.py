"""Shard models that answer row by row: each row of a batch is computed by the shard that it belongs to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ..errors import ConfigError


class Experts(Protocol):
    """Models of one architecture, one a shard."""

    @property
    def alive(self) -> tuple[int, ...]:
        """Shards that can answer, ascending."""

    @property
    def config(self) -> Any:
        """Hugging Face configuration of one model."""

    def expert(self, shard: int) -> torch.nn.Module:
        """One shard's model, in eval mode."""

    def routed(self, shards: Sequence[int]) -> torch.nn.Module:
        """A model of the same interface whose row i is computed by shard `shards[i]`; its cache keeps the routing when rows are dropped."""


@dataclass(frozen=True)
class Answer:
    """What a forward pass gives, as far as generation and scoring look at it."""

    logits: Tensor
    past_key_values: Any = None


class WeightExperts:
    """Whole models, one a shard."""

    def __init__(self, models: Mapping[int, torch.nn.Module]) -> None:
        if not models:
            raise ConfigError("an ensemble needs at least one shard that can answer; every shard is empty or switched off")
        self._models = {shard: models[shard].eval() for shard in sorted(models)}

    @property
    def alive(self) -> tuple[int, ...]:
        """Shards that can answer, ascending."""
        return tuple(self._models)

    @property
    def config(self) -> Any:
        """Hugging Face configuration of one model."""
        return next(iter(self._models.values())).config

    def expert(self, shard: int) -> torch.nn.Module:
        """One shard's model."""
        return self._models[shard]

    def routed(self, shards: Sequence[int]) -> torch.nn.Module:
        """Each row by its shard's model; rows of one shard run together."""
        present = sorted(set(shards))
        return self._models[present[0]] if len(present) == 1 else _Routed({shard: self._models[shard] for shard in present}, shards)


class _Routed(torch.nn.Module):
    """Rows of a batch dealt out to whole models."""

    def __init__(self, models: Mapping[int, torch.nn.Module], shards: Sequence[int]) -> None:
        super().__init__()
        self.models, self.shards = torch.nn.ModuleDict({str(shard): model for shard, model in models.items()}), list(shards)
        self.config = _NoHead(getattr(next(iter(models.values())).config, "id2label", None))

    def forward(self, input_ids: Tensor, past_key_values: _RoutedCache | None = None, **given: Any) -> Answer:
        """Logits row by row; keyword arguments that have a value a row are dealt out like the rows."""
        shards = past_key_values.shards if past_key_values else self.shards
        caches, logits = {}, None
        for shard in sorted(set(shards)):
            rows = torch.tensor([i for i, own in enumerate(shards) if own == shard], device=input_ids.device)
            own = {name: value[rows] if isinstance(value, Tensor) else value for name, value in given.items()}
            past = past_key_values.caches[shard] if past_key_values else None
            found = self.models[str(shard)](input_ids=input_ids[rows], past_key_values=past, **own)
            logits = found.logits.new_empty(len(shards), *found.logits.shape[1:]) if logits is None else logits
            logits[rows] = found.logits
            caches[shard] = getattr(found, "past_key_values", None)
        if logits is None:
            raise ConfigError("an ensemble was asked about no rows")
        return Answer(logits, _RoutedCache(list(shards), caches))


@dataclass
class _RoutedCache:
    """Each shard's own cache, and whose row is whose."""

    shards: list[int]
    caches: dict[int, Any]

    def batch_select_indices(self, kept: Tensor) -> None:
        """Keep these rows, in this order, which must be ascending."""
        places = kept.tolist()
        for shard in set(self.shards):
            own = [i for i, each in enumerate(self.shards) if each == shard]
            left = [own.index(i) for i in places if self.shards[i] == shard]
            if left and len(left) < len(own):
                self.caches[shard].batch_select_indices(torch.tensor(left, device=kept.device))
        self.shards = [self.shards[i] for i in places]


class Averaged(torch.nn.Module):
    """The mean of all experts' next-token distributions (Bourtoule et al. 2021, section VII.B, aggregate by mean vector)."""

    def __init__(self, experts: Experts) -> None:
        super().__init__()
        self.models = torch.nn.ModuleList([experts.expert(shard) for shard in experts.alive])
        self.config = _NoHead(getattr(experts.config, "id2label", None))

    def forward(self, input_ids: Tensor, past_key_values: _ManyCaches | None = None, **given: Any) -> Answer:
        """(rows, places, vocabulary) logarithms of the aggregated probabilities; (rows, classes) for classifiers."""
        pasts = past_key_values.caches if past_key_values else [None] * len(self.models)
        caches, votes, total = [], [], input_ids.new_full((), -math.inf, dtype=torch.float32)
        for model, past in zip(self.models, pasts, strict=True):
            found = model(input_ids=input_ids, past_key_values=past, **given)
            caches.append(getattr(found, "past_key_values", None))
            # Sums of probabilities as logarithms: what all experts find next to impossible stays a number, and one table is held, not one an expert.
            log_probs = found.logits.float().log_softmax(-1)
            votes.append(log_probs.argmax(-1, keepdim=True))
            total = torch.logaddexp(total, log_probs)
        return Answer(self.aggregated(total - math.log(len(votes)), torch.cat(votes, -1)), _ManyCaches(caches))

    def aggregated(self, mean: Tensor, votes: Tensor) -> Tensor:
        """Logarithm of the mean distribution (..., vocabulary) and each expert's most likely token (..., experts) to log-probabilities."""
        return mean


class Voted(Averaged):
    """The experts' votes for their most likely token, ties broken by mean probability (Bourtoule et al. 2021, section VII.B, majority vote).

    One more voter with the mean distribution joins, which breaks ties and leaves no token without probability: (votes + mean) / (S + 1).
    """

    def aggregated(self, mean: Tensor, votes: Tensor) -> Tensor:
        """Log-probabilities (..., vocabulary)."""
        counts = torch.zeros_like(mean).scatter_add_(-1, votes, torch.ones_like(votes, dtype=mean.dtype))
        return torch.logaddexp(counts.log(), mean) - math.log(votes.shape[-1] + 1)


@dataclass
class _ManyCaches:
    caches: list[Any]

    def batch_select_indices(self, kept: Tensor) -> None:
        """Keep these rows."""
        for cache in self.caches:
            cache.batch_select_indices(kept)


@dataclass(frozen=True)
class _NoHead:
    """Says that the logits are already all there is: no one head may be taken out of several models."""

    id2label: Mapping[int, str] | None
    model_type: str = "several models"
