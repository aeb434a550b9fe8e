"""The offline verifier says yes to a whole valid case alone: what is changed, missing, old or somebody else's makes it a worded no or undecided."""

from __future__ import annotations

import base64
import copy
import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from certified import IN_TOTO, KEYS, LATER, NOW, OWNER, POLICY_FILE, Certified, absences, certified, payload, signed, signer, trust_file, trusted
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated import KNOWN, evaluation_of

from mlflow_unlearn import dsse
from mlflow_unlearn.documents import encode
from mlflow_unlearn.policy import Policy, policy_digest
from mlflow_unlearn.records import Claim, Outcome
from mlflow_unlearn.statements import LINEAGE, Role
from mlflow_unlearn.verifier import RefusedError, Report, UndecidedError, check_model, read_json, read_statement, read_trust, verify
from mlflow_unlearn.verifier.answer import Case
from mlflow_unlearn.verifier.documents import LIMIT


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> Certified:
    return certified(tmp_path_factory.mktemp("valid"))


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> Certified:
    return certified(tmp_path_factory.mktemp("exact"), Claim.EXACT)


def answer(case: Case, now: datetime = NOW) -> tuple[str, str]:
    """The answer, and every reason for it."""
    report = verify(case, now)
    return report.answer, "; ".join(report.reasons)


@pytest.mark.parametrize("name", ["valid", "exact"])
def test_a_whole_valid_case_is_a_yes_that_says_what_it_rests_on(name: str, request: pytest.FixtureRequest) -> None:
    report: Report = verify(request.getfixturevalue(name).case, NOW)
    assert (report.answer, report.reasons) == ("yes", ())
    assert report.outcomes == {"removal": "PASS", "suppression": "PASS"}
    assert len(report.checked) == 9
    assert not any("--" in line for line in report.not_checked)


def test_what_is_not_handed_in_is_named_and_not_taken_for_granted(valid: Certified) -> None:
    report = verify(Case(certificate=valid.case.certificate, trust=valid.case.trust), NOW)
    assert report.answer == "yes"
    assert re.findall(r"\((--\w+)\)", " ".join(report.not_checked)) == ["--owner", "--model", "--policy", "--proofs"]


# Any byte.


def flipped(raw: bytes, at: int, by: int = 1) -> bytes:
    return raw[:at] + bytes([raw[at] ^ by]) + raw[at + 1 :]


def test_no_byte_of_a_trust_file_can_be_changed(valid: Certified) -> None:
    raw = valid.case.trust or b""
    for at in range(len(raw)):
        with pytest.raises((RefusedError, UndecidedError), match="trust file"):
            read_trust(flipped(raw, at, 1 << at % 8), NOW)


def test_no_byte_of_a_statement_can_be_changed(valid: Certified) -> None:
    dated = {"issued_at": encode(NOW), "expires_at": encode(LATER)}
    raw, trust = signed({"buildDefinition": {"internalParameters": dated}}, valid.subject, kind=LINEAGE), read_trust(valid.case.trust or b"", NOW)
    read_statement(raw, trust, "trainer", NOW)
    for at in range(len(raw)):
        with pytest.raises((RefusedError, UndecidedError), match="lineage"):
            read_statement(flipped(raw, at, 1 << at % 8), trust, "trainer", NOW)


def test_no_byte_of_a_model_can_be_changed(valid: Certified, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(valid.folder / "model", tmp_path / "model"))
    statement = read_statement(valid.case.certificate, read_trust(valid.case.trust or b"", NOW), "evaluator", NOW)
    for file in sorted(folder.rglob("*")):
        raw = file.read_bytes() if file.is_file() and file.name != "registered_model_meta" else b""
        for at in range(len(raw)):
            file.write_bytes(flipped(raw, at, 1 << at % 8))
            with pytest.raises(RefusedError, match=r"changed, missing or added|cut short"):
                check_model(statement, folder)
        if raw:
            file.write_bytes(raw)
    check_model(statement, folder)


def test_a_verdict_under_other_values_than_the_owner_stands_for_is_undecided(valid: Certified) -> None:
    """A certificate may name the strict policy's file and carry lax values."""
    own, other = (trust_file(policy=policy_digest(policy)) for policy in (Policy(), Policy(utility_margin=0.5)))
    assert answer(replace(valid.case, trust=own))[0] == "yes"
    found, why = answer(replace(valid.case, trust=other))
    assert (found, "judged under other values than the owner stands for" in why) == ("undecided", True)


