"""Weighted gradient ascent."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from .. import losses
from ..engine.head import token_log_probs
from ..engine.retaining import Keeping, Normalization, Retain
from ..errors import ConfigError
from ..protocols import Batch, Needs, Reference
from ..records import Claim


@dataclass(frozen=True, kw_only=True)
class WGA:
    """Climbs the loss of forgotten answers token by token, the less the less likely a token has become, while retained answers keep their loss.

    L = E_forget[p_t^alpha log p_t] + retain_weight * L_retain, mean over answer tokens, with no gradient through the weight p_t^alpha.

    Paper: Wang et al. 2025, "Rethinking LLM Unlearning Objectives: A Gradient Perspective and Go Beyond" (arXiv:2502.19301), where it has this name.

    Does not guarantee that anything is removed from the weights. A token at probability p pulls with p^alpha: one that is nearly forgotten is hardly
    pushed, and comes back as easily. At alpha 0 it is gradient difference and has no lower bound. Published code averages per micro-batch;
    the authors' (tmlr-group/G-effect, dataloader.py at ef368ee) calls the exponent beta and sets it to 5 where nothing is said.
    """

    claim: ClassVar[Claim] = Claim.APPROXIMATE

    alpha: float = 1.0
    """Exponent of the weight, dimensionless: the larger, the sooner an unlikely token is left alone (the leading toolkit's default for its beta)."""
    retain: Retain = "nll"
    """Loss on retained records: their own (nll) or the distance from the parent (kl)."""
    retain_weight: float = 1.0
    """Factor of the retain loss; 0 looks at no retained record."""
    normalization: Normalization = "paper"
    """The kl retain loss over answers (paper) or over all tokens, prompts included (published_code); see engine/retaining.py."""

    def __post_init__(self) -> None:
        _ = self.keeping  # refuses what is out of range
        if not 0 <= self.alpha < math.inf:
            raise ConfigError("alpha must not be below zero and must be finite")

    @property
    def keeping(self) -> Keeping:
        """The retain side."""
        return Keeping(retain=self.retain, weight=self.retain_weight, normalization=self.normalization)

    @property
    def needs(self) -> Needs:
        """What the retain loss asks for."""
        return self.keeping.needs(Needs())

    def loss(self, model: torch.nn.Module, batch: Batch, reference: Reference) -> torch.Tensor:
        """This micro-batch's share of the loss of its optimiser batch."""
        if batch.forget is None:
            return self.keeping.loss(model, batch, reference)
        log_probs, _ = token_log_probs(model, batch.forget)
        return losses.weighted_ascent_terms(log_probs, self.alpha).sum() / batch.forget_tokens


EXPORT = WGA
