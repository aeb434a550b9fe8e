"""The rules of a sound split: a sound one obeys all, and each defect breaks its own rule."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_unlearn.protocols import Record
from mlflow_unlearn.validate import Check, ValidationJob, check, nearest

PLACES = ("a lighthouse keeper", "seven beehives", "the old canal", "a glass harmonica", "cinnamon", "quartz", "a blue tram", "walnut oil")


def record(number: int, owner: str | None = None) -> Record:
    return Record(tag=f"r{number}", subject=owner or f"s{number}", prompt=f"{number * 7919}: what?", answer=PLACES[number])


FORGET, RETAIN, HOLDOUT, EXCLUDED = [record(0), record(1, "s2")], [record(2), record(3), record(4)], [record(5)], [record(6, "s3")]
SOUND = ValidationJob(
    dataset_tags={"r0", "r1", "r2", "r3", "r4"},
    dataset_rows=5,
    forget=FORGET,
    retain=RETAIN,
    holdout=HOLDOUT,
    excluded_canaries=EXCLUDED,
    subjects={"s0"},
    near_duplicate_jaccard=0.7,
    near_duplicate_refuse=0.9,
    returned=np.zeros(3, dtype=np.bool_),
    resemblance=np.zeros(3),
)


def broken(job: ValidationJob) -> dict[str, int]:
    return {each.name: each.violations for each in check(job) if each.violations}


def test_a_sound_split_obeys_every_rule_and_owners_of_forgotten_canaries_may_stay() -> None:
    assert broken(SOUND) == {}


def test_rules_are_named_once_and_only_near_duplicates_merely_warn() -> None:
    checks = check(SOUND)
    assert len({each.name for each in checks}) == len(checks)
    warnings = [each.name for each in checks if each.severity == "warn"]
    assert warnings == ["no near duplicate of forgotten text in retain", "no near duplicate of erased text in retain"]


def test_a_checker_outside_sees_flags_and_nothing_else() -> None:
    assert all(each.obeyed.dtype == np.bool_ and each.obeyed.ndim == 1 for each in check(SOUND))


@pytest.mark.parametrize(
    ("change", "rule", "rows"),
    [
        ({"forget": [*FORGET, replace(record(7), tag="r9", answer="  ")], "dataset_rows": 6}, "prompt and answer are there", 1),
        ({"retain": [*RETAIN, record(4)], "dataset_rows": 6}, "records are unique", 2),
        ({"forget": [*FORGET, record(7)], "dataset_rows": 6}, "forget lies within the dataset", 1),
        ({"retain": [*RETAIN, record(7)], "dataset_rows": 6}, "retain lies within the dataset", 1),
        ({"retain": [*RETAIN, record(1, "s2")], "dataset_rows": 6}, "forget and retain are disjoint", 1),
        ({"retain": RETAIN[1:]}, "forget and retain make the dataset", 1),
        ({"subjects": {"s0", "s3", "s4"}}, "no requested person is left in retain", 2),
        ({"holdout": [*HOLDOUT, record(3)]}, "hold-out was never trained on", 1),
        ({"excluded_canaries": [record(4), record(0)]}, "excluded canaries were never trained on", 2),
        ({"returned": np.array([True, False, True])}, "no erased person, record or text is back in retain", 2),
        ({"resemblance": np.array([0.69, 0.7, 0.95])}, "no near duplicate of erased text in retain", 2),
        ({"resemblance": np.array([0.89, 0.9, 0.95])}, "no near copy of erased text in retain", 2),
    ],
)
def test_each_defect_breaks_its_rule_and_is_counted(change: dict[str, object], rule: str, rows: int) -> None:
    assert broken(replace(SOUND, **change))[rule] == rows


@pytest.mark.parametrize("answer", ["a lighthouse keeper", " A  Lighthouse\nKeeper "])
def test_a_copy_of_forgotten_text_under_another_id_is_refused_however_it_is_spaced_or_cased(answer: str) -> None:
    copied = [replace(RETAIN[0], prompt=FORGET[0].prompt, answer=answer), *RETAIN[1:]]
    found = broken(replace(SOUND, retain=copied))
    assert set(found) == {f"no {kind} of forgotten text in retain" for kind in ("exact duplicate", "near duplicate", "near copy")}


@pytest.mark.parametrize(("answer", "refused"), [("a lighthouse keeper!", True), ("a lighthouse keeper today", False)])
def test_near_duplicates_of_the_forgotten_are_warned_about_and_near_copies_refused(answer: str, refused: bool) -> None:
    near = [replace(RETAIN[0], prompt=FORGET[0].prompt, answer=answer), *RETAIN[1:]]
    found = broken(replace(SOUND, retain=near))
    assert found.pop("no near duplicate of forgotten text in retain") == 1
    assert found == ({"no near copy of forgotten text in retain": 1} if refused else {})


@given(st.lists(st.booleans(), max_size=8), st.integers(0, 8))
def test_rows_are_conserved_exactly_when_forget_and_retain_add_up(forgotten: list[bool], rows: int) -> None:
    records = [record(i) for i in range(len(forgotten))]
    forget, retain = ([r for r, gone in zip(records, forgotten, strict=True) if gone is side] for side in (True, False))
    nothing = {"returned": np.zeros(len(retain), dtype=np.bool_), "resemblance": np.zeros(len(retain))}
    job = replace(SOUND, forget=forget, retain=retain, dataset_tags={r.tag for r in records}, dataset_rows=rows, **nothing)
    assert ("forget and retain make the dataset" in broken(job)) == (rows != len(records))


def naive_nearest(forget: list[Record], retain: list[Record]) -> list[float]:
    def shingles(each: Record) -> set[str]:
        text = f"{each.prompt} {each.answer}"
        return {text[i : i + 5] for i in range(len(text) - 4)}

    return [max((len(shingles(f) & shingles(r)) / len(shingles(f) | shingles(r)) for f in forget), default=0.0) for r in retain]


texts = st.builds(lambda q, a: Record(tag="t", subject=None, prompt=q + "?", answer=a), *[st.text("ab", min_size=4, max_size=14)] * 2)


@given(st.lists(texts, max_size=5), st.lists(texts, max_size=5))
def test_nearest_is_the_largest_similarity_of_the_pairwise_definition(forget: list[Record], retain: list[Record]) -> None:
    assert nearest(forget, retain).tolist() == naive_nearest(forget, retain)


def test_a_pair_exactly_at_the_threshold_counts_although_floats_round() -> None:
    left, right = (Record(tag=tail, subject=None, prompt="abcdefghijklmnopqr" + tail, answer="z") for tail in ("1234", "567"))
    shared, union = 18 - 4, (22 + 2 - 4) + (21 + 2 - 4) - (18 - 4)
    assert 0.56 * union > shared, "a product would miss this pair"
    assert nearest([left], [right])[0] >= 0.56


def test_sets_larger_than_one_block_lose_no_pair() -> None:
    many = [Record(tag=f"m{i}", subject=None, prompt=f"{i:04d}" * 5, answer="x") for i in range(300)]
    assert (nearest(many, many[::-1]) == 1.0).all()


def test_violations_are_the_flags_that_are_off() -> None:
    assert Check(name="any", obeyed=np.array([True, False, False])).violations == 2
