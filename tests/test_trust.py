from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as some
from trusted_keys import ANA, BO, CY, DAY, NOW, Person, trust_bytes, trusting

from mlflow_unlearn import trust, verifier
from mlflow_unlearn.errors import ConfigError, TamperedError
from mlflow_unlearn.statements import Role

OWNER, TRAINER = Role.OWNER, Role.TRAINER


def believed(held, now=NOW, signers=(ANA,), owner=None):
    return verifier.read_trust(trust_bytes(held, signers), now, owner)


@given(some.dictionaries(some.sampled_from("abcdefgh"), some.sets(some.sampled_from(Role), min_size=1), max_size=6), some.integers(1, 3650))
def test_what_is_sealed_is_what_is_believed_and_what_can_be_changed(people, days):
    lines = tuple(Person(name).line(*roles, days=days) for name, roles in people.items())
    raw = trust.sealed(trusting(*lines, number=7, policy_file="ab"), [ANA])
    found = verifier.read_trust(raw, NOW)
    assert (found.number, found.policy_file, found.owners) == (7, "ab", (ANA.key_id,))
    assert {key.holder: (key.roles, key.public) for key in found.keys.values()} == {"ana": ({"owner"}, ANA.public)} | {
        line.holder: (set(line.roles), bytes.fromhex(line.public)) for line in lines
    }


def test_a_file_reads_back_as_the_value_that_was_written(tmp_path, monkeypatch):
    monkeypatch.setattr(trust, "datetime", type("Then", (), {"now": lambda zone: NOW}))
    held = trusting(BO.line(TRAINER), policy_file="c" * 64)
    with trust.turn(tmp_path / "state"):
        (tmp_path / "trust.json").write_bytes(trust.sealed(held, [ANA]))
    assert trust.held(tmp_path / "trust.json") == held
    assert (tmp_path / "state/.gitignore").read_text() == "*\n"


def test_flipping_any_byte_of_a_trust_file_denies():
    raw = trust.sealed(trusting(BO.line(TRAINER)), [ANA])
    for place in range(len(raw)):
        for mask in (1, 2, 0x20, 0x80):
            bent = raw[:place] + bytes([raw[place] ^ mask]) + raw[place + 1 :]
            with pytest.raises((verifier.RefusedError, verifier.UndecidedError)):
                verifier.read_trust(bent, NOW)


@pytest.mark.parametrize(
    ("held", "now", "complaint"),
    [
        (trusting(keys=()), NOW, "names no key, so nobody is trusted"),
        (trusting(keys=(ANA.line(TRAINER),)), NOW, "not trusted as owner, only as trainer"),
        (trusting(), NOW + 731 * DAY, "expired at 2028-11-23"),
        (trusting(issued_at=NOW - DAY), NOW - timedelta(hours=1), "not valid before 2026-11-24"),
        (trusting(), NOW - timedelta(minutes=6), "still to come: a clock is wrong"),
        (trust.revoked(trusting(), [ANA.key_id], "compromised", NOW), NOW, "revoked .compromised., and with it everything"),
        (trusting(ANA.line(TRAINER)), NOW, "a key stands there twice"),
        (trusting(replace(BO.line(TRAINER), public=CY.public.hex())), NOW, "a key id that is not that of its public key"),
        (trusting(replace(BO.line(TRAINER), public="xyz")), NOW, "not in the shape of"),
    ],
)
def test_nobody_is_believed_on_the_word_of_a_file_like_this(held, now, complaint):
    with pytest.raises((verifier.RefusedError, verifier.UndecidedError), match=complaint):
        believed(held, now)


@pytest.mark.parametrize("now", [NOW - timedelta(minutes=4), NOW, NOW + 730 * DAY])
def test_clocks_may_differ_by_minutes(now):
    assert believed(trusting(), now).number == 1


def test_only_an_owner_that_the_file_names_can_sign_it_and_an_auditor_can_insist_on_one():
    with pytest.raises(verifier.RefusedError, match="is not in the trust file"):
        believed(trusting(), signers=(BO,))
    with pytest.raises(verifier.RefusedError, match=r"signed by .*, not by"):
        believed(trusting(), owner=BO.key_id)
    with pytest.raises(verifier.RefusedError, match="at least 16 characters"):
        believed(trusting(), owner=ANA.key_id[:15])
    assert believed(trusting(), owner=ANA.key_id[:16]).owners == (ANA.key_id,)


