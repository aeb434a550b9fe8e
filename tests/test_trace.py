from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_unlearn.lineage import DatasetRevision, Derivation, Descent, Hop, ModelVersion, Relation, RunLineage, VersionLineage
from mlflow_unlearn.records import Basis, Effect, ErasureRequest
from mlflow_unlearn.trace import Evidence, lineage_datasets, reaching, tainted, trace, undecided, without_batch

STATES = {md5: DatasetRevision(name="d", path="data", md5=md5, revisions=("main",)) for md5 in ("aaaa1111", "bbbb2222")}
OLD, CLEAN = STATES
DERIVED = "cccc3333"
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


def evidence(*versions, requests=ASKED, matches=MATCHES, **more):
    return Evidence(requests=requests, versions=versions, states=STATES, matches=matches, **more)


def places(*versions, **more):
    traced = trace(evidence(*versions, **more))
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


def test_a_thousand_requests_do_not_make_a_thousand_words():
    asked = [request(f"er-{number:04}") for number in range(1000)]
    made = version(2, OLD, parent=ModelVersion(name="m", version="1"), requests=("er-0000",), verdict={"removal": "PASS"})
    assert places(version(1, OLD), made, requests=asked)["2"][1].why.endswith("not er-0001, er-0002, er-0003, er-0004, er-0005, er-0006 and 993 more")


def test_without_batch_drops_exactly_the_versions_made_for_it():
    made = version(2, OLD, parent=ModelVersion(name="m", version="1"), requests=("er-2", "er-1"))
    other = replace(made, model=ModelVersion(name="m", version="3"), requests=("er-1",))
    traced = trace(evidence(version(1, OLD), made, other, requests=[request("er-1"), request("er-2")]))
    assert [line.model.version for line in without_batch(traced, ["er-1", "er-2"]).affected] == ["1", "3"]
    assert without_batch(traced, []) == traced


def test_without_batch_drops_what_unlearning_itself_makes():
    runs = [RunLineage(run_id="r", experiment="e", datasets={"d": OLD})]
    before, after = (trace(evidence(version(1, OLD), derivations=made, runs=read)) for made, read in (((), ()), ([made_from(OLD)], runs)))
    assert without_batch(after, ["er-1"]) == without_batch(before, ["er-1"]) != after


def made_from(source, path="data", target=DERIVED, stage="dvc.yaml:prepare"):
    return Derivation(source=source, source_path=path, target=target, target_path="build/x.csv", stage=stage)


@pytest.mark.parametrize(
    ("edges", "kind", "why"),
    [
        ([made_from(OLD)], "affected", "3 of the requested records in d aaaa1111 (main); build/x.csv cccc3333 made from it by dvc.yaml:prepare;"),
        ([made_from(CLEAN)], "clear", "none of the requested records in build/x.csv cccc3333"),
        ([made_from(CLEAN), made_from("", "import.csv")], "unknown", "import.csv is not indexed and no stage says what it was made from"),
        ([made_from(CLEAN), made_from("ffff", "a.json")], "unknown", "a.json ffff is not indexed"),
        ([made_from(CLEAN), made_from("ffff", "a.PY"), made_from("", "conf.yaml")], "clear", "none of"),
        ([made_from("ffff", "fetch.py")], "unknown", "made by code alone"),
        ([made_from(CLEAN), made_from(DERIVED, "build/x.csv")], "unknown", "a ring of stages"),
        ([made_from(CLEAN), made_from(DERIVED, "build/x.csv", stage="dvc.yaml:copy")], "clear", "none of"),
        ([made_from(OLD), made_from("", "import.csv")], "affected", "; yet import.csv is not indexed"),
        ([], "unknown", "dataset state cccc3333 is in no git revision that can be read"),
    ],
)
def test_an_output_that_is_not_indexed_is_what_it_was_made_from(edges, kind, why):
    found, line = places(version(1, DERIVED), derivations=edges)["1"]
    assert found == kind
    assert why in line.why
    assert line.exact == (kind != "affected")


@pytest.mark.parametrize(("tracked", "kind"), [(frozenset(), "clear"), (frozenset({"ffff"}), "unknown")])
def test_a_dependency_that_dvc_tracks_is_data_whatever_its_name_ends_in(tracked, kind):
    edges = [made_from(CLEAN), made_from("ffff", "people.yml")]
    assert places(version(1, DERIVED), derivations=edges, tracked=tracked)["1"][0] == kind


