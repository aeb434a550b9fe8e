"""What all shards share, from evidence to an answer: unknown never holds, and what was found outweighs trust."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from mlflow_unlearn.exact_conditions import SHARED
from mlflow_unlearn.lineage import Derivation
from mlflow_unlearn.shared_state import BaseSeen, SharedEvidence, shared_state, upstream

DIGEST = "d" * 64


def evidence(kind: Any, trusted: Sequence[str] = ()) -> SharedEvidence:
    seen = BaseSeen(kind=kind, why="why", searched={})
    return SharedEvidence(reference="r", digests={"base model": DIGEST}, seen=seen, trusted=trusted, aggregation="vote")


def test_every_part_is_answered_in_order_and_an_unknown_base_is_unknown() -> None:
    found = shared_state(evidence("unknown", ["another"]))
    assert tuple(each.name for each in found) == SHARED
    assert [each.holds for each in found] == [None, None, *[True] * 5]
    assert found[0].detail.endswith("trusted_bases: r")
    assert "`vote`" in found[-1].detail


@pytest.mark.parametrize(("kind", "holds"), [("affected", False), ("clear", True), ("unknown", True)])
def test_what_was_found_outweighs_trust(kind: str, holds: bool) -> None:
    found = shared_state(evidence(kind, ["r"]))
    assert [each.holds for each in found[:2]] == [holds, holds]
    assert ("trusted" in found[0].detail) is (kind == "unknown")


def test_upstream_follows_every_making_and_no_ring_and_stops_where_rows_are_known() -> None:
    pairs = [("a", "b"), ("b", "c"), ("c", "b"), ("x", "c"), ("known", "x"), ("beyond", "known"), ("c", "t"), ("", "t"), ("t", "t")]
    edges = [Derivation(source=s, source_path=f"p{s}", target=t, target_path=t, stage="s") for s, t in pairs]
    assert upstream("t", edges, {"known"}) == {each: f"p{each}" for each in ("a", "b", "c", "x", "known")}


def test_a_trusted_tensor_digest_does_not_vouch_for_the_tokenizer() -> None:
    assert [each.holds for each in shared_state(evidence("unknown", [DIGEST]))[:2]] == [True, None]
