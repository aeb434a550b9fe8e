"""Gradient difference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from .. import losses
from ..engine.head import answer_log_probs
from ..engine.retaining import Keeping, Normalization, Retain
from ..protocols import Batch, Needs, Reference
from ..records import Claim


@dataclass(frozen=True, kw_only=True)
class GradDiff:
    """Climbs the loss of forgotten answers while descending that of retained ones.

    L = -mean-token NLL on forget + retain_weight * L_retain, each mean over all answer tokens of the optimiser batch.

    Paper: Liu, Liu and Stone 2022, "Continual Learning and Private Unlearning" (arXiv:2203.12817), section 4; as a baseline for language models in
    Maini et al. 2024, "TOFU" (arXiv:2401.06121), section 3 ("Gradient Difference", and "KL Minimization" with retain: kl).

    Does not guarantee that anything is removed from the weights, nor that the model survives: the forget term has no lower bound; only the early stop
    and the choice of the best step hold it. Single records can stay verbatim while the average looks forgotten. Published code averages each
    term per micro-batch.
    """

    claim: ClassVar[Claim] = Claim.APPROXIMATE

    retain: Retain = "nll"
    """Loss on retained records: their own (nll) or the distance from the parent (kl)."""
    retain_weight: float = 1.0
    """Factor of the retain loss; 0 looks at no retained record."""
    normalization: Normalization = "paper"
    """The kl retain loss over answers (paper) or over all tokens, prompts included (published_code); see engine/retaining.py."""
    clamp: bool = False
    """Whether a record leaves the loss once it is as strange as the same record about a person never trained on; not in the paper."""

    def __post_init__(self) -> None:
        _ = self.keeping  # refuses what is out of range

    @property
    def keeping(self) -> Keeping:
        """The retain side."""
        return Keeping(retain=self.retain, weight=self.retain_weight, normalization=self.normalization)

    @property
    def needs(self) -> Needs:
        """What clamp and retain loss ask for."""
        return self.keeping.needs(Needs(floors=self.clamp))

    def loss(self, model: torch.nn.Module, batch: Batch, reference: Reference) -> torch.Tensor:
        """This micro-batch's share of the loss of its optimiser batch; clamped records stay in the mean with weight 0."""
        if batch.forget is None:
            return self.keeping.loss(model, batch, reference)
        log_probs, tokens = answer_log_probs(model, batch.forget)
        floors = reference.forget.floors
        terms = losses.clamped(log_probs, log_probs, tokens, None if floors is None else floors[batch.forget.index]) if self.clamp else log_probs
        return terms.sum() / batch.forget_tokens


EXPORT = GradDiff
