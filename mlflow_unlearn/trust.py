"""The trust file: whose key may sign what, and which policy, data and ledger an owner stands for. Every change is a new value, signed by an owner.

Whoever can put another file in its place can trust himself: compare an owner's key id with what was told by another way (`verify --owner`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from . import verifier
from .documents import decode, encode
from .dsse import Signer, canonical, in_our_words, seal
from .errors import ConfigError
from .params import DataParams
from .policy import MOST_DAYS
from .signing_keys import check_holder, keep_from_git
from .statements import Role, Trust, TrustedKey
from .verifier.documents import moment
from .verifier.envelopes import TRUST_SCHEMA, TRUST_TYPE

DAYS = 730
"""How long a key is valid, unless said otherwise."""
OVERLAP = timedelta(days=30)
"""How long a rotated key goes on, so that what it signed can be signed again."""


@dataclass(frozen=True, kw_only=True)
class Pins:
    """What an owner stands for beside keys, as `Trust` has it; empty where it is not there yet."""

    policy_file: str = ""
    policy: str = ""
    data: str = ""


def this_second() -> datetime:
    """Now; a trust file has no smaller unit."""
    return datetime.now(UTC).replace(microsecond=0)


def read_trust(path: Path, now: datetime | None = None, owner: str | None = None) -> verifier.Trust:
    """The trust file as far as it may be believed now.

    Raises:
        ConfigError: there is none, or it cannot be read.
        TamperedError: no valid owner signed it, or not `owner`.
    """
    raw = _bytes(path)
    with in_our_words():
        return verifier.read_trust(raw, now or datetime.now(UTC), owner)


def held(path: Path, *, though_expired: bool = False) -> Trust:
    """The same as a value that can be changed.

    Args:
        path: the trust file.
        though_expired: it only had to hold when it was issued, so that an owner whose key has run out since can go on. Whoever stole such a key can
            write what passes here: look through it before anybody signs it again.
    """
    raw = _bytes(path)
    with in_our_words():
        document = verifier.read_json(verifier.open_envelope(raw, "trust file").payload, "trust file")
        issued_at = moment(document.get("issued_at") if isinstance(document, dict) else None, "trust file: issued_at")
        verifier.read_trust(raw, issued_at if though_expired else datetime.now(UTC))
    return decode(Trust, {name: value for name, value in document.items() if name != "schema"}, str(path))


def public_key(text: str) -> bytes:
    """32 bytes from 64 hex characters.

    Raises:
        ConfigError: anything else.
    """
    try:
        public = bytes.fromhex(text.strip())
    except ValueError:
        public = b""
    if len(public) != 32:
        raise ConfigError("public key: expected 64 hex characters, as `mlflow-unlearn key new` printed them where the key was made")
    return public


def trusted(public: bytes, holder: str, roles: Sequence[Role], days: int, now: datetime) -> TrustedKey:
    """A line for the trust file, valid from now on."""
    ordered = tuple(role for role in Role if role in roles)
    if not ordered or not 1 <= days <= MOST_DAYS:
        raise ConfigError(f"key of {holder}: expected a role (of {', '.join(Role)}) and 1 to {MOST_DAYS} days")
    ends = now + timedelta(days=days)
    identity, name = verifier.key_id(public), check_holder(holder)
    return TrustedKey(key_id=identity, public=public.hex(), holder=name, roles=ordered, valid_from=now, valid_until=ends)


def begun(key: TrustedKey, pins: Pins, now: datetime) -> Trust:
    """The first trust file.

    Raises:
        ConfigError: the key is no owner's.
    """
    if Role.OWNER not in key.roles:
        raise ConfigError("no trust file yet, and the first key signs it: begin with `mlflow-unlearn key new HOLDER --role owner`")
    return with_pins(Trust(number=0, issued_at=now, keys=(key,)), pins, now)


def with_key(trust: Trust, key: TrustedKey, now: datetime) -> Trust:
    """One more key.

    Raises:
        ConfigError: it is there already.
    """
    if any(each.key_id == key.key_id for each in trust.keys):
        raise ConfigError(f"trust file: key {key.key_id[:16]} is there already; see `mlflow-unlearn key show --all`")
    return replace(trust, number=trust.number + 1, issued_at=now, keys=(*trust.keys, key))


def rotated(trust: Trust, old: str, new: TrustedKey, now: datetime, overlap: timedelta = OVERLAP) -> Trust:
    """A new key, and an end for the one with the key id `old`: the end it had, or sooner.

    Raises:
        ConfigError: it is there already, or an overlap that is no such time.
    """
    if not timedelta(0) <= overlap <= timedelta(days=MOST_DAYS):
        raise ConfigError(f"key rotate: expected an overlap of 0 to {MOST_DAYS} days")
    ended = tuple(replace(each, valid_until=min(each.valid_until, now + overlap)) if each.key_id == old else each for each in trust.keys)
    return with_key(replace(trust, keys=ended), new, now)


def revoked(trust: Trust, key_ids: Sequence[str], reason: str, now: datetime) -> Trust:
    """These keys no longer count, nor anything they ever signed."""
    marked = tuple(replace(each, revoked_at=now, revoked_for=reason) if each.key_id in key_ids else each for each in trust.keys)
    return replace(trust, number=trust.number + 1, issued_at=now, keys=marked)


def with_pins(trust: Trust, pins: Pins, now: datetime) -> Trust:
    """Another policy.yaml or other data, by their digests."""
    return replace(trust, number=trust.number + 1, issued_at=now, **vars(pins))


def pins_of(trust: Trust) -> Pins:
    """What an owner stands for."""
    return Pins(policy_file=trust.policy_file, policy=trust.policy, data=trust.data)


def data_digest(data: DataParams) -> str:
    """What `Trust.data` has of `data` in params.yaml."""
    return hashlib.sha256(canonical(data, "params.yaml: data")).hexdigest()


def policy_file(path: Path) -> str:
    """sha256 of the bytes of a policy.yaml; empty where there is none."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""


def sealed(trust: Trust, signers: Sequence[Signer]) -> bytes:
    """The bytes of the trust file, which are read back as anybody would.

    Raises:
        ConfigError: after this change none of the signers would be an owner whose key is valid.
    """
    now, keys = trust.issued_at, {each.key_id: each for each in trust.keys}
    owners = [signer for signer in signers if (key := keys.get(signer.key_id)) and _is_owner(key, now)]
    if not owners:
        raise ConfigError("trust file: nobody who signs this change would be an owner after it; add another owner first, and let that one sign")
    raw = seal(canonical({"schema": TRUST_SCHEMA, **encode(trust)}, "trust file"), TRUST_TYPE, owners)
    with in_our_words():
        verifier.read_trust(raw, now)
    return raw


@contextmanager
def turn(state: Path) -> Iterator[None]:
    """Two that change the trust file of one repository take turns; `state` is its private folder."""
    from filelock import FileLock

    keep_from_git(state)
    with FileLock(state / "trust.lock"):
        yield


def _is_owner(key: TrustedKey, now: datetime) -> bool:
    return Role.OWNER in key.roles and key.revoked_at is None and key.valid_from <= now < key.valid_until


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: no trust file; begin one with `mlflow-unlearn key new HOLDER --role owner`, or set MLFLOW_UNLEARN_TRUST"
        ) from None