@pytest.mark.parametrize("at", range(len(POLICY_FILE)))
def test_no_byte_of_a_policy_file_can_be_changed(valid: Certified, at: int) -> None:
    assert answer(replace(valid.case, policy=flipped(POLICY_FILE, at)))[0] == "no"


PLACE, BITS = st.floats(0, 1, exclude_max=True), st.integers(1, 255)


@given(PLACE, BITS)
@settings(max_examples=50)
def test_a_flipped_byte_of_a_certificate_is_never_a_yes(valid: Certified, place: float, by: int) -> None:
    raw = valid.case.certificate
    found, why = answer(replace(valid.case, certificate=flipped(raw, int(place * len(raw)), by), model=None))
    assert (found != "yes", bool(why)) == (True, True)


@given(PLACE, BITS)
@settings(max_examples=15)
def test_damaged_proofs_are_answered(valid: Certified, place: float, by: int) -> None:
    """Not always with a no: a leaf that was changed can be absent too."""
    raw = absences()
    assert answer(replace(valid.case, proofs=flipped(raw, int(place * len(raw)), by), model=None))[0] in ("yes", "no", "undecided")


# Files that are no such files.

SIGNATURE = b'{"keyid":"%s","sig":"eA=="}' % (b"0" * 64)
NO_ENVELOPE: dict[str, bytes] = {
    "nothing": b"",
    "cut short": b'{"payload":"',
    "33 MiB": b" " * (LIMIT + (1 << 20)),
    "nested to death": b"[" * 1_000_000,
    "a list": b"[]",
    "a key twice": b'{"payload":"eA==","payload":"eA==","payloadType":"t","signatures":[%s]}' % SIGNATURE,
    "a field too many": b'{"more":1,"payload":"eA==","payloadType":"t","signatures":[%s]}' % SIGNATURE,
    "no signature": b'{"payload":"eA==","payloadType":"t","signatures":[]}',
    "33 signatures": b'{"payload":"eA==","payloadType":"t","signatures":[%s]}' % b",".join([SIGNATURE] * 33),
    "spaces": b'{"payload": "eA==","payloadType":"t","signatures":[%s]}' % SIGNATURE,
    "a line more": b'{"payload":"eA==","payloadType":"t","signatures":[%s]}\n' % SIGNATURE,
    "no base64": b'{"payload":"!","payloadType":"t","signatures":[%s]}' % SIGNATURE,
    "base64 in two ways": b'{"payload":"eB==","payloadType":"t","signatures":[%s]}' % SIGNATURE,
    "not UTF-8": b"\xff\xfe{}",
}


@pytest.mark.parametrize("what", ["certificate", "trust"])
@pytest.mark.parametrize("name", NO_ENVELOPE)
def test_a_file_that_is_no_envelope_is_undecided_in_words(valid: Certified, what: str, name: str) -> None:
    given = {"certificate": valid.case.certificate, "trust": valid.case.trust or b"", what: NO_ENVELOPE[name]}
    report = verify(Case(certificate=given["certificate"], trust=given["trust"]), NOW)
    words = ("not a signed envelope of 1 to 32 signatures", "not base64 as it is written", "at most")
    assert report.answer == "undecided"
    assert any(each in report.reasons[0] for each in words), report.reasons


NO_JSON: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "not JSON"),
    "33 MiB": (b" " * (LIMIT + (1 << 20)), "at most"),
    "nested to death": (b"[" * 1_000_000, "not JSON"),
    "nested": (b"[" * 100 + b"]" * 100, "nested deeper than 64"),
    "a key twice": (b'{"a":1,"a":1}', "a key stands there twice"),
    "NaN": (b"[NaN]", "no finite number"),
    "Infinity": (b"[-Infinity]", "no finite number"),
    "a float too large": (b"[1e999]", "no finite number"),
    "a number too large": (b"[%d]" % (1 << 60), "beyond 2^53"),
    "a number of a million digits": (b"1" * 1_000_000, "beyond 2^53"),
    "not UTF-8": (b"\xff\xfe{}", "not JSON"),
    "half a character": (b'["\\ud800"]', "half a character"),
}


@pytest.mark.parametrize("name", NO_JSON)
def test_json_that_can_be_read_in_two_ways_is_not_read(name: str) -> None:
    raw, words = NO_JSON[name]
    with pytest.raises(UndecidedError, match=f"proofs: .*{re.escape(words)}"):
        read_json(raw, "proofs")


def sealed(body: bytes, payload_type: str = IN_TOTO) -> bytes:
    return dsse.seal(body, payload_type, [signer("ci")])


