"""Keys of people in memory, and trust files that an owner signed with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mlflow_unlearn import trust, verifier
from mlflow_unlearn.statements import Role, Trust, TrustedKey

NOW = datetime(2026, 11, 24, 18, tzinfo=UTC)
DAY = timedelta(days=1)


@dataclass(frozen=True)
class Person:
    """A holder with a key that follows from the name."""

    name: str

    @property
    def key(self) -> Ed25519PrivateKey:
        return _key(self.name)

    @property
    def public(self) -> bytes:
        return self.key.public_key().public_bytes_raw()

    @property
    def key_id(self) -> str:
        return verifier.key_id(self.public)

    def sign(self, message: bytes) -> bytes:
        return self.key.sign(message)

    def line(self, *roles: Role, days: int = 730, now: datetime = NOW) -> TrustedKey:
        """This key in a trust file."""
        return trust.trusted(self.public, self.name.partition("'")[0], roles, days, now)


@cache
def _key(name: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(sha256(name.encode()).digest())


ANA, BO, CY = Person("ana"), Person("bo"), Person("cy")


def trusting(*more: TrustedKey, **changes: object) -> Trust:
    """A trust file of the owner ANA, with more keys and any field changed."""
    begun = trust.begun(ANA.line(Role.OWNER), trust.Pins(), NOW)
    return replace(replace(begun, keys=(*begun.keys, *more)), **changes)  # type: ignore[arg-type]


def trust_bytes(held: Trust, signers: Sequence[Person] = (ANA,)) -> bytes:
    """Sealed as it is: unlike `trust.sealed` it does not look whether it makes sense."""
    return trust.seal(trust.canonical({"schema": trust.TRUST_SCHEMA, **trust.encode(held)}, "trust file"), trust.TRUST_TYPE, list(signers))
