"""The relative question: is an unlearned model closer to one that never saw the records, or to the one that did?

Two retrained models differ too, so that `as a retrained one` can only be asked by comparison (Google Research, AISTATS 2026, gave the idea of three
samples; the statistics are ours).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from . import stats
from .errors import UnmeasurableError
from .records import Direction, Score

Values = NDArray[np.float64]


class Nearness(StrEnum):
    """Which model an unlearned one resembles more."""

    RETRAIN = "closer_to_retrain"
    ORIGINAL = "closer_to_original"
    UNDECIDED = "undecided"


@dataclass(frozen=True, kw_only=True)
class Relative:
    """The answer with what it rests on."""

    nearness: Nearness
    difference: Score
    """Mean over records of |unlearned - retrained| - |unlearned - original|, averaged over retrains: below 0 is closer to the retrain."""
    p_retrain: float
    p_original: float
    """Sign-flip p that the difference is as far below, and as far above, 0 as seen."""
    rho: Score | None
    """Distance to a retrain in units of that between two retrains; 1: as far as they are from each other. None with fewer than two, or alike ones."""


def nearness(unlearned: Values, original: Values, retrained: Values, resamples: int, seed: int, alpha: float = 0.05) -> Relative:
    """Compare one score per record of an unlearned model with the original's and with those of retrained models, on the same records.

    A side is named only when its p falls below alpha / 2 and the 95 % interval of the difference excludes 0. Being closer to the retrain is not
    having forgotten: half of what was known may remain. A model wrecked beyond both is told by rho, and by its utility.

    Args:
        unlearned: (n,) scores, e.g. log-probabilities of the answers.
        original: (n,) of the model before unlearning.
        retrained: (k, n) of k models that never saw the records.
        resamples: sign flips, and resamples of the bootstrap over records.
        seed: of both.
        alpha: error of naming a side wrongly, either way.

    Raises:
        UnmeasurableError: no records, or no retrained model.
        ValueError: the models scored different records, or a score is not finite.
    """
    _require_alike(unlearned, original, retrained)
    differences = np.abs(unlearned - retrained).mean(axis=0) - np.abs(unlearned - original)
    p_retrain, p_original = sign_flip_p(differences, resamples, seed)
    difference = stats.mean_score(differences, Direction.LOWER, resamples, seed)
    named = Nearness.UNDECIDED
    if p_retrain < alpha / 2 and difference.high < 0:
        named = Nearness.RETRAIN
    elif p_original < alpha / 2 and difference.low > 0:
        named = Nearness.ORIGINAL
    rho = _rho(unlearned, retrained, resamples, seed)
    return Relative(nearness=named, difference=difference, p_retrain=p_retrain, p_original=p_original, rho=rho)


def sign_flip_p(differences: Values, flips: int, seed: int) -> tuple[float, float]:
    """P that paired differences sum to as far below 0, and as far above, if each could as well have the other sign.

    (1 + exceedances) / (1 + flips), so that it is never 0.

    Exact where differences are symmetric about 0 under the null, approximate for many of any shape.
    """
    signs = np.random.default_rng(seed).integers(0, 2, (flips, len(differences)), dtype=np.int8) * 2.0 - 1.0
    drawn, observed = signs @ differences, differences.sum()
    slack = 1e-9 * float(np.abs(differences).sum())
    return (1 + int((drawn <= observed + slack).sum())) / (1 + flips), (1 + int((drawn >= observed - slack).sum())) / (1 + flips)


def _require_alike(unlearned: Values, original: Values, retrained: Values) -> None:
    if retrained.ndim != 2 or not retrained.shape[0] or not len(unlearned):
        found = f"{len(unlearned)} records and retrained scores of shape {retrained.shape}"
        raise UnmeasurableError(f"nearness: found {found}, expected records and at least one model trained without them, as (models, records)")
    if not len(unlearned) == len(original) == retrained.shape[1]:
        raise ValueError(f"nearness: expected the same records, found {len(unlearned)}, {len(original)} and {retrained.shape[1]}")
    if not all(np.isfinite(values).all() for values in (unlearned, original, retrained)):
        raise ValueError("nearness: expected finite scores")


def _rho(unlearned: Values, retrained: Values, resamples: int, seed: int) -> Score | None:
    pairs = [np.abs(retrained[i] - retrained[j]) for i, j in combinations(range(len(retrained)), 2)]
    among = np.mean(pairs, axis=0) if pairs else np.zeros(len(unlearned))
    if among.sum() == 0.0:
        return None
    away, n = np.abs(unlearned - retrained).mean(axis=0), len(unlearned)
    ratio = float(away.mean() / among.mean())
    weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), resamples)
    with np.errstate(divide="ignore", invalid="ignore"):
        drawn = np.nan_to_num((weights @ away) / (weights @ among), nan=math.inf, posinf=math.inf)
    low, high = np.quantile(drawn, [0.025, 0.975], method="higher")
    low, high = min(float(low), ratio), max(float(high), ratio)
    return Score(value=ratio, low=low, high=high, n=n, direction=Direction.NEAR_CENTRE, interval="bootstrap")
