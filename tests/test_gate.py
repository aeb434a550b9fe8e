"""Laws of the gate: yes needs every piece of evidence, and taking some away or damaging it never makes a yes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_unlearn.gate import Evidence, Proof, Reason, Reviewed, attested, gate
from mlflow_unlearn.lineage import DatasetRevision, Descent, ModelVersion, Relation, VersionLineage
from mlflow_unlearn.policy import GatePolicy
from mlflow_unlearn.records import Basis, Effect, ErasureRequest, State
from mlflow_unlearn.statements import CertifiedRequest
from mlflow_unlearn.trace import Evidence as Traceable
from mlflow_unlearn.trace import reaching, trace

NOW = datetime(2026, 11, 24, 18, tzinfo=UTC)
DATA, MORE = "a" * 32, "b" * 32
BASE, FORGOT, TUNED = (ModelVersion(name="m", version=str(number)) for number in (1, 2, 3))
REQUEST = ErasureRequest(
    request_id="er-1", basis=Basis.GDPR_17, effect=Effect.REMOVAL, received_at=NOW - timedelta(days=20), due_at=NOW + timedelta(days=10)
)
LINEAGES = (
    VersionLineage(model=BASE, datasets={"d": DATA}),
    VersionLineage(
        model=FORGOT,
        datasets={"d": DATA},
        ancestors=(Descent(parent=BASE, relation=Relation.UNLEARNED, evidence="tag"),),
        requests=("er-1",),
        verdict={"removal": "PASS"},
    ),
    VersionLineage(model=TUNED, datasets={"d": MORE}, ancestors=(Descent(parent=FORGOT, relation=Relation.FINE_TUNED, evidence="tag"),)),
)
PASSED = Proof(statement="2" * 64, kind="certificate", signers=frozenset({"ci"}), requests=("er-1",), outcomes={"removal": "PASS"})
PROOFS = {BASE: Proof(statement="1" * 64, signers=frozenset({"ci"})), FORGOT: PASSED, TUNED: Proof(statement="3" * 64, signers=frozenset({"ci"}))}
DAMAGE = tuple(Reason(answer=answer, code="x", text="damaged") for answer in ("no", "undecided"))


def evidence(model=FORGOT, proofs=PROOFS, requests=(REQUEST,), lineages=LINEAGES, matches=None, **changes):
    """As stages/gating.py puts it together; DATA holds the records of er-1."""
    closure = lineages[: int(model.version)]
    states = {md5: DatasetRevision(name="d", path="d", md5=md5) for md5 in (DATA, MORE)}
    held = ({DATA: 1} if requests else {}) if matches is None else matches
    traceable = Traceable(requests=requests, versions=attested(closure, proofs, model), states=states, matches=held)
    traced = trace(traceable)
    given = {"traced": traced, "reaching": reaching(traceable, [model])[model], **changes}
    return Evidence(model=model, closure=closure, proofs=proofs, requests=requests, now=NOW, **given)


def answer(*args, **changes):
    return gate(evidence(*args, **changes)).answer


def codes(*args, **changes):
    return gate(evidence(*args, **changes)).codes


@pytest.mark.parametrize(("model", "expected"), [(BASE, "no"), (FORGOT, "yes"), (TUNED, "yes")])
def test_what_forgot_and_its_descendants_may_be_deployed_and_what_saw_the_records_not(model, expected):
    assert answer(model) == expected


def test_a_trained_version_that_nobody_asked_about_may_be_deployed_when_its_lineage_is_signed():
    assert (answer(BASE, requests=()), answer(BASE, requests=(), proofs={})) == ("yes", "undecided")


def test_one_request_forgotten_says_nothing_of_another():
    assert codes(requests=(REQUEST, replace(REQUEST, request_id="er-2"))) == ("affected", "due")


def test_a_closed_request_counts_like_an_open_one_and_has_no_days_left():
    closed = replace(REQUEST, state=State.CLOSED)
    assert (answer(requests=(closed,)), codes(BASE, requests=(closed,))) == ("yes", ("affected",))


def test_the_days_left_or_overdue_are_said():
    late = replace(REQUEST, due_at=NOW - timedelta(days=3))
    said = [reason.text for request in (REQUEST, late) for reason in gate(evidence(BASE, requests=(request,))).reasons]
    assert {"er-1 is due in 10 days", "er-1 is overdue by 3 days"} <= set(said)


def test_tags_are_not_believed():
    unsigned = {**PROOFS, FORGOT: Proof()}
    assert codes(proofs=unsigned) == ("unsigned",)
    assert codes(TUNED, proofs=unsigned) == ("unsigned",)
    assert codes(proofs={**PROOFS, FORGOT: replace(PROOFS[BASE], statement="9" * 64)}) == ("no_certificate",)


@pytest.mark.parametrize(("outcome", "expected"), [("FAIL", "no"), ("INCONCLUSIVE", "undecided"), (None, "undecided")])
def test_only_a_pass_passes(outcome, expected):
    outcomes = {} if outcome is None else {"removal": outcome}
    assert answer(proofs={**PROOFS, FORGOT: replace(PASSED, outcomes=outcomes)}) == expected


@pytest.mark.parametrize("outcome", ["FAIL", "INCONCLUSIVE"])
def test_what_was_made_from_a_version_that_did_not_pass_is_affected(outcome):
    assert codes(TUNED, proofs={**PROOFS, FORGOT: replace(PASSED, outcomes={"removal": outcome})}) == ("affected", "due")


def test_suppression_is_no_removal():
    assert answer(proofs={**PROOFS, FORGOT: replace(PASSED, outcomes={"suppression": "PASS"})}) == "undecided"
    asked = replace(REQUEST, effect=Effect.SUPPRESSION)
    assert answer(requests=(asked,), proofs={**PROOFS, FORGOT: replace(PASSED, outcomes={"suppression": "PASS"})}) == "yes"


def test_a_certificate_for_requests_of_another_ledger_is_a_no():
    assert codes(requests=(), matches={}) == ("other_requests",)


def review(holder="rae", kind="approval", statement=PASSED.statement, alias="champion"):
    return Reviewed(digest=f"{holder}-{kind}", kind=kind, statement=statement, alias=alias, holder=holder, reason="safety")


@pytest.mark.parametrize(
    ("reviews", "expected"),
    [
        ((), "undecided"),
        ((review(), review()), "undecided"),
        ((review(), review("ci")), "undecided"),
        ((review(), review("sol", statement="0" * 64)), "undecided"),
        ((review(), review("sol", alias="staging")), "undecided"),
        ((review(), review("sol", "override")), "undecided"),
        ((review(), review("sol")), "yes"),
    ],
)
def test_two_people_approve_one_statement_for_one_alias(reviews, expected):
    assert answer(reviews=reviews, policy=GatePolicy(approvals=2), alias="champion") == expected


@pytest.mark.parametrize("kind", ["approval", "override"])
def test_whose_signature_does_not_count_any_more_reviews_no_more_than_whose_does(kind):
    proof = replace(PASSED, outcomes={"removal": "PASS" if kind == "approval" else "INCONCLUSIVE"}, holders=frozenset({"ci", "eva"}))
    given = {"policy": GatePolicy(approvals=int(kind == "approval"), override=True), "alias": "champion", "proofs": {**PROOFS, FORGOT: proof}}
    assert answer(reviews=(review("eva", kind),), **given) == "undecided"
    assert answer(reviews=(review("rae", kind),), **given) == "yes"


ASKED = CertifiedRequest(request_id="er-1", basis=REQUEST.basis, effect=REQUEST.effect, received_at=REQUEST.received_at, due_at=REQUEST.due_at)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ()),
        ({"due_at": None}, ()),
        ({"effect": Effect.SUPPRESSION}, ("request_differs",)),
        ({"basis": Basis.SAFETY}, ("request_differs",)),
        ({"received_at": NOW - timedelta(days=400)}, ("request_differs",)),
    ],
)
@pytest.mark.parametrize("model", [FORGOT, TUNED])
def test_what_a_certificate_says_was_asked_is_what_the_ledger_says(model, changes, expected):
    proofs = {**PROOFS, FORGOT: replace(PASSED, certified=(replace(ASKED, **changes),))}
    against = [reason.code for reason in gate(evidence(model, proofs=proofs)).reasons if reason.answer != "note"]
    assert tuple(against) == expected


def test_a_certificate_that_names_no_request_gives_no_yes():
    assert codes(requests=(), matches={}, proofs={**PROOFS, FORGOT: replace(PASSED, requests=())}) == ("no_request",)


def test_without_an_alias_nothing_is_approved():
    assert codes(reviews=(review(),), policy=GatePolicy(approvals=1)) == ("no_alias",)


@pytest.mark.parametrize(
    ("outcome", "allowed", "expected"), [("INCONCLUSIVE", True, "yes"), ("INCONCLUSIVE", False, "undecided"), ("FAIL", True, "no")]
)
def test_an_override_lets_the_undecided_through_and_never_a_fail(outcome, allowed, expected):
    proofs = {**PROOFS, FORGOT: replace(PASSED, outcomes={"removal": outcome})}
    given = {"reviews": (review(kind="override"),), "policy": GatePolicy(override=allowed), "alias": "champion"}
    assert answer(proofs=proofs, **given) == expected


def test_an_override_is_not_inherited_and_cures_no_unknown_data():
    proofs = {**PROOFS, FORGOT: replace(PASSED, outcomes={"removal": "INCONCLUSIVE"})}
    given = {"reviews": (review(kind="override"), review(kind="override", statement="3" * 64)), "policy": GatePolicy(override=True)}
    assert answer(TUNED, proofs=proofs, alias="champion", **given) == "no"
    unknown = (replace(LINEAGES[0], problem="nobody knows"), *LINEAGES[1:])
    assert answer(proofs=proofs, alias="champion", lineages=unknown, **given) == "undecided"


def _without(model: ModelVersion) -> Callable[[dict], dict]:
    return lambda given: given | {"proofs": {key: value for key, value in given["proofs"].items() if key != model}}


def _changed(model: ModelVersion, **changes) -> Callable[[dict], dict]:
    return lambda given: given | {"proofs": {**given["proofs"], model: replace(given["proofs"].get(model, Proof()), **changes)}}


DAMAGES = [
    *(_without(model) for model in PROOFS),
    *(_changed(model, problems=(each,)) for model in PROOFS for each in DAMAGE),
    *(
        _changed(model, outcomes=outcomes)
        for model in PROOFS
        for outcomes in ({}, {"removal": "FAIL"}, {"removal": "INCONCLUSIVE"}, {"removal": "?"})
    ),
    *(_changed(model, requests=()) for model in PROOFS),
    *(_changed(model, certified=(replace(ASKED, received_at=NOW - timedelta(days=days)),)) for model in PROOFS for days in (20, 400)),
    *(_changed(model, holders=frozenset({"rae", "sol"})) for model in PROOFS),
    lambda given: given | {"requests": (), "matches": {}, "ground": DAMAGE[:1]},
    *(_changed(model, kind="lineage", outcomes={}) for model in PROOFS),
    *(_changed(model, statement="") for model in PROOFS),
    *((lambda given, each=each: given | {"ground": (each,)}) for each in DAMAGE),
    *((lambda given, each=each: given | {"others": (each,)}) for each in DAMAGE),
    lambda given: given | {"reviews": given["reviews"][:-1]},
    lambda given: given | {"reviews": tuple(replace(each, statement="0" * 64) for each in given["reviews"])},
    lambda given: given | {"alias": None},
    lambda given: given | {"traced": None},
    lambda given: given | {"lineages": tuple(replace(each, problem="unreadable") for each in given["lineages"])},
    lambda given: given | {"lineages": tuple(replace(each, verdict={}) for each in given["lineages"])},
]
GIVEN = st.fixed_dictionaries(
    {
        "model": st.sampled_from([BASE, FORGOT, TUNED]),
        "proofs": st.just(PROOFS),
        "lineages": st.just(LINEAGES),
        "reviews": st.lists(st.sampled_from([review(), review("sol"), review(kind="override")]), max_size=3).map(tuple),
        "policy": st.builds(GatePolicy, approvals=st.integers(0, 2), override=st.booleans()),
        "alias": st.sampled_from([None, "champion"]),
        "requests": st.sampled_from([(), (REQUEST,), (REQUEST, replace(REQUEST, request_id="er-2"))]),
        "matches": st.sampled_from([{}, {DATA: 1}, {MORE: 1}]),
    }
)


@given(GIVEN, st.lists(st.sampled_from(DAMAGES), min_size=1, max_size=4))
def test_taking_evidence_away_or_damaging_it_never_makes_a_yes(given, damages):
    before = answer(**given)
    damaged = given
    for damage in damages:
        damaged = damage(damaged)
        if answer(**damaged) == "yes":
            assert before == "yes"


@given(GIVEN)
def test_a_yes_has_no_reason_against_it_and_any_other_answer_has_one(given):
    decision = gate(evidence(**given))
    against = {reason.answer for reason in decision.reasons} - {"note"}
    assert decision.answer == ("no" if "no" in against else "undecided" if against else "yes")
    assert set(decision.evidence) >= {proof.statement for proof in PROOFS.values()}
