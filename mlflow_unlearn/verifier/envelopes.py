"""Signatures: who signed what, whom the trust file believes, and whether it counts today."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from .documents import LIMIT, RefusedError, UndecidedError, moment, read_json, whole

IN_TOTO, STATEMENT = "application/vnd.in-toto+json", "https://in-toto.io/Statement/v1"
TRUST_TYPE, TRUST_SCHEMA = "application/vnd.mlflow-unlearn.trust+json", "mlflow-unlearn.trust/1"
SKEW = timedelta(minutes=5)
"""How far clocks may differ."""


@dataclass(frozen=True, kw_only=True)
class Envelope:
    """A DSSE envelope (github.com/secure-systems-lab/dsse), of which nothing is verified yet."""

    payload_type: str
    payload: bytes
    signatures: tuple[tuple[str, bytes], ...]
    """(key id, signature)."""

    @property
    def digest(self) -> str:
        """sha256 of what is signed: the name of the statement, however many sign it."""
        return hashlib.sha256(self.payload).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Key:
    """An Ed25519 key, what its holder may sign, and when."""

    key_id: str
    public: bytes
    holder: str
    roles: frozenset[str]
    valid_from: datetime
    valid_until: datetime
    revoked_at: datetime | None
    revoked_for: str

    def refusal(self, role: str, now: datetime) -> str:
        """Why a signature of this key does not count now; empty when it does."""
        if self.revoked_at is not None:
            return f"was revoked ({self.revoked_for or 'no reason given'}), and with it everything that it ever signed"
        if role not in self.roles:
            return f"is not trusted as {role}, only as {', '.join(sorted(self.roles))}"
        if now > self.valid_until:
            return f"expired at {self.valid_until:%Y-%m-%d}"
        return f"is not valid before {self.valid_from:%Y-%m-%d}" if now + SKEW < self.valid_from else ""


@dataclass(frozen=True, kw_only=True)
class Trust:
    """Whom to believe what, as an owner signed it."""

    keys: Mapping[str, Key]
    owners: tuple[str, ...]
    """Ids of the owner keys that signed it: compare one with what you were told by another way."""
    policy_file: str
    """sha256 of the policy.yaml that they stand for, and below of its values, of how people are looked for, and an event of the ledger."""
    policy: str
    data: str
    ledger: tuple[int, str] | None
    number: int


@dataclass(frozen=True, kw_only=True)
class Statement:
    """An in-toto Statement with at least one signature that counts."""

    kind: str
    subject: list[dict[str, Any]]
    predicate: dict[str, Any]
    digest: str
    signers: tuple[Key, ...]
    """Keys whose signatures count."""
    holders: frozenset[str]
    """Of all keys that signed, also where a signature does not count any more: none of them may review it."""
    issued_at: datetime
    expires_at: datetime


def pae(payload_type: str, body: bytes) -> bytes:
    """What a signature covers (DSSE, "PAE")."""
    return b"DSSEv1 %d %s %d %s" % (len(payload_type.encode()), payload_type.encode(), len(body), body)


def key_id(public: bytes) -> str:
    """sha256 of an Ed25519 public key as SubjectPublicKeyInfo (RFC 8410: a fixed prefix and 32 bytes)."""
    return hashlib.sha256(bytes.fromhex("302a300506032b6570032100") + public).hexdigest()


_BASE64 = rb"[A-Za-z0-9+/]+={0,2}"
_SIGNATURE = re.compile(rb'\{"keyid":"([0-9a-f]{64})","sig":"(%s)"\}' % _BASE64)
_ENVELOPE = re.compile(
    rb'\{"payload":"(%s)","payloadType":"([a-z0-9.+/-]{1,80})","signatures":\[(%s(?:,%s){0,31})\]\}' % (_BASE64, *[_SIGNATURE.pattern] * 2)
)


def open_envelope(raw: bytes, what: str) -> Envelope:
    """The parts of an envelope: JSON that is written one way only, keys sorted and no spaces, so that no changed byte goes unnoticed."""
    if len(raw) > LIMIT:
        raise UndecidedError(f"{what}: {len(raw)} bytes; at most {LIMIT} are read")
    found = _ENVELOPE.fullmatch(raw)
    if found is None:
        raise UndecidedError(f"{what}: not a signed envelope of 1 to 32 signatures, byte for byte as it was written")
    signatures = tuple((identity.decode(), _decoded(text, what)) for identity, text in _SIGNATURE.findall(found[3]))
    if len({identity for identity, _ in signatures}) < len(signatures):
        raise UndecidedError(f"{what}: a key signs it twice")
    return Envelope(payload_type=found[2].decode(), payload=_decoded(found[1], what), signatures=signatures)


def _decoded(text: bytes, what: str) -> bytes:
    try:
        found = base64.b64decode(text, validate=True)
    except ValueError:
        found = b""
    if not found or base64.b64encode(found[-(len(found) % 3 or 3) :]) != text[-4:]:  # unused bits of the last character must be 0
        raise UndecidedError(f"{what}: not base64 as it is written")
    return found


def signs(key: Key, envelope: Envelope, signature: bytes) -> bool:
    """Whether this key made this signature of the envelope (RFC 8032)."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(key.public).verify(signature, pae(envelope.payload_type, envelope.payload))
    except (InvalidSignature, ValueError):
        return False
    return True