def body_of(case: Certified) -> bytes:
    return base64.b64decode(json.loads(case.case.certificate)["payload"])


INSIDE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "a key twice": (lambda body: sealed(body[:-1] + b',"_type":"x"}'), "twice"),
    "NaN": (lambda body: sealed(body[:-1] + b',"x":NaN}'), "no finite number"),
    "a float too large": (lambda body: sealed(body[:-1] + b',"x":1e999}'), "no finite number"),
    "nested": (lambda body: sealed(body[:-1] + b',"x":' + b"[" * 70 + b"]" * 70 + b"}"), "nested deeper"),
    "another payload type": (lambda body: sealed(body, "text/plain"), "not an in-toto statement"),
    "another type": (lambda body: sealed(body.replace(b"in-toto.io/Statement/v1", b"in-toto.io/Statement/v9")), "not an in-toto statement"),
    "another version": (
        lambda body: sealed(body.replace(b"/certificate/v1", b"/certificate/v2")),
        "of kind https://mlflow-unlearn.dev/certificate/v2",
    ),
    "no predicate": (lambda body: sealed(body.replace(b'"predicate":', b'"predicatf":')), "without subject and predicate"),
    "no statement": (lambda _body: sealed(b"[]"), "not an in-toto statement"),
}


@pytest.mark.parametrize("name", INSIDE)
def test_a_signed_statement_that_cannot_be_read_one_way_is_undecided(valid: Certified, name: str) -> None:
    make, words = INSIDE[name]
    found, why = answer(replace(valid.case, certificate=make(body_of(valid))))
    assert found == "undecided"
    assert words in why


# Who signed, and when.


def with_key(**changes: Any) -> bytes:
    return trust_file(OWNER, replace(trusted("ci", Role.EVALUATOR), **changes))


def short_signature(case: Case) -> bytes:
    document = json.loads(case.certificate)
    document["signatures"][0]["sig"] = base64.b64encode(bytes(32)).decode()
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def by_hand(**changes: Any) -> bytes:
    """A trust file with a key that `trust.trusted` would not write."""
    document = payload(trust_file())
    document["keys"][1] |= changes
    return dsse.seal(json.dumps(document).encode(), "application/vnd.mlflow-unlearn.trust+json", [signer("owner")])


def trust_document(**changes: Any) -> bytes:
    return dsse.seal(json.dumps(payload(trust_file()) | changes).encode(), "application/vnd.mlflow-unlearn.trust+json", [signer("owner")])


DAY = timedelta(days=1)
SIGNERS: dict[str, tuple[Callable[[Certified], Case], str, str]] = {
    "a revoked key": (lambda v: replace(v.case, trust=with_key(revoked_at=NOW, revoked_for="compromised")), "no", "was revoked (compromised)"),
    "an expired key": (lambda v: replace(v.case, trust=with_key(valid_until=NOW - DAY)), "no", "expired at"),
    "a key not valid yet": (lambda v: replace(v.case, trust=with_key(valid_from=NOW + DAY)), "no", "is not valid before"),
    "a key of another role": (lambda v: replace(v.case, trust=with_key(roles=(Role.TRAINER,))), "no", "not trusted as evaluator, only as trainer"),
    "a key that nobody trusts": (lambda v: replace(v.case, trust=trust_file(OWNER)), "no", "is not in the trust file"),
    "somebody else's signature": (lambda v: replace(v.case, certificate=signed(v.said, v.subject, "reviewer")), "no", "only as reviewer"),
    "a short signature": (lambda v: replace(v.case, certificate=short_signature(v.case)), "no", "does not hold"),
    "no trust file": (lambda v: replace(v.case, trust=None), "undecided", "no trust file"),
    "a trust file without keys": (lambda v: replace(v.case, trust=trust_document(keys=[])), "undecided", "names no key, so nobody is trusted"),
    "a key twice": (lambda v: replace(v.case, trust=trust_file(*KEYS, KEYS[1])), "undecided", "a key stands there twice"),
    "a trust file of another schema": (
        lambda v: replace(v.case, trust=trust_document(schema="x/2")),
        "undecided",
        "this reads mlflow-unlearn.trust/1",
    ),
    "a trust file from the future": (lambda v: replace(v.case, trust=trust_file(issued_at=NOW + DAY)), "undecided", "a clock is wrong"),
    "a key id of another key": (lambda v: replace(v.case, trust=by_hand(key_id="0" * 64)), "undecided", "not that of its public key"),
    "a key of another length": (lambda v: replace(v.case, trust=by_hand(public="00" * 33)), "undecided", "not that of its public key"),
    "a key without dates": (lambda v: replace(v.case, trust=by_hand(valid_until=None)), "undecided", "expected a moment"),
    "another owner": (lambda v: replace(v.case, owner=signer("reviewer").key_id), "no", "not by"),
    "too little of the owner's id": (lambda v: replace(v.case, owner=OWNER.key_id[:8]), "no", "at least 16 characters"),
    "a trust file by no owner": (lambda v: replace(v.case, trust=trust_file(by="ci")), "no", "not trusted as owner"),
    "a certificate from the future": (lambda v: v.saying(replace(v.said, issued_at=NOW + DAY)), "undecided", "a clock is wrong"),
    "an expired certificate": (lambda v: v.saying(replace(v.said, expires_at=NOW - DAY)), "no", "have it issued again"),
    "a certificate without dates": (lambda v: v.saying({**encode(v.said), "issued_at": "soon"}), "undecided", "expected a moment"),
}


