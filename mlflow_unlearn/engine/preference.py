"""Preferring one answer to another: the loss of the methods that put an answer wanted instead beside each forgotten one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import torch
from torch.nn import functional

from ..errors import ConfigError
from ..protocols import Batch, Reference
from .batches import shuffled_cycle
from .head import answer_log_probs
from .retaining import Normalization


def preference_loss(model: torch.nn.Module, batch: Batch, reference: Reference, beta: float, normalization: Normalization) -> torch.Tensor:
    """This micro-batch's share of the mean over forget records of -log sigmoid(beta * margin), with gradient.

    That is equation 7 of Rafailov et al. 2023, "Direct Preference Optimization" (arXiv:2305.18290). With published_code it is multiplied by 2 / beta,
    which weighs it against the retain loss as NPO is weighed: twenty times as much at beta 0.1 (licong-lin/negative-preference-optimization,
    TOFU/dataloader.py at 9e5f646; locuslab/open-unlearning, src/trainer/utils.py at d3d7cf9).

    Args:
        model: the model that forgets.
        batch: forget rows, and beside each the same prompt with the answer wanted instead.
        reference: the parent's summed log-probabilities of both.
        beta: inverse temperature, 1/nats.
        normalization: whose factor.
    """
    scale = 1.0 if normalization == "paper" else 2.0 / beta
    return -scale * functional.logsigmoid(beta * margins(model, batch, reference)).sum() / batch.forget_records


def margins(model: torch.nn.Module, batch: Batch, reference: Reference) -> torch.Tensor:
    """How much further than the parent the model prefers each wanted answer to the forgotten one, with gradient; at the parent it is 0.

    log(pi(wanted) / pi_parent(wanted)) - log(pi(forgotten) / pi_parent(forgotten)), with log pi summed over the answer's tokens.

    Returns:
        (forget rows,) nats.

    Raises:
        ConfigError: the wanted answers or what the parent says of either are missing.
    """
    wanted, forgotten = batch.alternative, batch.forget
    of_wanted, of_forgotten = reference.alternative.log_probs, reference.forget.log_probs
    if wanted is None or forgotten is None or of_wanted is None or of_forgotten is None:
        raise ConfigError(
            "preference: needs both answers and the parent's log-probabilities of both, found not all of them; put log_probs and alternatives into "
            "Needs and compute a reference with engine.reference.reference_of"
        )
    now_wanted, _ = answer_log_probs(model, wanted)
    now_forgotten, _ = answer_log_probs(model, forgotten)
    return (now_wanted - of_wanted[wanted.index]) - (now_forgotten - of_forgotten[forgotten.index])


def dealt(texts: Sequence[str], records: int, seed: int) -> list[str]:
    """One text a record: each round deals out all of them once, in an order of its own that the seed decides."""
    return [texts[i] for i in islice(shuffled_cycle(len(texts), torch.Generator().manual_seed(seed)), records)]
