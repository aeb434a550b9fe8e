"""Signed envelopes: values to the bytes that are signed, and signatures on them. Reading and verifying them is `verifier` alone."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import rfc8785

from .digests import canonical_json
from .documents import encode
from .errors import ConfigError, TamperedError
from .verifier import RefusedError, UndecidedError, open_envelope, pae
from .verifier.envelopes import STATEMENT

_SIGNATURE_BYTES = 64


@runtime_checkable
class Signer(Protocol):
    """One Ed25519 key that signs: a file of this machine, or a KMS or HSM behind an entry point of the group `mlflow_unlearn.signers`."""

    @property
    def key_id(self) -> str:
        """sha256 of the public key as SubjectPublicKeyInfo, 64 hex characters."""
        ...

    def sign(self, message: bytes) -> bytes:
        """The 64 bytes of an Ed25519 signature (RFC 8032, not the pre-hashed variant); what goes wrong is an UnlearnError."""
        ...


@contextmanager
def in_our_words() -> Iterator[None]:
    """The verifier's two answers as errors of this package: it stands alone and knows none of them.

    Raises:
        TamperedError: something is there, and does not hold.
        ConfigError: something is missing, unreadable or unknown.
    """
    try:
        yield
    except RefusedError as error:
        raise TamperedError(str(error)) from None
    except UndecidedError as error:
        raise ConfigError(str(error)) from None


def canonical(value: Any, what: str) -> bytes:
    """RFC 8785 bytes of a dataclass or JSON value.

    Raises:
        ConfigError: it has a value that JSON does not hold the same everywhere: NaN, a whole number from 2^53 on, half a character.
    """
    document = encode(value)
    try:
        _refuse_large(document)
        return rfc8785.dumps(document)
    except (rfc8785.CanonicalizationError, UnicodeEncodeError) as error:
        raise ConfigError(f"{what}: cannot be signed, since JSON has no one way to write it ({str(error)[:80]})") from None


def _refuse_large(value: Any) -> None:
    """A float without a fraction is written as a whole number, and readers disagree about those from 2^53 on."""
    if isinstance(value, float) and value.is_integer() and abs(value) >= 1 << 53:
        raise rfc8785.FloatDomainError(value)
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _refuse_large(each)


def statement(predicate_type: str, subject: Sequence[Mapping[str, Any]], predicate: Any) -> bytes:
    """The payload of an in-toto Statement, whose payload type is `verifier.envelopes.IN_TOTO`.

    Args:
        predicate_type: `statements.CERTIFICATE`, `REVIEW` or `LINEAGE`.
        subject: `{"name": ..., "digest": {algorithm: hex}}` each.
        predicate: a dataclass of statements.py, or a mapping.
    """
    document = {"_type": STATEMENT, "subject": [dict(each) for each in subject], "predicateType": predicate_type, "predicate": predicate}
    return canonical(document, "statement")


def seal(payload: bytes, payload_type: str, signers: Sequence[Signer]) -> bytes:
    """The file of an envelope: canonical JSON, so that a changed byte is noticed wherever it stands. A key that is given twice signs once.

    Raises:
        ConfigError: nobody signs.
    """
    if not signers:
        raise ConfigError("envelope: nobody signs it; name a signer")
    message, once = pae(payload_type, payload), {signer.key_id: signer for signer in signers}
    return _written(payload_type, payload, [(key_id, _signature(signer, message)) for key_id, signer in once.items()])


def countersign(envelope: bytes, signer: Signer) -> bytes:
    """The envelope with one more signature; unchanged where this key has signed it already.

    Raises:
        ConfigError: not an envelope that can be read.
    """
    with in_our_words():
        found = open_envelope(envelope, "envelope")
    if signer.key_id in dict(found.signatures):
        return envelope
    signature = _signature(signer, pae(found.payload_type, found.payload))
    return _written(found.payload_type, found.payload, [*found.signatures, (signer.key_id, signature)])


def _signature(signer: Signer, message: bytes) -> bytes:
    signature = signer.sign(message)
    if len(signature) != _SIGNATURE_BYTES:
        raise ConfigError(f"signer {signer.key_id[:16]}: gave {len(signature)} bytes; expected the {_SIGNATURE_BYTES} of an Ed25519 signature")
    return signature


def _written(payload_type: str, payload: bytes, signatures: Sequence[tuple[str, bytes]]) -> bytes:
    entries = [{"keyid": key_id, "sig": base64.b64encode(signature).decode()} for key_id, signature in signatures]
    return canonical_json({"payload": base64.b64encode(payload).decode(), "payloadType": payload_type, "signatures": entries})