@pytest.mark.parametrize("name", SIGNERS)
def test_whose_word_it_is_and_when_is_checked(valid: Certified, name: str) -> None:
    make, expected, words = SIGNERS[name]
    found, why = answer(make(valid))
    assert (found, words in why) == (expected, True), why


def test_clocks_may_differ_by_five_minutes(valid: Certified) -> None:
    said = replace(valid.said, issued_at=NOW + timedelta(minutes=4))
    assert answer(valid.saying(said))[0] == "yes"


def test_of_several_signatures_all_must_hold_and_one_must_count(valid: Certified) -> None:
    raw = dsse.countersign(valid.case.certificate, signer("reviewer"))
    assert answer(replace(valid.case, certificate=raw))[0] == "yes"
    broken = json.loads(raw)
    broken["signatures"][1]["sig"] = broken["signatures"][0]["sig"]
    changed = json.dumps(broken, sort_keys=True, separators=(",", ":")).encode()
    stranger = dsse.countersign(valid.case.certificate, signer("stranger"))
    for damaged, words in ((changed, "the signature of reviewer"), (stranger, "is not in the trust file")):
        found, why = answer(replace(valid.case, certificate=damaged))
        assert (found, words in why) == ("no", True), why


# What it is about.

OTHER: dict[str, tuple[dict[str, Any], str]] = {
    "version": ({"version": "3"}, "issued for m/2"),
    "model": ({"name": "other"}, "issued for m/2"),
    "run": ({"run_id": "8" * 32}, "issued for m/2"),
    "registry": ({"created_at": 1}, "issued for m/2"),
}


@pytest.mark.parametrize("name", OTHER)
def test_a_certificate_is_not_carried_over(valid: Certified, name: str) -> None:
    changes, words = OTHER[name]
    found, why = answer(replace(valid.case, registered=encode(valid.said.registered) | changes))
    assert found == "no"
    assert words in why


def test_another_model_is_refused_by_the_name_of_what_differs(valid: Certified, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(valid.folder / "model", tmp_path / "model"))
    (folder / "more.py").write_text("")
    (folder / "MLmodel").unlink()
    found, why = answer(replace(valid.case, model=folder))
    assert found == "no"
    assert "MLmodel, more.py changed, missing or added" in why
    assert answer(replace(valid.case, model=tmp_path / "nowhere"))[0] == "undecided"


def test_nothing_lies_in_a_model_that_is_not_hashed(valid: Certified, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(valid.folder / "model", tmp_path / "model"))
    (folder / "MLmodel").rename(tmp_path / "kept")
    (folder / "MLmodel").symlink_to(tmp_path / "kept")
    assert answer(replace(valid.case, model=folder))[0] == "yes"
    (folder / "code").symlink_to(valid.folder)
    found, why = answer(replace(valid.case, model=folder))
    assert (found, "neither a file nor a folder" in why) == ("no", True)


def test_proofs_have_to_be_of_what_was_retained_and_of_absence(valid: Certified) -> None:
    document = json.loads(absences())
    for change, expected, words in (
        ({"schema": "x"}, "no", "not about the data"),
        ({"commitment": {**document["commitment"], "size": 9}}, "no", "not about the data"),
        ({"proofs": []}, "undecided", "none in it"),
        ({"proofs": [document["proofs"][0]["right"]]}, "no", "shows that a leaf is there"),
        ({"proofs": [{**document["proofs"][1], "left": None}]}, "no", "number 1"),
    ):
        found, why = answer(replace(valid.case, proofs=json.dumps(document | change).encode()))
        assert (found, words in why) == (expected, True), why


