from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_unlearn.lineage import DatasetRevision, Descent, ModelVersion, Relation, VersionLineage
from mlflow_unlearn.records import Basis, Effect, ErasureRequest
from mlflow_unlearn.trace import lineage_datasets, trace, without_batch

STATES = {md5: DatasetRevision(name="d", path="data", md5=md5, revisions=("main",)) for md5 in ("aaaa1111", "bbbb2222")}
OLD, CLEAN = STATES
MATCHES = {OLD: 3}


def version(number, *datasets, parent=None, **facts):
    ancestors = (Descent(parent=parent, relation=Relation.UNLEARNED, evidence="tag unlearn.parent"),) if parent else ()
    return VersionLineage(
        model=ModelVersion(name="m", version=str(number)),
        datasets={f"d{i}": md5 for i, md5 in enumerate(datasets)},
        ancestors=ancestors,
        **facts,
    )


def request(name, effect=Effect.REMOVAL):
    return ErasureRequest(
        request_id=name, basis=Basis.GDPR_17, effect=effect, received_at=datetime(2026, 1, 1, tzinfo=UTC), due_at=None, subjects=("t",)
    )


ASKED = (request("er-1"),)


def places(*versions, requests=ASKED, matches=MATCHES):
    traced = trace(requests, versions, STATES, matches)
    return {line.model.version: (kind, line) for kind in ("affected", "clear", "unknown") for line in getattr(traced, kind)}


def test_data_decide_and_the_reason_names_them():
    found = places(version(1, OLD), version(2, CLEAN), version(3, OLD, CLEAN))
    assert [found[v][0] for v in "123"] == ["affected", "clear", "affected"]
    assert found["1"][1].why == "3 of the requested records in d aaaa1111 (main)"
    assert (found["1"][1].records, found["2"][1].signed) == (3, False)


@pytest.mark.parametrize(
    ("lineage", "why"),
    [
        (version(1), "no dataset under DVC"),
        (version(1, CLEAN, problem="the run is gone"), "the run is gone"),
        (version(1, "ffff"), "ffff is in no git revision"),
        (version(1, CLEAN, parent=ModelVersion(name="m", version="9")), "ancestor m/9: no longer registered"),
    ],
)
def test_what_cannot_be_read_is_unknown_with_its_reason(lineage, why):
    kind, line = places(lineage)["1"]
    assert kind == "unknown"
    assert why in line.why


def test_a_version_inherits_what_its_ancestors_saw():
    first, second = version(1, OLD), version(2, CLEAN, parent=ModelVersion(name="m", version="1"))
    assert places(first, second)["2"][0] == "affected"


def test_a_cycle_of_parents_ends():
    one, two = (ModelVersion(name="m", version=v) for v in "12")
    lineages = {one: version(1, OLD, parent=two), two: version(2, CLEAN, parent=one)}
    assert lineage_datasets(one, lineages) == (frozenset({OLD, CLEAN}), None)


@pytest.mark.parametrize(
    ("verdict", "kind", "word"),
    [({"removal": "PASS"}, "clear", "PASS"), ({"removal": "FAIL"}, "affected", "FAIL"), ({"suppression": "PASS"}, "affected", "INCONCLUSIVE")],
)
def test_only_pass_for_the_effect_asked_clears_an_unlearned_version(verdict, kind, word):
    made = version(2, OLD, parent=ModelVersion(name="m", version="1"), requests=("er-1",), verdict=verdict)
    found = places(version(1, OLD), made)["2"]
    assert found[0] == kind
    assert f"unlearned, {word} as removal" in found[1].why


def test_pass_does_not_clear_what_an_unknown_ancestor_saw():
    made = version(2, OLD, parent=ModelVersion(name="m", version="1"), requests=("er-1",), verdict={"removal": "PASS"})
    assert places(made)["2"][0] == "unknown"


def test_pass_for_one_request_does_not_clear_another():
    made = version(2, OLD, parent=ModelVersion(name="m", version="1"), requests=("er-1",), verdict={"removal": "PASS"})
    kind, line = places(version(1, OLD), made, requests=(request("er-1"), request("er-2")))["2"]
    assert kind == "affected"
    assert "not er-2" in line.why


def test_without_batch_drops_exactly_the_versions_made_for_it():
    made = version(2, OLD, parent=ModelVersion(name="m", version="1"), requests=("er-2", "er-1"))
    other = replace(made, model=ModelVersion(name="m", version="3"), requests=("er-1",))
    traced = trace([request("er-1"), request("er-2")], [version(1, OLD), made, other], STATES, MATCHES)
    assert [line.model.version for line in without_batch(traced, ["er-1", "er-2"]).affected] == ["1", "3"]
    assert without_batch(traced, []) == traced


def test_versions_are_in_the_order_of_their_numbers():
    assert list(places(*(version(n, OLD) for n in (10, 9, 2)))) == ["2", "9", "10"]


DATA = st.lists(st.sampled_from([OLD, CLEAN, "ffff"]), max_size=3)
PARENTS = st.none() | st.sampled_from([ModelVersion(name="m", version=v) for v in "123"])
FACTS = st.fixed_dictionaries(
    {
        "parent": PARENTS,
        "problem": st.none() | st.just("gone"),
        "requests": st.sets(st.sampled_from(["er-1", "er-2"])).map(lambda names: tuple(sorted(names))),
        "verdict": st.dictionaries(st.sampled_from(["removal", "suppression"]), st.sampled_from(["PASS", "FAIL", "INCONCLUSIVE"])),
    }
)
VERSIONS = st.lists(st.tuples(DATA, FACTS), min_size=1, max_size=3).map(lambda drawn: [version(n, *d, **f) for n, (d, f) in enumerate(drawn, 1)])


@given(VERSIONS)
def test_unknown_is_never_clear(versions):
    lineages = {each.model: each for each in versions}
    for number, (kind, _) in places(*versions).items():
        datasets, problem = lineage_datasets(ModelVersion(name="m", version=number), lineages)
        assert kind != "clear" or (problem is None and datasets <= set(STATES))


@given(VERSIONS, st.sampled_from(list(Effect)))
def test_another_request_never_turns_affected_into_clear(versions, effect):
    before = places(*versions)
    after = places(*versions, requests=(request("er-1"), request("er-2", effect)), matches={OLD: 4, CLEAN: 1})
    assert all(after[v][0] != "clear" for v, (kind, _) in before.items() if kind == "affected")


@given(VERSIONS)
def test_every_version_has_exactly_one_place(versions):
    traced = trace([request("er-1")], versions, STATES, MATCHES)
    placed = [line.model for line in (*traced.affected, *traced.clear, *traced.unknown)]
    assert sorted(placed) == sorted(each.model for each in versions)
