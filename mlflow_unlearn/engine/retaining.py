"""What keeps a model whole while it forgets: the loss on retained records that most methods add to their own."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch

from ..errors import ConfigError
from ..protocols import Batch, Needs, Reference, Sequences, View
from .forward import with_prompts
from .head import Teacher, divergences, retain_nll

Retain = Literal["nll", "kl"]
"""`nll`: the answers' own loss. `kl`: stay close to the parent's whole distributions."""
Normalization = Literal["paper", "published_code"]
"""Where a paper and the code that its figures were made with differ; each method says in what."""


@dataclass(frozen=True, kw_only=True)
class Keeping:
    """The retain side of a method's loss.

    `kl` is KL(parent || model), "KL minimization" in Maini et al. 2024, "TOFU" (arXiv:2401.06121), section 3. Here it is the mean over the answer
    tokens of the optimiser batch. With published_code it is the mean over all tokens, prompts included, as the leading toolkit takes it
    (locuslab/open-unlearning, src/trainer/utils.py at d3d7cf9). That code also counts each row's last place, which predicts nothing, and padding,
    which depends on who shares a batch: both are left out here.
    """

    retain: Retain = "nll"
    weight: float = 1.0
    normalization: Normalization = "paper"

    def __post_init__(self) -> None:
        if self.retain not in get_args(Retain) or self.normalization not in get_args(Normalization):
            raise ConfigError(f"retain must be one of {_words(Retain)} and normalization one of {_words(Normalization)}")
        if not 0 <= self.weight < math.inf:
            raise ConfigError("retain_weight must not be below zero and must be finite")

    def needs(self, needs: Needs) -> Needs:
        """What the forget side needs, and what this side needs too."""
        if not self.weight:
            return replace(needs, retain=False)
        if self.retain == "nll":
            return needs
        return replace(needs, answer_states=needs.answer_states | {"retain"}, prompts_too=needs.prompts_too or self.normalization == "published_code")

    def loss(self, model: torch.nn.Module, batch: Batch, reference: Reference) -> torch.Tensor:
        """Scalar: this micro-batch's share of the weighted loss over the retained records of the optimiser batch, nats per token.

        Raises:
            ValueError: the micro-batch has no retain rows.
            ConfigError: `kl`, and the parent's states are missing.
        """
        rows = batch.retain
        if self.retain == "nll" or rows is None:
            return self.weight * retain_nll(model, batch)
        everywhere = counts_prompts(rows, self.normalization)
        tokens = batch.retain_sequence_tokens if everywhere else batch.retain_tokens
        values = divergences(model, with_prompts(rows) if everywhere else rows, parent_of(reference.retain, reference, rows.index))
        return self.weight * values.sum() / tokens


def counts_prompts(rows: Sequences, normalization: Normalization) -> bool:
    """Whether distributions over prompt tokens count; a sequence classifier has one distribution a record and none there."""
    return normalization == "published_code" and rows.classes is None


def parent_of(view: View, reference: Reference, index: torch.Tensor, penalties: torch.Tensor | None = None) -> Teacher:
    """The parent as a teacher of the rows `index`.

    Raises:
        ConfigError: its states are missing.
    """
    if view.answer_states is None or reference.head is None:
        raise ConfigError("needs the parent's states, found none; name the side in Needs.answer_states and compute a reference")
    return Teacher(states=view.answer_states.rows(index), head=reference.head, penalties=penalties)


def _words(choices: object) -> str:
    return ", ".join(get_args(choices))
