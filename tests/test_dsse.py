import json
from hashlib import sha256

import pytest
import rfc8785
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as some
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, SSlibKey
from trusted_keys import ANA, BO, CY, NOW

from mlflow_unlearn import dsse, verifier
from mlflow_unlearn.documents import encode
from mlflow_unlearn.errors import ConfigError
from mlflow_unlearn.statements import REVIEW, Registration, Review, ReviewKind
from mlflow_unlearn.verifier.documents import canonical
from mlflow_unlearn.verifier.envelopes import IN_TOTO, signs

SUBJECT = [{"name": "certificate", "digest": {"sha256": "a" * 64}}]
scalars = some.none() | some.booleans() | some.integers(-(2**53) + 1, 2**53 - 1) | some.floats(-1e15, 1e15) | some.text()
values = some.recursive(scalars, lambda inner: some.lists(inner) | some.dictionaries(some.text("abcxyz_09"), inner), max_leaves=12)
payloads = some.binary(min_size=1, max_size=200)


@given(values)
def test_what_is_signed_reads_back_as_it_was_written(value):
    raw = dsse.statement(REVIEW, SUBJECT, {"value": value})
    assert verifier.read_json(raw, "statement")["predicate"]["value"] == value
    assert raw == rfc8785.dumps(json.loads(raw))


@given(values)
def test_the_verifier_has_the_same_canonical_bytes(value):
    assert canonical(value) == dsse.canonical(value, "value")


@given(payloads, some.text("abc/+.-", min_size=1), some.lists(some.sampled_from([ANA, BO, CY]), min_size=1, max_size=4))
def test_an_envelope_opens_to_what_was_sealed(payload, kind, signers):
    opened = verifier.open_envelope(dsse.seal(payload, kind, signers), "envelope")
    assert (opened.payload, opened.payload_type, opened.digest) == (payload, kind, sha256(payload).hexdigest())
    assert {identity for identity, _ in opened.signatures} == {each.key_id for each in signers}
    keys = {each.key_id: each for each in map(as_key, signers)}
    assert all(signs(keys[identity], opened, signature) for identity, signature in opened.signatures)


def as_key(person):
    line = person.line("reviewer")
    return verifier.Key(
        key_id=line.key_id,
        public=person.public,
        holder="",
        roles=frozenset(),
        valid_from=NOW,
        valid_until=NOW,
        revoked_at=None,
        revoked_for="",
    )


@given(some.permutations([ANA, BO, CY]))
def test_more_signatures_change_neither_payload_nor_digest_and_one_twice_changes_nothing(signers):
    first = envelope = dsse.seal(b"payload", IN_TOTO, signers[:1])
    for each in signers:
        envelope = dsse.countersign(envelope, each)
    assert envelope == dsse.seal(b"payload", IN_TOTO, signers) == dsse.countersign(envelope, signers[1])
    assert verifier.open_envelope(envelope, "e").digest == verifier.open_envelope(first, "e").digest


def test_a_key_id_is_that_of_the_public_key_as_cryptography_writes_it():
    spki = ANA.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert ANA.key_id == sha256(spki).hexdigest()


def test_another_library_verifies_our_envelopes_and_we_its_signatures():
    raw = dsse.seal(b'{"a":1}', IN_TOTO, [ANA, BO])
    theirs = Envelope.from_dict(json.loads(raw))
    keys = [SSlibKey.from_crypto(each.key.public_key(), keyid=each.key_id) for each in (ANA, BO)]
    assert theirs.verify(keys, 2).keys() == {ANA.key_id, BO.key_id}
    signer = CryptoSigner(CY.key, SSlibKey.from_crypto(CY.key.public_key(), keyid=CY.key_id))
    theirs.sign(signer)
    written = json.dumps(theirs.to_dict(), sort_keys=True, separators=(",", ":")).encode()
    assert written == dsse.countersign(raw, CY)
    with pytest.raises(VerificationError, match="do not match threshold"):
        Envelope(b'{"a":2}', IN_TOTO, theirs.signatures).verify(keys, 1)


def test_a_dataclass_becomes_the_predicate_as_its_document():
    version = Registration(name="m", version="3", run_id="r", created_at=1)
    review = Review(kind=ReviewKind.APPROVAL, registered=version, alias="champion", reason="reviewed", issued_at=NOW, expires_at=NOW)
    found = json.loads(dsse.statement(REVIEW, SUBJECT, review))
    assert found == {"_type": "https://in-toto.io/Statement/v1", "subject": SUBJECT, "predicateType": REVIEW, "predicate": encode(review)}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**53, -(2**60), 2.0**53, 1e20, "\ud800", {"\ud800": 1}, b"bytes", {1, 2}])
def test_what_json_cannot_hold_the_same_everywhere_is_not_signed(value):
    with pytest.raises(ConfigError, match="statement: cannot be signed, since JSON has no one way to write it"):
        dsse.statement(REVIEW, SUBJECT, {"deep": [{"value": value}]})


def test_nobody_signs_nothing_and_a_signer_gives_64_bytes():
    class Short:
        key_id = "a" * 64

        def sign(self, message):
            return b"short"

    with pytest.raises(ConfigError, match="envelope: nobody signs it"):
        dsse.seal(b"x", IN_TOTO, [])
    with pytest.raises(ConfigError, match="signer aaaaaaaaaaaaaaaa: gave 5 bytes; expected the 64"):
        dsse.seal(b"x", IN_TOTO, [Short()])


@pytest.mark.parametrize("raw", [b"", b"{}", b'{"payload":"","payloadType":"","signatures":[]}', b"[" * 100_000])
def test_what_is_no_envelope_is_not_countersigned(raw):
    with pytest.raises(ConfigError, match=r"^envelope: "):
        dsse.countersign(raw, ANA)


def test_a_trust_file_is_not_taken_for_a_statement():
    envelope = dsse.seal(b"{}", IN_TOTO, [ANA])
    with pytest.raises(ConfigError, match="of another kind or schema"), dsse.in_our_words():
        verifier.read_trust(envelope, NOW)
