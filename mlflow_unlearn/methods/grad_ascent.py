"""Gradient ascent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from ..engine.head import answer_log_probs
from ..protocols import Batch, Needs, Reference
from ..records import Claim


@dataclass(frozen=True, kw_only=True)
class GradAscent:
    """Climbs the loss of forgotten answers and looks at nothing else.

    L = -mean-token NLL on forget, over all answer tokens of the optimiser batch.

    Paper: Jang et al. 2023, "Knowledge Unlearning for Mitigating Privacy Risks in Language Models" (arXiv:2210.01504), section 3; as a baseline in
    Maini et al. 2024, "TOFU" (arXiv:2401.06121), section 3 ("Gradient Ascent").

    Does not guarantee that anything is removed from the weights, nor that the model survives: the loss has no lower bound and no record is kept, so
    that a few steps too many leave a model that answers nothing. Only the early stop and the choice of the best step hold it. Published code
    averages over the tokens of each micro-batch, not of the whole batch.
    """

    claim: ClassVar[Claim] = Claim.APPROXIMATE
    needs: ClassVar[Needs] = Needs(retain=False)

    def loss(self, model: torch.nn.Module, batch: Batch, reference: Reference) -> torch.Tensor:
        """This micro-batch's share of the loss of its optimiser batch.

        Raises:
            ValueError: the micro-batch has no forget rows.
        """
        if batch.forget is None:
            raise ValueError("grad_ascent: the micro-batch has no forget rows; this method asks for no retained records")
        log_probs, _ = answer_log_probs(model, batch.forget)
        return log_probs.sum() / batch.forget_tokens


EXPORT = GradAscent