# What it says.


def test_a_verdict_that_the_evidence_does_not_give_is_refused(tmp_path: Path, valid: Certified) -> None:
    leaking = certified(tmp_path, evaluation=evaluation_of(KNOWN / 2, KNOWN / 2))
    assert answer(leaking.case)[1].startswith("verdict: removal FAIL")
    found, why = answer(leaking.saying(replace(leaking.said, verdicts=valid.said.verdicts)))
    assert found == "no"
    assert "stated is removal PASS" in why


def test_what_could_not_be_shown_is_undecided_and_named(valid: Certified) -> None:
    late = replace(valid.said.evaluation, pool_spent_by="er-0")
    undecided = tuple(replace(each, outcome=Outcome.INCONCLUSIVE) for each in valid.said.verdicts)
    found, why = answer(valid.saying(replace(valid.said, evaluation=late, verdicts=undecided)))
    assert found == "undecided"
    assert "removal INCONCLUSIVE; not shown: unspent pool" in why


def keys_of(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of every key, but one list entry for all of a list."""
    if isinstance(document, dict):
        for key, value in document.items():
            yield (*path, key)
            yield from keys_of(value, (*path, key))
    elif isinstance(document, list) and document:
        yield from keys_of(document[0], (*path, 0))


def without(document: Any, path: tuple[Any, ...]) -> Any:
    found = copy.deepcopy(document)
    holder = found
    for key in path[:-1]:
        holder = holder[key]
    del holder[path[-1]]
    return found


DECIDES_NOTHING = re.compile(
    r"requests/0/(basis|received_at|due_at)"
    r"|commitments/(dataset|retain.*|revisions/0/(name|commitment.*))"  # what proofs are held against, where there are proofs
    r"|split/(effects|rows.*|canaries)"
    r"|unlearned/(method.*|steps|kept_step|seconds|stopped|notes|losses|environment.*|exactness)"
    r"|evaluation/before/(verbatim|own|own_paraphrased|scores|gap|probes).*|evaluation/[a-z_]+/scores/(?!retain(/exact_memorization(/value)?)?$).*"
    r"|evaluation/[a-z_]+/(absent|gap/(share_upper.*|explained|holdout|parent/n|(parent|share)/(low|high|direction|interval|values)))"
    r"|.*/(auc/(low|high|direction|interval|values)|auc_upper/.*|detectable_epsilon)"
    r"|evaluation/(canary_shards|curves|settings/(attacks|finetune/(token_budget|schedule))|(utility/.*|paraphrase_gap)/(direction|interval))"
    r"|policy/gate.*|verdicts/./(reasons|conditions).*|not_claimed|code|environment|lock.*|ledger.*"
)
"""Left out of a signed certificate these change no answer: the verifier counts again what they say, or says that it does not check it."""


@given(st.data())
@settings(max_examples=20)
def test_whatever_decides_cannot_be_left_out_even_by_who_signs(valid: Certified, data: st.DataObject) -> None:
    said = encode(valid.said)
    path = data.draw(st.sampled_from([each for each in keys_of(said) if not DECIDES_NOTHING.fullmatch("/".join(map(str, each)))]))
    found, why = answer(replace(valid.saying(without(said, path)), model=None, proofs=None))
    assert (found != "yes", bool(why)) == (True, True), path


@pytest.mark.parametrize("name", ["digests", "logs", "before", "replays", "shared", "shards", "touched", "empty", "holding"])
def test_no_part_of_what_an_exact_claim_rests_on_can_be_left_out(exact: Certified, name: str) -> None:
    found, why = answer(replace(exact.saying(without(encode(exact.said), ("unlearned", "exactness", name))), model=None, proofs=None))
    assert (found, "not in the shape of a certificate" in why) == ("undecided", True)


SCALARS = st.none() | st.booleans() | st.integers(-10, 1 << 53) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5)


@given(
    st.data(),
    st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2), max_leaves=4),
)
@settings(max_examples=20)
def test_whatever_stands_in_a_signed_certificate_it_is_answered(valid: Certified, data: st.DataObject, value: Any) -> None:
    document = payload(valid.case.certificate)
    path = data.draw(st.sampled_from(list(keys_of(document["predicate"]))))
    holder = document["predicate"]
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    found, why = answer(replace(valid.case, certificate=sealed(json.dumps(document).encode()), model=None, proofs=None))
    assert found == "yes" or why
