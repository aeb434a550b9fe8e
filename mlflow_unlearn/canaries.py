"""Natural canaries: real records whose presence in the training data is decided by a coin flip that is committed before training.

Included-then-forgotten canaries and never-included ones differ by the flip alone, so that what still tells them apart in the unlearned model was
not forgotten: no retrained model is needed (Steinke, Nasr and Jagielski 2023, arXiv:2305.08846, for one training run).
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal

from .digests import canonical_json
from .errors import DataError

Pool = Literal["audit", "tuning"]


@dataclass(frozen=True, kw_only=True, order=True)
class Flip:
    """One canary and its coin."""

    record_id: str
    pool: Pool
    """`audit` canaries decide the verdict and are opened once an attempt; `tuning` canaries may be looked at while unlearning."""
    included: bool


def draw(record_ids: Collection[str], *, audit: int, tuning: int, seed: int) -> tuple[Flip, ...]:
    """Choose canaries and flip a fair, independent coin for each.

    Args:
        record_ids: who may become a canary; their order does not matter.
        audit: how many decide the verdict.
        tuning: how many may steer the unlearning.
        seed: of the choice and the coins.

    Raises:
        DataError: fewer records than canaries, or a repeated id.
    """
    ids = sorted(set(record_ids))
    if len(ids) < audit + tuning or len(ids) < len(record_ids):
        raise DataError(f"canaries: expected at least {audit + tuning} distinct records, found {len(ids)}; ask for fewer or give more data")
    generator = random.Random(f"canaries {seed}")  # noqa: S311 - reproducible; the commitment, not secrecy of the seed, binds the flips
    chosen = generator.sample(ids, audit + tuning)
    flips = [
        Flip(record_id=record_id, pool="audit" if number < audit else "tuning", included=generator.random() < 0.5)
        for number, record_id in enumerate(chosen)
    ]
    return tuple(sorted(flips))


def commitment(flips: Iterable[Flip], salt: bytes) -> str:
    """Hex SHA-256 over the salt and the sorted flips: binds them without showing them."""
    rows = [[flip.record_id, flip.pool, flip.included] for flip in sorted(flips)]
    return hashlib.sha256(b"mlflow-unlearn canaries" + salt + canonical_json(rows)).hexdigest()


def describe(audit: int, tuning: int) -> str:
    """What a pool of this size can and cannot show, in two sentences (figures measured on a 283 k-parameter Llama, docs/design.md)."""
    from .epsilon import detectable_epsilon  # local: scipy is slow to import and only this sentence needs it

    noise = (1 / (3 * max(audit, 1))) ** 0.5
    if audit >= 800:
        power = "an honest retrain passes the limit of 0.07 around AUC 0.5 in about nine of ten draws"
    elif audit >= 400:
        power = "an honest retrain passes the limit of 0.10 around AUC 0.5 in about nine of ten draws"
    else:
        power = "that is too few for any removal to pass: the verdict can be FAIL or INCONCLUSIVE only"
    ceiling = f"a perfect attack on them would show epsilon {detectable_epsilon(audit):.1f} and nothing can show more"
    return (
        f"{audit} audit and {tuning} tuning canaries: chance alone moves the audit AUC by {noise:.3f} (one standard error); {ceiling}; {power}. "
        "They show what the method leaves of records like these, not that a single person's record is gone."
    )
