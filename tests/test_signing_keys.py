import os
import shutil
import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat, PublicFormat
from trusted_keys import ANA

from mlflow_unlearn import signing_keys
from mlflow_unlearn.dsse import Signer
from mlflow_unlearn.errors import ConfigError, TamperedError

WORDS = "correct horse battery"


def words(holder):
    return WORDS.encode()


@pytest.fixture
def ana(tmp_path):
    return signing_keys.create(tmp_path / "keys", "ana", words)


def pem(key, encryption):
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return public + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def test_a_new_key_signs_what_its_public_key_verifies(ana):
    signer = signing_keys.signer("ana", ana.path.parent, words)
    Ed25519PublicKey.from_public_bytes(ana.public).verify(signer.sign(b"message"), b"message")
    assert (signer.key_id, isinstance(signer, Signer)) == (ana.key_id, True)
    assert "Ed25519PrivateKey" not in repr(signer)


def test_a_key_lies_encrypted_where_its_owner_alone_can_read_it_and_git_does_not(ana):
    assert (ana.path.stat().st_mode & 0o777, ana.path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert (ana.path.parent / ".gitignore").read_text() == "*\n"
    assert ana.path.read_bytes().count(b"ENCRYPTED PRIVATE KEY") == 2
    assert sorted(each.name for each in ana.path.parent.iterdir()) == [".gitignore", "ana.pem"]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_openssl_reads_the_file(ana):
    command = ["openssl", "pkey", "-in", str(ana.path), "-passin", f"pass:{WORDS}", "-pubout", "-outform", "DER"]
    assert subprocess.run(command, capture_output=True, check=True).stdout[-32:] == ana.public


def test_a_key_is_never_overwritten(ana):
    before = ana.path.read_bytes()
    with pytest.raises(ConfigError, match=r"ana.pem: a key of ana is here already, and is not overwritten"):
        signing_keys.create(ana.path.parent, "ana", words)
    assert ana.path.read_bytes() == before


def test_a_rotation_keeps_the_old_key_beside_the_new_one(ana):
    new = signing_keys.rotate(ana, words)
    current, retired = signing_keys.found(ana.path.parent)
    assert (current, retired.key_id, retired.retired, retired.holder) == (new, ana.key_id, True, "ana")
    assert new.key_id != ana.key_id
    assert signing_keys.unlock(retired, words).key_id == ana.key_id
    assert signing_keys.signer("ana", ana.path.parent, words).key_id == new.key_id


def test_keys_are_known_by_holder_without_a_passphrase(tmp_path):
    for holder in ("a.pem", "b", "c.pem.retired-x"):
        signing_keys.create(tmp_path, holder, words)
    assert [each.holder for each in signing_keys.found(tmp_path)] == ["a.pem", "b", "c.pem.retired-x"]
    assert signing_keys.found(tmp_path / "none") == ()


@pytest.mark.parametrize("holder", ["", "ana@example.org", "../ana", ".ana", "a/b", "a" * 64, "ana\n", "ana:b", "ünal"])
def test_a_holder_is_a_plain_name(tmp_path, holder):
    with pytest.raises(ConfigError, match="holder: expected 1 to 63 of a-z"):
        signing_keys.create(tmp_path, holder, words)


def test_a_wrong_passphrase_is_said_and_not_repeated(ana):
    with pytest.raises(ConfigError, match=r"ana.pem: wrong passphrase for the key of ana") as caught:
        signing_keys.signer("ana", ana.path.parent, lambda _: b"secret guess")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("given", ["", "short", "x" * 1001])
def test_a_passphrase_that_can_be_guessed_makes_no_key(tmp_path, given):
    with pytest.raises(ConfigError, match="passphrase: expected 12 to 1000 characters"):
        signing_keys.create(tmp_path, "ana", lambda _: given.encode())
    assert not list(tmp_path.iterdir())


def test_the_passphrase_comes_from_the_environment(ana, monkeypatch):
    monkeypatch.delenv("MLFLOW_UNLEARN_PASSPHRASE", raising=False)
    with pytest.raises(ConfigError, match="the key of ana needs its passphrase: set MLFLOW_UNLEARN_PASSPHRASE"):
        signing_keys.signer("ana", ana.path.parent)
    monkeypatch.setenv("MLFLOW_UNLEARN_PASSPHRASE", WORDS)
    assert signing_keys.signer("ana", ana.path.parent).key_id == ana.key_id


def test_a_key_that_others_can_read_is_not_used(ana):
    ana.path.chmod(0o640)
    with pytest.raises(ConfigError, match="others may read this private key; run `chmod 600"):
        signing_keys.unlock(ana, words)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "does not begin with its public key"),
        (pem(ANA.key, NoEncryption()), "not encrypted; expected a file of `mlflow-unlearn key new`"),
        (pem(ANA.key, BestAvailableEncryption(WORDS.encode()))[:-40], "wrong passphrase for the key of ana, or the file was cut short"),
        (pem(generate_private_key(SECP256R1()), BestAvailableEncryption(WORDS.encode())), "not an Ed25519 key"),
        (ANA.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), "does not begin with its public key"),
    ],
)
def test_another_file_in_the_place_of_a_key_is_named(ana, content, complaint):
    ana.path.write_bytes(content)
    with pytest.raises(ConfigError, match=complaint):
        signing_keys.signer("ana", ana.path.parent, words)


def test_a_public_key_that_was_exchanged_is_noticed(ana):
    other = signing_keys.create(ana.path.parent, "bo", words)
    border = b"-----BEGIN ENCRYPTED"
    ana.path.write_bytes(other.path.read_bytes().partition(border)[0] + border + ana.path.read_bytes().partition(border)[2])
    with pytest.raises(TamperedError, match="its public key is not that of its private key"):
        signing_keys.signer("ana", ana.path.parent, words)


def test_a_missing_key_names_those_that_are_there(ana):
    with pytest.raises(ConfigError, match=r"no private key of bo here \(there are: ana\); make one with `mlflow-unlearn key new bo`"):
        signing_keys.signer("bo", ana.path.parent, words)


def kms(reference):
    return ANA if reference == "ana" else object()


@pytest.fixture
def foreign(monkeypatch):
    points = [EntryPoint("here", f"{__name__}:kms", signing_keys.GROUP), EntryPoint("gone", "no_such_module:kms", signing_keys.GROUP)]
    monkeypatch.setattr(signing_keys, "entry_points", lambda group: points if group == signing_keys.GROUP else [])
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])


def test_a_scheme_reaches_the_signer_of_another_package(foreign, tmp_path):
    assert signing_keys.signer("here:ana", tmp_path).key_id == ANA.key_id


@pytest.mark.parametrize(
    ("reference", "complaint"),
    [
        ("other:x", r"signer other: no package here has an entry point .* \(there are: here, gone\)"),
        ("gone:x", "signer gone: cannot be imported"),
        ("here:x", "signer here: gave a object; expected `key_id` and `sign`"),
    ],
)
def test_a_scheme_that_leads_nowhere_is_named(foreign, tmp_path, reference, complaint):
    with pytest.raises(ConfigError, match=complaint):
        signing_keys.signer(reference, tmp_path)


def test_an_environment_that_is_not_utf_8_is_a_passphrase_too(monkeypatch):
    monkeypatch.setitem(os.environ, "MLFLOW_UNLEARN_PASSPHRASE", os.fsdecode(b"caf\xe9 caf\xe9 caf\xe9"))
    assert signing_keys.from_environment("ana") == b"caf\xe9 caf\xe9 caf\xe9"
