"""What choosing the best step looks at and what the verdict measures are never the same records."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mlflow_unlearn.audit_sets import in_keyed_order, watched_retain
from mlflow_unlearn.protocols import Record


def records(people: int, facts: int) -> list[Record]:
    return [Record(tag=f"{n:032x}", subject="a" if n < people else None, prompt="p", answer="a") for n in range(people + facts)]


@given(st.integers(0, 40), st.integers(0, 10), st.integers(0, 20))
def test_at_most_a_quarter_is_watched_and_the_rest_is_left_to_the_verdict(people: int, facts: int, most: int) -> None:
    retain = records(people, facts)
    watched, ordered = watched_retain(retain, most), in_keyed_order(retain)
    assert len(watched) == min(most, len(ordered) // 4)
    assert list(watched) == list(ordered[len(ordered) - len(watched) :])


def test_which_are_watched_does_not_depend_on_how_many_the_verdict_scores() -> None:
    """`watched_retain` knows nothing of evaluate.retain_sample, so that changing it cannot move a record from one side to the other."""
    assert [record.tag for record in watched_retain(records(8, 0), 100)] == [record.tag for record in records(8, 0)[6:]]
