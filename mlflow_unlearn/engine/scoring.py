"""A set of records as one model sees it: one teacher-forced pass and one greedy generation, each at most once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..protocols import Example, Sequences
from .batches import micro_batches
from .classifying import class_names
from .examples import device_of, padding
from .generation import greedy
from .head import token_scores
from .reference import moved_rows


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoredSubject:
    """A `protocols.Subject` backed by a Hugging Face causal language model; work is done on first use."""

    model: Any
    tokenizer: Any
    examples: Sequence[Example]
    answers: Sequence[str]
    """Per record, the true answer."""
    batch_tokens: int = 16384
    """Most padded tokens in one forward pass."""
    max_new_tokens: int = 48
    """Longest greedy answer, tokens."""

    @property
    def token_log_probs(self) -> Sequence[NDArray[np.float64]]:
        """Per record, the log-probability of each answer token including the end token, nats."""
        return self._teacher_forced[0]

    @property
    def token_hits(self) -> Sequence[NDArray[np.bool_]]:
        """Per record and answer token, whether the most likely token is the true one given the true prefix."""
        return self._teacher_forced[1]

    @cached_property
    def generations(self) -> Sequence[str]:
        """Per record, the greedy answer to its prompt, without special tokens and outer spaces; of a classifier the name of the class."""
        if any(example.label is not None for example in self.examples):
            return class_names(self.model, self.examples, self.batch_tokens, padding(self.tokenizer))
        prompts = [example.tokens[: example.prompt_length] for example in self.examples]
        answers = greedy(self.model, prompts, end=self.tokenizer.eos_token_id, max_new_tokens=self.max_new_tokens, batch_tokens=self.batch_tokens)
        return [self.tokenizer.decode(answer, skip_special_tokens=True).strip() for answer in answers]

    @cached_property
    def _teacher_forced(self) -> tuple[list[NDArray[np.float64]], list[NDArray[np.bool_]]]:
        log_probs: list[NDArray[np.float64]] = [np.empty(0)] * len(self.examples)
        hits: list[NDArray[np.bool_]] = [np.empty(0, dtype=np.bool_)] * len(self.examples)
        self.model.eval()
        for rows in micro_batches(self.examples, range(len(self.examples)), self.batch_tokens, padding(self.tokenizer)):
            for i, row_log_probs, row_hits in _scored(self.model, rows):
                log_probs[i], hits[i] = row_log_probs, row_hits
        return log_probs, hits


def _scored(model: torch.nn.Module, rows: Sequences) -> list[tuple[int, NDArray[np.float64], NDArray[np.bool_]]]:
    """Position in the set, token log-probabilities and hits of each row of a micro-batch."""
    log_probs, hits, owners = token_scores(model, moved_rows(rows, device_of(model)))
    cuts = torch.bincount(owners, minlength=len(rows.index)).cumsum(0)[:-1].cpu().numpy()
    return list(zip(rows.index.tolist(), np.split(log_probs.double().cpu().numpy(), cuts), np.split(hits.cpu().numpy(), cuts), strict=True))
