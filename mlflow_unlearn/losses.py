"""The forget losses of the literature as pure tensor functions of log-probabilities. Where those come from is the engine's business."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from .errors import ConfigError


def npo_terms(log_probs: Tensor, reference: Tensor, beta: float) -> Tensor:
    """(rows,) the bounded forget loss of each record.

    -(2 / beta) log sigmoid(-beta log(pi / pi_ref)), the summand of equation 3 in Zhang et al. 2024, "Negative Preference Optimization"
    (arXiv:2404.05868). At pi = pi_ref it is (2 / beta) log 2 and its gradient is that of gradient ascent; as beta -> 0 it becomes it.
    """
    return -(2.0 / beta) * functional.logsigmoid(-beta * (log_probs - reference))


def sim_npo_terms(log_probs: Tensor, tokens: Tensor, beta: float, gamma: float) -> Tensor:
    """(rows,) the same without a reference and per token.

    -(2 / beta) log sigmoid(-(beta / |y|) log pi - gamma), the summand of SimNPO in Fan et al. 2024 (arXiv:2410.07163).
    """
    return -(2.0 / beta) * functional.logsigmoid(-beta * log_probs / tokens - gamma)


def weighted_ascent_terms(log_probs: Tensor, alpha: float) -> Tensor:
    """(tokens,) log-probabilities, each weighted by its own probability to the power alpha, through which no gradient flows (arXiv:2502.19301)."""
    return (alpha * log_probs.detach()).exp() * log_probs


def clamped(terms: Tensor, log_probs: Tensor, tokens: Tensor, floors: Tensor | None) -> Tensor:
    """(rows,) the terms of records still better known than a stranger's, 0 for the others.

    Args:
        terms: (rows,) loss of each record.
        log_probs: (rows,) summed log-probability of each answer, nats.
        tokens: (rows,) answer tokens.
        floors: (rows,) mean token loss, nats, at which a record is as strange as the same one about a person never trained on.

    Raises:
        ConfigError: there are no floors.
    """
    if floors is None:
        raise ConfigError("clamp: needs the floors of the forget records, found none; ask for them in Needs.floors and compute a reference")
    return torch.where(-log_probs.detach() / tokens < floors, terms, torch.zeros_like(terms))
