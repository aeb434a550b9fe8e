"""Laws of the gate until certificates exist: it never says yes, and saying less to it never helps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_unlearn.gate import UNSIGNED, gate
from mlflow_unlearn.lineage import ModelVersion, Trace, TracedVersion, VersionLineage
from mlflow_unlearn.records import Effect, Outcome, Verdict

MODEL = ModelVersion(name="m", version="3")
VERDICTS = st.lists(
    st.builds(Verdict, effect=st.sampled_from(Effect), outcome=st.sampled_from(Outcome), reasons=st.just(("a reason",)), conditions=st.just(())),
    max_size=2,
).map(tuple)
LINEAGES = st.builds(
    VersionLineage, model=st.just(MODEL), requests=st.sampled_from([(), ("er-1",)]), problem=st.sampled_from([None, "nothing is known"])
)


def traced(kind: str) -> Trace:
    return Trace(requests=("er-1",), **{kind: (TracedVersion(model=MODEL, why="because"),)})


TRACES = st.sampled_from([None, Trace(requests=("er-1",)), traced("affected"), traced("unknown"), traced("clear")])


@given(LINEAGES, TRACES, VERDICTS)
def test_the_gate_never_says_yes_and_always_says_unsigned(lineage: VersionLineage, trace: Trace | None, verdicts: tuple[Verdict, ...]) -> None:
    decision = gate(lineage, trace, verdicts)
    assert decision.answer in ("no", "undecided")
    assert decision.reasons[-1] == UNSIGNED


@given(LINEAGES, TRACES, VERDICTS)
def test_dropping_evidence_never_turns_no_into_yes(lineage: VersionLineage, trace: Trace | None, verdicts: tuple[Verdict, ...]) -> None:
    assert "yes" not in {gate(lineage, t, v).answer for t in (trace, None) for v in (verdicts, ())}


@given(LINEAGES, TRACES, VERDICTS)
def test_every_reason_of_every_verdict_is_given(lineage: VersionLineage, trace: Trace | None, verdicts: tuple[Verdict, ...]) -> None:
    reasons = gate(lineage, trace, verdicts).reasons
    assert all(any(v.effect in r and v.outcome in r and "a reason" in r for r in reasons) for v in verdicts)


@given(LINEAGES, VERDICTS)
def test_an_affected_version_is_a_no(lineage: VersionLineage, verdicts: tuple[Verdict, ...]) -> None:
    assert gate(lineage, traced("affected"), verdicts).answer == "no"


@pytest.mark.parametrize("kind", ["unknown", "clear"])
def test_a_failed_verdict_is_a_no(kind: str) -> None:
    failed = Verdict(effect=Effect.REMOVAL, outcome=Outcome.FAIL, reasons=("x",), conditions=())
    assert gate(VersionLineage(model=MODEL), traced(kind), (failed,)).answer == "no"


def test_what_cannot_be_read_is_undecided_and_said() -> None:
    lost = VersionLineage(model=MODEL, requests=("er-1",), problem="its run is gone")
    decision = gate(lost, traced("unknown"), ())
    assert decision.answer == "undecided"
    assert {"unknown: because", "unknown: its run is gone", "its verdict cannot be read: the run has no verdict for er-1"} < set(decision.reasons)