def counting(envelope: Envelope, keys: Mapping[str, Key], role: str, now: datetime, what: str) -> tuple[Key, ...]:
    """The keys whose signatures count for a role. One that is not known, or does not hold, shows that bytes were changed: then none counts."""
    counted, refused = [], []
    for identity, signature in envelope.signatures:
        key = keys.get(identity)
        if key is None:
            raise RefusedError(f"{what}: key {identity[:16]} signs it and is not in the trust file")
        if not signs(key, envelope, signature):
            raise RefusedError(f"{what}: the signature of {key.holder} ({identity[:16]}) does not hold: it was changed after signing")
        if why := key.refusal(role, now):
            refused.append(f"key {identity[:16]} of {key.holder} {why}")
        else:
            counted.append(key)
    if not counted:
        raise RefusedError(f"{what}: no signature counts: {'; '.join(refused)}")
    return tuple(counted)


def _issued(text: Any, now: datetime, what: str) -> datetime:
    if (issued := moment(text, f"{what}: issued_at")) > now + SKEW:
        raise UndecidedError(f"{what}: issued at {issued:%Y-%m-%d %H:%M} UTC, which is still to come: a clock is wrong, there or here")
    return issued


def read_trust(raw: bytes, now: datetime, owner: str | None = None) -> Trust:
    """The trust file. With `owner`, at least 16 characters of a key id, it must be that owner who signed it."""
    what, envelope = "trust file", open_envelope(raw, "trust file")
    found = read_json(envelope.payload, what)
    if envelope.payload_type != TRUST_TYPE or not isinstance(found, dict) or found.get("schema") != TRUST_SCHEMA:
        raise UndecidedError(f"{what}: of another kind or schema; this reads {TRUST_SCHEMA}")
    try:
        listed = [_key(each) for each in found["keys"]]
        number, issued_at = whole(found["number"]), found["issued_at"]
        pinned = {name: str(found[name]) for name in ("policy_file", "policy", "data")}
        event = found["ledger"] and (whole(found["ledger"]["number"]), str(found["ledger"]["digest"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UndecidedError(f"{what}: not in the shape of {TRUST_SCHEMA} ({str(error)[:80]})") from None
    keys = {each.key_id: each for each in listed}
    if not keys or len(keys) < len(listed):
        raise UndecidedError(f"{what}: {'a key stands there twice' if keys else 'it names no key, so nobody is trusted'}")
    _issued(issued_at, now, what)
    owners = tuple(key.key_id for key in counting(envelope, keys, "owner", now, what))
    if owner is not None and not any(each.startswith(owner.lower()) for each in owners if len(owner) >= 16):
        raise RefusedError(
            f"{what}: signed by {', '.join(each[:16] for each in owners)}, not by {owner[:64]}; give at least 16 characters of the key id"
        )
    return Trust(keys=keys, owners=owners, ledger=event, number=number, **pinned)


def _key(entry: Mapping[str, Any]) -> Key:
    public = bytes.fromhex(entry["public"])
    if len(public) != 32 or entry["key_id"] != key_id(public):
        raise ValueError("a key id that is not that of its public key")
    return Key(
        key_id=entry["key_id"],
        public=public,
        holder=str(entry["holder"]),
        roles=frozenset(map(str, entry["roles"])),
        valid_from=moment(entry["valid_from"], "valid_from"),
        valid_until=moment(entry["valid_until"], "valid_until"),
        revoked_at=None if entry["revoked_at"] is None else moment(entry["revoked_at"], "revoked_at"),
        revoked_for=str(entry["revoked_for"]),
    )


def read_statement(raw: bytes, trust: Trust, role: str, now: datetime) -> Statement:
    """A statement that somebody with this role signed, neither expired nor from the future."""
    what = {"evaluator": "certificate", "trainer": "lineage", "reviewer": "review"}.get(role, "statement")
    envelope = open_envelope(raw, what)
    signers = counting(envelope, trust.keys, role, now, what)
    found = read_json(envelope.payload, what)
    if envelope.payload_type != IN_TOTO or not isinstance(found, dict) or found.get("_type") != STATEMENT:
        raise UndecidedError(f"{what}: not an in-toto statement of version 1")
    subject, predicate = found.get("subject"), found.get("predicate")
    if not isinstance(predicate, dict) or not isinstance(subject, list) or not all(isinstance(each, dict) for each in subject):
        raise UndecidedError(f"{what}: a statement without subject and predicate")
    definition = predicate.get("buildDefinition")
    dated = definition.get("internalParameters") if isinstance(definition, dict) else predicate
    dated = dated if isinstance(dated, dict) else {}
    issued_at, expires_at = _issued(dated.get("issued_at"), now, what), moment(dated.get("expires_at"), f"{what}: expires_at")
    if now > expires_at:
        raise RefusedError(f"{what}: expired at {expires_at:%Y-%m-%d}; have it issued again")
    return Statement(
        kind=str(found.get("predicateType")),
        subject=subject,
        predicate=predicate,
        digest=envelope.digest,
        signers=signers,
        holders=frozenset(trust.keys[identity].holder for identity, _ in envelope.signatures),
        issued_at=issued_at,
        expires_at=expires_at,
    )