def test_nothing_is_clear_when_a_tag_could_not_be_looked_up():
    traced = undecided(trace(evidence(version(1, CLEAN), version(2, OLD))), "1 tag is nowhere")
    assert [line.model.version for line in traced.unknown] == ["1"]
    assert (len(traced.affected), traced.clear, traced.warnings) == (1, (), ("1 tag is nowhere",))


def test_an_indexed_output_is_exact_whatever_it_was_made_from():
    derivations = [made_from(OLD, target=CLEAN), made_from("", "import.csv", target=CLEAN)]
    assert places(version(1, CLEAN), derivations=derivations)["1"][0] == "clear"
    kind, line = places(version(1, CLEAN), derivations=derivations, matches={CLEAN: 1})["1"]
    assert (kind, line.exact, len(line.path)) == ("affected", True, 2)


def test_a_state_that_could_not_be_read_is_unknown_though_it_was_made_from_clear_data():
    kind, line = places(version(1, DERIVED), derivations=[made_from(CLEAN)], unreadable={DERIVED: "is gone from every remote"})["1"]
    assert (kind, line.why) == ("unknown", "build/x.csv cccc3333 is gone from every remote")
    assert trace(evidence(unreadable={DERIVED: "is gone"})).warnings == ("dataset state cccc3333: is gone",)


def test_the_path_names_every_hop_and_the_reason_reads_along_it():
    child = version(2, CLEAN, parent=ModelVersion(name="m", version="1"))
    _, line = places(version(1, DERIVED), child, derivations=[made_from(OLD)])["2"]
    assert [(step.kind, step.name) for step in line.path] == [
        (Hop.DATASET, "d aaaa1111 (main)"),
        (Hop.OUTPUT, "build/x.csv cccc3333"),
        (Hop.VERSION, "m/1"),
        (Hop.VERSION, "m/2"),
    ]
    assert "; m/1 trained on it; m/2 unlearned from m/1 (tag unlearn.parent)" in line.why


ALL_PASS = {"requests": ("er-1",), "verdict": {"removal": "PASS"}}


@pytest.mark.parametrize(("data", "kind"), [(CLEAN, "clear"), (OLD, "affected"), ("ffff", "unknown")])
def test_what_is_made_from_a_version_that_passed_is_what_its_own_data_are(data, kind):
    one, two = (ModelVersion(name="m", version=number) for number in "12")
    found = places(version(1, OLD), version(2, OLD, parent=one, **ALL_PASS), version(3, data, parent=two))
    assert found["3"][0] == kind
    assert kind != "clear" or "every path to them runs through a version that passed" in found["3"][1].why


def test_each_request_may_be_forgotten_by_another_version_on_the_path():
    one, two = (ModelVersion(name="m", version=number) for number in "12")
    second = {"requests": ("er-2",), "verdict": {"removal": "PASS"}}
    chain = version(1, OLD), version(2, CLEAN, parent=one, **ALL_PASS), version(3, CLEAN, parent=two, **second)
    both = (request("er-1"), request("er-2"))
    assert {number: kind for number, (kind, _) in places(*chain, requests=both).items()} == {"1": "affected", "2": "affected", "3": "clear"}


def test_a_merge_of_one_that_passed_and_one_that_did_not_is_affected():
    one, two = (ModelVersion(name="m", version=number) for number in "12")
    merged = VersionLineage(
        model=ModelVersion(name="m", version="3"),
        ancestors=tuple(Descent(parent=parent, relation=Relation.MERGED, evidence="said") for parent in (two, one)),
    )
    kind, line = places(version(1, OLD), version(2, OLD, parent=one, **ALL_PASS), merged)["3"]
    assert (kind, line.path[-2].name) == ("affected", "m/1")


def test_a_longer_path_on_which_another_request_is_left_still_counts():
    """m/4 is reached past m/2, which forgot er-1, and by the longer way past m/3, which did not; m/5 then forgot er-2 alone."""
    one, two, three, four = (ModelVersion(name="m", version=number) for number in "1234")
    second = {"requests": ("er-2",), "verdict": {"removal": "PASS"}}
    both = tuple(Descent(parent=parent, relation=Relation.MERGED, evidence="said") for parent in (two, ModelVersion(name="m", version="33")))
    chain = version(1, OLD), version(2, CLEAN, parent=one, **ALL_PASS), version(3, CLEAN, parent=one), version(33, CLEAN, parent=three)
    merged = replace(version(4, CLEAN), ancestors=both)
    found = places(*chain, merged, version(5, CLEAN, parent=four, **second), requests=(request("er-1"), request("er-2")))
    assert found["5"][0] == "affected"


