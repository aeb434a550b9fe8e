"""Unlearning quality as a game: can anybody who holds the model tell forgotten records from never-seen ones, when the two change places?

One model was trained on F and forgot it while T was never seen; a second one was made the other way round. An attack that merely knows the records
wins one of the games and loses the other, so that the luck of a split, and a table of the records, count for nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .errors import UnmeasurableError
from .records import Direction, Score

Values = NDArray[np.float64]

SHARES = np.linspace(0.01, 0.99, 99)
"""What share of the records an attack may call forgotten; which one is chosen on the half that is not scored."""
LEAST = 4
"""Records a set must have to be halved twice."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Swapped:
    """One attack's suspicions in both games, higher = more likely trained on; the records of a set in the same order in both."""

    forgotten_first: Values
    """(f,) the set F under the model that was trained on F and forgot it."""
    unseen_first: Values
    """(t,) the set T under that model."""
    unseen_second: Values
    """(f,) the set F under the model that was trained on T and forgot it."""
    forgotten_second: Values
    """(t,) the set T under that model."""

    @property
    def sizes(self) -> tuple[int, int]:
        """Records of F and of T."""
        return len(self.forgotten_first), len(self.forgotten_second)


@dataclass(frozen=True, kw_only=True)
class Quality:
    """What a set of attacks could tell."""

    quality: Score
    """1 - the largest advantage: 1 where these attacks told nothing, which does not show that no attack could."""
    advantage: Score
    """The largest advantage over the attacks, with limits that allow for there being several."""
    attacks: Mapping[str, Score]
    """Each attack's own advantage, of the better of its two sides, under the same joint limits; at most 0 where neither told anything."""


def unlearning_quality(attacks: Mapping[str, Swapped], resamples: int, seed: int, level: float = 0.95) -> Quality:
    """Q = 1 - sup Adv over the attacks, from two models (SWAP test).

    Every attack counts twice, as one that calls the most suspicious share of a model's records forgotten and as one that calls the least suspicious
    so. The share is chosen on one half of the records and the advantage measured on the other, both ways round (choosing the side there too would
    spoil the limits: one lucky split then decides both halves). Limits come from a bootstrap of records that keeps both models' answers together,
    widened by the largest deviation over attacks so that they hold for all of them at once.

    The models are taken as they are: how another training would come out is not in the limits. F and T must be drawn alike, not by class or person.
    Paper: Tu, Hu and Ma 2024, "Towards Reliable Empirical Machine Unlearning Evaluation" (arXiv:2404.11577), the SWAP test.

    Args:
        attacks: name -> suspicions.
        resamples: of the bootstrap.
        seed: of the halving and the resamples.
        level: of the limits.

    Raises:
        UnmeasurableError: no attack, or fewer than 4 records in a set.
        ValueError: the games were played with different records, or a suspicion is not a number.
    """
    f, t = _sizes(attacks)
    generator = np.random.default_rng(seed)
    halves = tuple(_half(size, generator) for size in (f, t))
    scored = [_contributions(swapped, halves, sign) for swapped in attacks.values() for sign in (1.0, -1.0)]
    of_f, of_t = (np.stack([pair[side] for pair in scored]) for side in (0, 1))
    value = of_f.mean(axis=1) + of_t.mean(axis=1)
    error = np.maximum(np.sqrt(of_f.var(axis=1, ddof=1) / f + of_t.var(axis=1, ddof=1) / t), 0.5 / min(f, t))
    drawn = sum(generator.multinomial(n, np.full(n, 1 / n), resamples) @ side.T / n for n, side in ((f, of_f), (t, of_t)))
    reach = float(np.quantile((np.abs(drawn - value) / error).max(axis=1), level))
    sides = np.stack([value, value - reach * error, value + reach * error], axis=1).reshape(len(attacks), 2, 3).max(axis=1)
    each = {name: _score(side, f + t) for name, side in zip(attacks, sides, strict=True)}
    advantage = _score(np.clip(sides.max(axis=0), 0.0, 1.0), f + t)
    quality = Score(
        value=1 - advantage.value,
        low=1 - advantage.high,
        high=1 - advantage.low,
        n=f + t,
        direction=Direction.HIGHER,
        interval=advantage.interval,
    )
    return Quality(quality=quality, advantage=advantage, attacks=each)


def advantage_bound(epsilon: float, delta: float = 0.0) -> float:
    """The largest advantage that (epsilon, delta)-certified removal allows any attack: 2 (1 - (2 - 2 delta) / (e^epsilon + 1)), at most 1."""
    return float(min(1.0, 2.0 * (1.0 - (2.0 - 2.0 * delta) / (np.exp(epsilon) + 1.0))))


def _score(value_and_limits: Values, n: int) -> Score:
    value, low, high = map(float, value_and_limits)
    return Score(value=value, low=low, high=high, n=n, direction=Direction.LOWER, interval="bootstrap-max")


def _sizes(attacks: Mapping[str, Swapped]) -> tuple[int, int]:
    """Records of F and T, the same for every attack and game."""
    if not attacks:
        raise UnmeasurableError("unlearning quality: no attack given, expected at least one")
    first = next(iter(attacks.values())).sizes
    for name, each in attacks.items():
        if (len(each.unseen_second), len(each.unseen_first)) != first or each.sizes != first:
            raise ValueError(f"unlearning quality: {name} saw other records than the rest; expected the same {first} in both games")
        if any(np.isnan(values).any() for values in (each.forgotten_first, each.unseen_first, each.unseen_second, each.forgotten_second)):
            raise ValueError(f"unlearning quality: {name} has suspicions that are not numbers, expected such as can be ordered")
    if min(first) < LEAST:
        raise UnmeasurableError(f"unlearning quality: found {first[0]} and {first[1]} records, expected at least {LEAST} in each set")
    return first


def _half(n: int, generator: np.random.Generator) -> NDArray[np.bool_]:
    return generator.permutation(n) < n // 2


def _contributions(swapped: Swapped, halves: tuple[NDArray[np.bool_], ...], sign: float) -> tuple[Values, Values]:
    """(f,) and (t,) what every record adds to the advantage of one side, at a share that it had no part in choosing."""
    of_f, of_t = (np.zeros(size) for size in swapped.sizes)
    for choosing in ((halves[0], halves[1]), (~halves[0], ~halves[1])):
        in_f, in_t = _called(swapped, choosing)
        advantages = in_f[:, choosing[0]].mean(axis=1) + in_t[:, choosing[1]].mean(axis=1)
        best = int((sign * advantages).argmax())
        of_f[~choosing[0]] = sign * in_f[best, ~choosing[0]]
        of_t[~choosing[1]] = sign * in_t[best, ~choosing[1]]
    return of_f, of_t


def _called(swapped: Swapped, choosing: tuple[NDArray[np.bool_], ...]) -> tuple[Values, Values]:
    """(shares, f) and (shares, t): half of (called forgotten where it was - called forgotten where it was not), for every share.

    A model's threshold is a quantile of its own suspicions on the choosing half, whoever was forgotten: it needs no label, and two models need not
    be equally sure.
    """
    games = ((swapped.forgotten_first, swapped.unseen_first), (swapped.unseen_second, swapped.forgotten_second))
    called = []
    for in_f, in_t in games:
        known = np.concatenate([in_f[choosing[0]], in_t[choosing[1]]])
        thresholds = np.quantile(known, 1.0 - SHARES, method="higher")[:, None]
        called.append(((in_f >= thresholds).astype(np.float64), (in_t >= thresholds).astype(np.float64)))
    return (called[0][0] - called[1][0]) / 2, (called[1][1] - called[0][1]) / 2
