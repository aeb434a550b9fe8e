"""Who is where, and what a deletion costs: laws against counting."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_unlearn import sisa
from mlflow_unlearn.digests import keyed_tag
from mlflow_unlearn.exactness import Family, PinnedBase
from mlflow_unlearn.protocols import Record

KEY = bytes(range(32))
FAMILY = Family(family="f", shards=4, slices=3, base=PinnedBase(reference="b", tensor_digest="d", tokenizer_digest="t"), settings={})


def record(number: int, person: int | None) -> Record:
    subject = None if person is None else keyed_tag(KEY, "subject", f"person {person}")
    return Record(tag=keyed_tag(KEY, "record", str(number)), subject=subject, prompt=f"question {number}", answer=f"answer {number}")


RECORDS = [record(number, None if number % 7 == 0 else number % 40) for number in range(200)]


def test_a_person_is_in_one_shard_and_one_slice() -> None:
    for tag in {each.subject for each in RECORDS if each.subject}:
        holding = [shard for shard, piece in enumerate(sisa.cut(RECORDS, 8)) if any(each.subject == tag for each in piece)]
        assert holding == [sisa.shard_of(tag, 8)]
        slices = sisa.sliced([each for each in RECORDS if each.subject == tag], 3)
        assert [number for number, part in enumerate(slices) if part] == [sisa.slice_of(tag, 3)]


@given(st.permutations(RECORDS[:30]), st.integers(1, 9))
def test_a_cut_is_a_partition_whatever_the_order(records: list[Record], shards: int) -> None:
    pieces = sisa.cut(records, shards)
    assert sorted(each.tag for piece in pieces for each in piece) == sorted(each.tag for each in records)
    assert pieces == sisa.cut(RECORDS[:30], shards)


def test_who_leaves_moves_nobody() -> None:
    gone = RECORDS[11].subject
    left = sisa.cut([each for each in RECORDS if each.subject != gone], 8)
    assert left == [[each for each in piece if each.subject != gone] for piece in sisa.cut(RECORDS, 8)]


def test_shards_and_slices_are_of_even_size_and_independent() -> None:
    tags = [keyed_tag(KEY, "subject", str(number)) for number in range(20_000)]
    counts = [sum(sisa.shard_of(tag, 4) == shard and sisa.slice_of(tag, 5) == number for tag in tags) for shard in range(4) for number in range(5)]
    assert max(abs(count - 1000) for count in counts) < 160  # five standard deviations


@pytest.mark.parametrize("epochs", [1, 7, 40])
@pytest.mark.parametrize("slices", [1, 2, 3, 5])
def test_slices_cost_what_one_training_costs(epochs: int, slices: int) -> None:
    spent = sum(sisa.stage_tokens([100] * slices, epochs))
    assert abs(spent - epochs * slices * 100) <= 100 * sum(range(1, slices + 1))  # at most one epoch of rounding
    assert slices > 1 or spent == epochs * 100


@pytest.mark.parametrize("deletions", [1, 5, 20])
@pytest.mark.parametrize(("shards", "slices"), [(4, 1), (8, 2), (16, 4), (64, 3)])
def test_the_predicted_fraction_is_what_random_deletions_cost(deletions: int, shards: int, slices: int) -> None:
    chance = random.Random(7)
    share = 0.0
    for _ in range(4000):
        first: dict[int, int] = {}
        for _ in range(deletions):
            shard, number = chance.randrange(shards), chance.randrange(slices)
            first[shard] = min(number, first.get(shard, slices))
        share += sum(sum(range(number + 1, slices + 1)) for number in first.values()) / (shards * slices * (slices + 1) / 2) / 4000
    assert sisa.predicted_fraction(deletions, shards, slices) == pytest.approx(share, rel=0.06)


def test_the_predicted_fraction_is_that_of_the_table() -> None:
    """Values of the closed form 1 - (1 - 1/S)^k for one slice, and by hand for two slices of one shard: (1/2 * 1 + 1 * 2) / 3."""
    assert sisa.predicted_fraction(5, 16, 1) == pytest.approx(1 - (15 / 16) ** 5)
    assert sisa.predicted_fraction(1, 1, 2) == pytest.approx((0.5 * 1 + 1 * 2) / 3)
    assert sisa.predicted_fraction(0, 8, 3) == 0


def test_a_chain_changes_from_the_slice_that_changed_on() -> None:
    plan = sisa.planned(FAMILY, 1, RECORDS, seed=3)
    (gone,) = plan[1].records[:1]
    after = sisa.planned(FAMILY, 1, [each for each in RECORDS if each.tag != gone.tag], seed=3)
    assert [now.chain == then.chain for now, then in zip(after, plan, strict=True)] == [True, False, False]


@pytest.mark.parametrize("other", [(replace(FAMILY, family="g"), 1, 3), (FAMILY, 2, 3), (FAMILY, 1, 4)], ids=["family", "shard", "seed"])
def test_everything_that_decides_weights_is_in_the_chain(other: tuple[Family, int, int]) -> None:
    family, shard, seed = other
    mine, others = sisa.planned(FAMILY, 1, RECORDS, 3), sisa.planned(family, shard, RECORDS, seed)
    assert all(one.chain != two.chain for one, two in zip(mine, others, strict=True))


def test_a_text_that_changed_under_its_id_is_another_slice() -> None:
    changed = [replace(each, answer="another") if each is RECORDS[0] else each for each in RECORDS]
    assert sisa.planned(FAMILY, 1, RECORDS, 3)[-1].chain != sisa.planned(FAMILY, 1, changed, 3)[-1].chain


def test_training_resumes_before_the_first_slice_that_held_anybody() -> None:
    owners = [f"{'0' * 15}1{'0' * 15}2", f"{'0' * 15}1{'0' * 15}1", f"{'0' * 15}3{'0' * 15}0"]
    assert sisa.first_touched(owners, shards=4, slices=3) == {1: 1, 3: 0}
