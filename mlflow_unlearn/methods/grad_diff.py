"""Gradient difference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from .. import losses
from ..errors import ConfigError
from ..protocols import Batch, Reference
from ..records import Claim


@dataclass(frozen=True, kw_only=True)
class GradDiff:
    """Climbs the loss of forgotten answers while descending that of retained ones.

    L = -mean-token NLL on forget + retain_weight * mean-token NLL on retain, each mean over all answer tokens of the optimiser batch.

    Paper: Liu, Liu and Stone 2022, "Continual Learning and Private Unlearning" (arXiv:2203.12817), section 4; as a baseline for language models in
    Maini et al. 2024, "TOFU" (arXiv:2401.06121), section 3.

    Does not guarantee that anything is removed from the weights, nor that the model survives: the forget term has no lower bound, only the clamp
    and the early stop hold it. Single records can stay verbatim while the average looks forgotten. Published code averages each term per
    micro-batch and has no clamp.
    """

    claim: ClassVar[Claim] = Claim.APPROXIMATE
    needs_reference: ClassVar[bool] = True
    """For the clamp's floors."""

    retain_weight: float = 5.0
    """Factor of the retain loss."""
    clamp: bool = True
    """Whether a record leaves the loss once it is as strange as the same record about a person never trained on."""

    def __post_init__(self) -> None:
        if self.retain_weight < 0:
            raise ConfigError("retain_weight must not be below zero")

    def loss(self, model: torch.nn.Module, batch: Batch, reference: Reference | None) -> torch.Tensor:
        """This micro-batch's share of the loss of its optimiser batch; clamped records stay in the mean with weight 0.

        Raises:
            ConfigError: the clamp is on and no reference was computed.
        """
        if self.clamp and reference is None:
            raise ConfigError("grad_diff: the clamp needs the parent's floors, found no reference; set clamp: false or compute one")
        terms = []
        if batch.forget is not None:
            log_probs, tokens = losses.answer_log_probs(model, batch.forget)
            if self.clamp and reference is not None:
                log_probs = log_probs * losses.above_floor(log_probs, tokens, reference.floors[batch.forget.index])
            terms.append(log_probs.sum() / batch.forget_tokens)
        if batch.retain is not None:
            terms.append(self.retain_weight * losses.retain_nll(model, batch))
        return torch.stack(terms).sum()


EXPORT = GradDiff
