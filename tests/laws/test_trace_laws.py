"""The trace against an oracle that walks every path backwards, one at a time, and knows none of our walks."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trace_oracle import Oracle

from mlflow_unlearn.closure import Edge, flood, grounded, spread
from mlflow_unlearn.lineage import DatasetRevision, Derivation, Descent, ModelVersion, Relation, RunLineage, Trace, VersionLineage
from mlflow_unlearn.records import Basis, Effect, ErasureRequest
from mlflow_unlearn.trace import Evidence, tainted, trace

MD5S = [f"{letter}" * 32 for letter in "abcdef"]
CODE = ("0" * 32, "prepare.py")
MODELS = [ModelVersion(name="m", version=str(number)) for number in range(1, 6)]
REQUESTS = [
    ErasureRequest(request_id=f"er-{n}", basis=Basis.GDPR_17, effect=Effect.REMOVAL, received_at=datetime(2026, 1, 1, tzinfo=UTC), due_at=None)
    for n in (1, 2)
]
LOST = "9" * 32


@st.composite
def evidence(draw: st.DrawFn) -> Evidence:
    """A few states, indexed or not, that stages made from one another, and a few versions trained on them and on one another."""
    indexed = draw(st.sets(st.sampled_from(MD5S), min_size=1, max_size=4))
    data = [(md5, f"{md5[0]}.csv") for md5 in MD5S]
    sources = st.sampled_from([*data, *data, *data, CODE, CODE, ("", "import.csv"), (MD5S[0], "a.py")])
    edge = st.tuples(sources, st.sampled_from(MD5S), st.sampled_from(["s", "t"]))
    edges = draw(st.lists(edge, min_size=2, max_size=8))
    models = MODELS[: draw(st.integers(1, 5))]
    known = sorted(indexed | {target for _, target, _ in edges})
    return Evidence(
        requests=REQUESTS[: draw(st.integers(1, 2))],
        versions=[draw(lineages(model, known)) for model in models],
        states={md5: DatasetRevision(name="d", path="d", md5=md5) for md5 in sorted(indexed)},
        matches=draw(st.dictionaries(st.sampled_from(sorted(indexed)), st.integers(0, 3), max_size=2)),
        derivations=[Derivation(source=s, source_path=p, target=t, target_path=f"{t[0]}.csv", stage=stage) for (s, p), t, stage in edges],
        unreadable=dict.fromkeys(draw(st.sampled_from([[], [], [], sorted(set(MD5S) - indexed)[:1]])), "is gone"),
    )


@st.composite
def lineages(draw: st.DrawFn, model: ModelVersion, known: list[str]) -> VersionLineage:
    data = draw(st.lists(st.sampled_from([*known, *known, *known, LOST]), min_size=draw(st.sampled_from([0, 1, 1])), max_size=2))
    before = st.sampled_from([each for each in MODELS if each <= model])
    parents = draw(st.lists(st.tuples(before | st.sampled_from([*MODELS]), st.sampled_from(Relation)), max_size=2))
    return VersionLineage(
        model=model,
        datasets={f"d{place}": md5 for place, md5 in enumerate(data)},
        ancestors=tuple(Descent(parent=parent, relation=relation, evidence="said") for parent, relation in parents),
        requests=draw(st.sampled_from([(), (), ("er-1",), ("er-2",), ("er-1", "er-2")])),
        verdict={"removal": draw(st.sampled_from(["PASS", "PASS", "FAIL"]))},
        problem=draw(st.sampled_from([*[None] * 8, "gone"])),
    )


def placed(traced: Trace) -> dict[ModelVersion, tuple[str, bool]]:
    return {line.model: (kind, line.exact) for kind in ("affected", "clear", "unknown") for line in getattr(traced, kind)}


@given(evidence())
def test_every_version_is_where_the_oracle_puts_it_and_exact_where_it_says_so(drawn: Evidence) -> None:
    oracle = Oracle(drawn)
    assert placed(trace(drawn)) == {lineage.model: oracle.place(lineage.model) for lineage in drawn.versions}


@given(evidence())
def test_tainted_is_every_dataset_and_output_from_which_a_path_leads_back_to_a_record(drawn: Evidence) -> None:
    oracle = Oracle(drawn)
    known = {*drawn.states, *(edge.target for edge in drawn.derivations)}
    assert tainted(drawn).keys() == {md5 for md5 in known if any(end == "hit" for end, _ in oracle.ends(md5))}


@given(evidence())
def test_a_path_goes_from_what_holds_the_records_to_the_version_step_by_step_and_none_is_shorter(drawn: Evidence) -> None:
    oracle = Oracle(drawn)
    for line in trace(drawn).affected:
        kept = [
            path
            for end, path in oracle.ends(line.model)
            if end == "hit" and (not line.exact or all(isinstance(node, ModelVersion) for node in path[:-1]))
            for request in drawn.requests
            if not any(oracle.forgot(n, request) for n in path if isinstance(n, ModelVersion))
        ]
        assert len(line.path) == min(map(len, kept))
        names = [tuple(str(node) if isinstance(node, ModelVersion) else node[:8] for node in reversed(path)) for path in kept]
        assert any(all(name in step.name for name, step in zip(each, line.path, strict=True)) for each in names if len(each) == len(line.path))


@given(evidence())
def test_records_are_the_most_that_any_state_on_any_path_holds(drawn: Evidence) -> None:
    oracle = Oracle(drawn)
    for lines in (traced := trace(drawn)).affected, traced.clear, traced.unknown:
        for line in lines:
            ends = [path[-1] for end, path in oracle.ends(line.model) if end == "hit"]
            assert line.records == max((drawn.matches[str(md5)] for md5 in ends), default=0)


def without_a_state(drawn: Evidence, place: int) -> Evidence:
    md5 = sorted(drawn.states)[place % len(drawn.states)] if drawn.states else ""
    states = {key: state for key, state in drawn.states.items() if key != md5}
    return replace(drawn, states=states, unreadable={**drawn.unreadable, md5: "is gone"})


def without_an_output(drawn: Evidence, place: int) -> Evidence:
    return replace(drawn, derivations=[edge for edge in drawn.derivations if edge.target != MD5S[place % len(MD5S)]])


def without_a_version(drawn: Evidence, place: int) -> Evidence:
    return replace(drawn, versions=[lineage for number, lineage in enumerate(drawn.versions) if number != place % len(drawn.versions)])


def without_a_lineage(drawn: Evidence, place: int) -> Evidence:
    at = place % len(drawn.versions)
    gone = VersionLineage(model=drawn.versions[at].model, problem="cannot be read")
    return replace(drawn, versions=[gone if number == at else lineage for number, lineage in enumerate(drawn.versions)])


def without_verdicts(drawn: Evidence, place: int) -> Evidence:
    at = place % len(drawn.versions)
    return replace(drawn, versions=[replace(each, verdict={}) if number == at else each for number, each in enumerate(drawn.versions)])


LOSSES = [without_a_state, without_an_output, without_a_version, without_a_lineage, without_verdicts]


@pytest.mark.parametrize("loss", LOSSES)
@given(evidence(), st.integers(0, 5))
def test_losing_evidence_never_makes_a_version_clear(loss, drawn: Evidence, place: int) -> None:
    before, after = placed(trace(drawn)), placed(trace(loss(drawn, place)))
    assert {model for model in after if after[model][0] == "clear"} <= {model for model in before if before[model][0] == "clear"}


@given(evidence(), st.dictionaries(st.sampled_from(MD5S), st.integers(0, 3)))
def test_another_request_never_makes_an_affected_version_clear(drawn: Evidence, more: dict[str, int]) -> None:
    one = replace(drawn, requests=REQUESTS[:1])
    matches = {md5: drawn.matches.get(md5, 0) + more.get(md5, 0) for md5 in MD5S}
    after = placed(trace(replace(drawn, requests=REQUESTS, matches=matches)))
    assert all(after[model][0] == "affected" for model, (kind, _) in placed(trace(one)).items() if kind == "affected")


@given(evidence(), st.randoms(use_true_random=False))
def test_the_order_of_the_evidence_does_not_matter(drawn: Evidence, chance) -> None:
    versions, derivations, runs = list(drawn.versions), list(drawn.derivations), a_run_each(MD5S)
    for each in (versions, derivations, runs):
        chance.shuffle(each)
    assert trace(replace(drawn, versions=versions, derivations=derivations, runs=runs)) == trace(replace(drawn, runs=a_run_each(MD5S)))


def a_run_each(md5s: list[str]) -> list[RunLineage]:
    return [RunLineage(run_id=f"run-{md5[0]}", experiment="e", datasets={"d": md5}) for md5 in md5s]


@given(evidence())
def test_a_run_is_traced_iff_it_read_what_is_tainted(drawn: Evidence) -> None:
    traced = trace(replace(drawn, runs=a_run_each(MD5S)))
    assert {run.run_id for run in traced.runs} == {f"run-{md5[0]}" for md5 in tainted(drawn)}
    assert all(run.exact == (f"{run.run_id[-1]}" * 32 in drawn.states) for run in traced.runs)


GRAPHS = st.dictionaries(st.integers(0, 7), st.sets(st.integers(0, 7), max_size=3))


@given(GRAPHS, st.lists(st.integers(0, 7), unique=True, max_size=3), st.dictionaries(st.integers(0, 7), st.integers(0, 3)))
def test_spread_finds_the_nodes_of_a_search_per_bit(graph, starts, forgotten) -> None:
    found = spread(starts, lambda node: [Edge(to, "") for to in sorted(graph.get(node, ()))], 3, forgotten)
    for_each = set()
    for bit in (1, 2):
        kept = {node for node in range(8) if not forgotten.get(node, 0) & bit}
        for_each |= closure_of(set(starts) & kept, {node: graph.get(node, set()) & kept for node in kept})
    assert found.keys() == for_each


@given(GRAPHS, st.lists(st.integers(0, 7), unique=True, max_size=4))
def test_flood_names_the_first_start_that_reaches_a_node(graph, starts) -> None:
    expected: dict[int, int] = {}
    for start in reversed(starts):
        expected |= dict.fromkeys(closure_of({start}, graph), start)
    assert flood(starts, lambda node: [Edge(to, "") for to in graph.get(node, ())]) == expected


def closure_of(nodes: set[int], graph: dict[int, set[int]]) -> set[int]:
    while more := set().union(*(graph.get(node, set()) for node in nodes)) - nodes:
        nodes = nodes | more
    return nodes


@given(st.lists(st.tuples(st.integers(0, 5), st.frozensets(st.integers(0, 5), max_size=3)), max_size=8), st.sets(st.integers(0, 5), max_size=2))
def test_grounded_is_the_least_set_that_the_makings_close(makings, origins) -> None:
    expected = set(origins)
    for _ in range(6):
        expected |= {target for target, sources in makings if sources and sources <= expected}
    assert grounded(makings, origins) == expected
