"""Negative preference optimisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from .. import losses
from ..errors import ConfigError
from ..protocols import Batch, Reference
from ..records import Claim


@dataclass(frozen=True, kw_only=True)
class NPO:
    """Makes each forgotten answer less likely than the parent finds it, ever more gently, while retained answers keep their loss.

    L = -(2 / beta) E_forget[log sigmoid(-beta log(pi / pi_parent))] + retain_weight * mean-token NLL on retain, with log pi summed over the
    answer's tokens.

    Paper: Zhang, Lin, Bai and Mei 2024, "Negative Preference Optimization: From Catastrophic Collapse to Effective Unlearning"
    (arXiv:2404.05868), equation 3, with the retain term of section 3.2 ("NPO+RT").

    Does not guarantee that anything is removed from the weights: a little benign fine-tuning can bring the forgotten back. The authors' published
    code has no clamp, averages the retain loss per micro-batch, and runs the parent again in every step; its log-probabilities are the same here,
    computed once.
    """

    claim: ClassVar[Claim] = Claim.APPROXIMATE
    needs_reference: ClassVar[bool] = True

    beta: float = 0.1
    """Inverse temperature, 1/nats: the larger, the sooner a record that has moved away from the parent is left alone."""
    retain_weight: float = 5.0
    """Factor of the retain loss; the paper's 1 wrecks small models."""
    clamp: bool = True
    """Whether a record leaves the loss once it is as strange as the same record about a person never trained on; without it small models forget
    far more than was asked."""

    def __post_init__(self) -> None:
        if self.beta <= 0 or self.retain_weight < 0:
            raise ConfigError("beta must be above zero and retain_weight not below")

    def loss(self, model: torch.nn.Module, batch: Batch, reference: Reference | None) -> torch.Tensor:
        """This micro-batch's share of the loss of its optimiser batch; clamped records stay in the mean with weight 0.

        Raises:
            ConfigError: no reference was computed.
        """
        if reference is None:
            raise ConfigError("npo: needs the parent's log-probabilities, found no reference; compute one with engine.reference.reference_of")
        terms = []
        if batch.forget is not None:
            log_probs, tokens = losses.answer_log_probs(model, batch.forget)
            records = losses.npo_terms(log_probs, reference.log_probs[batch.forget.index], self.beta)
            if self.clamp:
                records = records * losses.above_floor(log_probs, tokens, reference.floors[batch.forget.index])
            terms.append(records.sum() / batch.forget_records)
        if batch.retain is not None:
            terms.append(self.retain_weight * losses.retain_nll(model, batch))
        return torch.stack(terms).sum()


EXPORT = NPO