@pytest.mark.parametrize(
    ("before", "after", "complaint"),
    [
        (b"trust/1", b"trust/2", "of another kind or schema"),
        (b'"schema"', b'"schima"', "of another kind or schema"),
        (b'"number":1', b'"number":1,"number":1', "a key stands there twice"),
        (b'"number":1', b'"number":NaN', "NaN is no finite number"),
        (b'"number":1', b'"number":1e999', "1e999 is no finite number"),
        (b'"number":1', b'"number":90071992547409930', "beyond 2.53"),
        (b'"number":1', b'"number":' + b"[" * 70 + b"]" * 70, "nested deeper than 64"),
        (b'"number":1', b'"number":' + b"[" * 100_000 + b"]" * 100_000, "not JSON that can be read one way only"),
    ],
)
def test_what_a_trust_file_may_not_hold_is_refused_though_an_owner_signs_it(before, after, complaint):
    payload = verifier.open_envelope(trust_bytes(trusting()), "t").payload
    assert before in payload
    raw = trust.seal(payload.replace(before, after), trust.TRUST_TYPE, [ANA])
    with pytest.raises(verifier.UndecidedError, match=complaint):
        verifier.read_trust(raw, NOW)


def test_every_change_has_the_next_number_and_leaves_the_rest():
    held, later = trusting(), NOW + DAY
    added = trust.with_key(held, BO.line(TRAINER), later)
    ended = trust.rotated(added, BO.key_id, CY.line(TRAINER), later)
    gone = trust.revoked(ended, [BO.key_id], "superseded", later)
    named = trust.with_pins(gone, trust.Pins(policy_file="d" * 64, policy="e" * 64, data="f" * 64), later)
    assert [each.number for each in (held, added, ended, gone, named)] == [1, 2, 3, 4, 5]
    assert [key.valid_until for key in ended.keys] == [NOW + 730 * DAY, later + 30 * DAY, NOW + 730 * DAY]
    assert [(key.revoked_at, key.revoked_for) for key in named.keys] == [(None, ""), (later, "superseded"), (None, "")]
    assert (named.policy_file, named.policy, named.data, named.issued_at) == ("d" * 64, "e" * 64, "f" * 64, later)


def test_a_rotation_never_lengthens_the_life_of_the_old_key():
    held = trusting(BO.line(TRAINER, days=3))
    assert trust.rotated(held, BO.key_id, CY.line(TRAINER), NOW).keys[1].valid_until == NOW + 3 * DAY


def test_a_key_is_entered_once():
    with pytest.raises(ConfigError, match="is there already; see `mlflow-unlearn key show --all`"):
        trust.with_key(trusting(), ANA.line(TRAINER), NOW)


@pytest.mark.parametrize("change", [lambda held: trust.revoked(held, [ANA.key_id], "lost", NOW), lambda held: replace(held, keys=())])
def test_the_last_owner_cannot_sign_the_own_end(change):
    with pytest.raises(ConfigError, match="nobody who signs this change would be an owner after it; add another owner first"):
        trust.sealed(change(trusting()), [ANA])


def test_another_owner_can_end_the_first():
    raw = trust.sealed(trust.revoked(trusting(BO.line(OWNER)), [ANA.key_id], "left", NOW), [ANA, BO])
    assert verifier.read_trust(raw, NOW).owners == (BO.key_id,)


def test_a_file_that_ran_out_can_only_be_changed_by_who_says_so(tmp_path):
    path = tmp_path / "trust.json"
    held = trusting(keys=(ANA.line(OWNER, days=1, now=NOW - 1000 * DAY),), issued_at=NOW - 1000 * DAY)
    path.write_bytes(trust_bytes(held))
    with pytest.raises(TamperedError, match=r"trust file: no signature counts: .* expired at"):
        trust.held(path)
    assert trust.held(path, though_expired=True) == held


@pytest.mark.parametrize("text", ["", "ab" * 31, "ab" * 33, "zz" * 32, "-----BEGIN PUBLIC KEY-----"])
def test_a_public_key_is_64_hex_characters(text):
    with pytest.raises(ConfigError, match="public key: expected 64 hex characters"):
        trust.public_key(text)


@pytest.mark.parametrize("raw", [b"", b"not json", b"[]", b'{"payload":"e30=","payloadType":"x","signatures":[{"keyid":"a","sig":"AA=="}]}'])
def test_a_broken_file_is_one_line_about_the_trust_file(tmp_path, raw):
    (tmp_path / "trust.json").write_bytes(raw)
    for read in (trust.read_trust, trust.held):
        with pytest.raises(ConfigError, match=r"^trust file: [^\n]+$"):
            read(tmp_path / "trust.json")


def test_without_a_file_it_says_how_to_begin(tmp_path):
    with pytest.raises(ConfigError, match=r"trust.json: no trust file; begin one with `mlflow-unlearn key new HOLDER --role owner`"):
        trust.read_trust(tmp_path / "trust.json")