def test_records_are_the_most_that_a_state_on_any_path_holds():
    child = version(2, OLD, parent=ModelVersion(name="m", version="1"))
    assert places(version(1, CLEAN), child, matches={OLD: 1, CLEAN: 5})["2"][1].records == 5


@pytest.mark.parametrize("relation", list(Relation))
def test_only_what_is_made_of_weights_alone_needs_no_data_of_its_own(relation):
    child = VersionLineage(
        model=ModelVersion(name="m", version="2"),
        ancestors=(Descent(parent=ModelVersion(name="m", version="1"), relation=relation, evidence="said"),),
    )
    alone = relation in (Relation.COPIED, Relation.MERGED, Relation.QUANTISED)
    assert places(version(1, CLEAN), child)["2"][0] == ("clear" if alone else "unknown")


def test_runs_and_outputs_that_the_records_reached_are_listed_and_the_run_of_a_version_is_not_twice():
    runs = [RunLineage(run_id=name, experiment="e", datasets={"d": md5}) for name, md5 in (("r3", DERIVED), ("r1", OLD), ("r2", CLEAN), ("r4", OLD))]
    traced = trace(evidence(version(1, OLD, run_id="r4"), derivations=[made_from(OLD), made_from(OLD, target=CLEAN)], runs=runs))
    assert [(run.run_id, run.exact, run.path[-1].kind) for run in traced.runs] == [("r1", True, Hop.RUN), ("r3", False, Hop.RUN)]
    assert [(output.path, output.md5, output.exact) for output in traced.outputs] == [("build/x.csv", DERIVED, False)]
    assert [(held.state.md5, held.records) for held in traced.held] == [(OLD, 3)]


def test_a_derived_dataset_whose_own_rows_hold_records_is_listed_as_exact():
    traced = trace(evidence(derivations=[made_from(OLD, target=CLEAN)], matches={OLD: 3, CLEAN: 2}))
    assert [(output.md5, output.exact, output.why[-1].how) for output in traced.outputs] == [
        (CLEAN, True, "made from it by dvc.yaml:prepare; holds 2 of the requested records")
    ]


def test_tainted_leads_from_the_records_to_every_state_and_output_that_may_hold_them():
    ways = tainted(evidence(derivations=[made_from(OLD), made_from(DERIVED, target="dddd4444"), made_from(CLEAN, target="eeee5555")]))
    assert {md5: len(way) for md5, way in ways.items()} == {OLD: 1, DERIVED: 2, "dddd4444": 3}


def test_a_chain_of_ten_thousand_is_traced_to_its_end_and_its_middle_is_a_count():
    chain = [version(1, OLD), *(version(n, CLEAN, parent=ModelVersion(name="m", version=str(n - 1))) for n in range(2, 10_001))]
    line = trace(evidence(*chain)).affected[-1]
    assert (line.model.version, len(line.path), line.path[6].name) == ("10000", 12, "9990 more")


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
    traced = trace(evidence(*versions))
    placed = [line.model for line in (*traced.affected, *traced.clear, *traced.unknown)]
    assert sorted(placed) == sorted(each.model for each in versions)


def test_where_it_is_known_whose_records_a_state_holds_each_request_goes_its_own_way():
    asked = (request("er-1"), request("er-2"))
    forgot = version(2, OLD, parent=version(1).model, requests=("er-1",), verdict={"removal": "PASS"})
    versions = (version(1, OLD), forgot, version(3, OLD, CLEAN))
    matches, holders = {OLD: 3, CLEAN: 1}, {OLD: {"er-1"}, CLEAN: {"er-2"}}
    found = places(*versions, requests=asked, matches=matches, holders=holders)
    assert [found[v][0] for v in "123"] == ["affected", "clear", "affected"]
    found = reaching(evidence(*versions, requests=asked, matches=matches, holders=holders), [each.model for each in versions])
    reached = [found[each.model] for each in versions]
    assert reached == [("er-1",), (), ("er-1", "er-2")]
    assert [places(*versions, requests=asked, matches=matches)[v][0] for v in "2"] == ["affected"]
