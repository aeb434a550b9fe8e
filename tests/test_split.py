import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_unlearn.errors import DataError
from mlflow_unlearn.protocols import Record
from mlflow_unlearn.split import Canary, SplitJob, digest, split, union


def record(tag, subject="ana", group=None):
    return Record(tag=tag, subject=subject, prompt=f"q {tag}", answer=f"a {tag}", group=group)


def tags(records):
    return [each.tag for each in records]


def job(dataset, subjects=(), records=(), **others):
    return SplitJob(dataset=dataset, subjects=set(subjects), records=set(records), **others)


ROWS = st.lists(
    st.tuples(st.sampled_from(["ana", "bo", "cy", None]), st.booleans(), st.booleans(), st.sampled_from(["audit", "tuning"])), max_size=25
)


@given(ROWS, st.sets(st.sampled_from(["ana", "bo"])))
def test_split_partitions_the_dataset(rows, subjects):
    dataset = [record(f"{n:02d}", subject) for n, (subject, *_) in enumerate(rows)]
    asked = {each.tag for each, (_, single, _, _) in zip(dataset, rows, strict=True) if single}
    canaries = [Canary(record=each, pool=pool, included=True) for each, (_, _, canary, pool) in zip(dataset, rows, strict=True) if canary]
    sets = split(job(dataset, subjects, asked, canaries=canaries))
    assert sorted(tags(sets.forget) + tags(sets.retain)) == tags(dataset)
    assert set(tags(sets.forget)) == {r.tag for r in dataset if r.subject in subjects} | asked | {c.record.tag for c in canaries}
    assert set(tags(sets.requested)) == {r.tag for r in dataset if r.subject in subjects or r.tag in asked}


def test_a_canary_is_forgotten_and_its_owner_stays():
    dataset = [record("1", "ana"), record("2", "ana"), record("3", "bo")]
    sets = split(job(dataset, ["bo"], canaries=[Canary(record=dataset[0], pool="audit", included=True)]))
    assert (tags(sets.forget), tags(sets.retain), tags(sets.requested), tags(sets.audit_included)) == (["1", "3"], ["2"], ["3"], ["1"])


def test_facts_about_nobody_go_only_when_asked_for_by_record():
    dataset = [record("1", None), record("2", None)]
    assert tags(split(job(dataset, ["ana"])).retain) == ["1", "2"]
    assert tags(split(job(dataset, records=["2"])).forget) == ["2"]


def test_neighbours_belong_with_a_requested_person_and_stay():
    dataset = [record("1", "ana", "g"), record("2", "bo", "g"), record("3", "cy", "h"), record("4", "dee")]
    assert tags(split(job(dataset, ["ana"])).neighbours) == ["2"]


def test_pools_and_coins_keep_apart():
    dataset, away = [record("1"), record("2")], [record("8"), record("9")]
    flips = [
        Canary(record=r, pool=p, included=i) for r, p, i in zip(dataset + away, ("audit", "tuning") * 2, (True, True, False, False), strict=True)
    ]
    sets = split(job(dataset, canaries=flips))
    found = (sets.audit_included, sets.tuning_included, sets.audit_excluded, sets.tuning_excluded)
    assert [tags(each) for each in found] == [["1"], ["2"], ["8"], ["9"]]


@pytest.mark.parametrize(
    ("others", "words"),
    [
        ({"holdout": [record("secret")]}, "split: 1 hold-out records are in the training data"),
        ({"canaries": [Canary(record=record("secret"), pool="audit", included=False)]}, "split: 1 excluded canaries are in the training data"),
        ({"canaries": [Canary(record=record("gone"), pool="audit", included=True)]}, "split: 1 included canaries are missing"),
    ],
)
def test_contradictions_are_counted_and_never_quoted(others, words):
    with pytest.raises(DataError, match=words) as caught:
        split(job([record("secret")], **others))
    assert "secret" not in str(caught.value)


@given(st.permutations([record(str(n)) for n in range(5)]))
def test_order_changes_neither_sets_nor_digest(dataset):
    straight = [record(str(n)) for n in range(5)]
    assert split(job(dataset, ["ana"])) == split(job(straight, ["ana"]))
    assert digest(dataset) == digest(straight)


def test_a_digest_tells_texts_and_sets_apart():
    other = Record(tag="1", subject="ana", prompt="q 1", answer="else")
    assert len({digest([record("1")]), digest([other]), digest([record("1")], []), digest([], [record("1")])}) == 4


def test_the_union_keeps_every_record_and_every_wording_once():
    changed = Record(tag="1", subject="ana", prompt="q 1", answer="changed")
    assert union([[record("1"), record("2")], [record("2"), changed]]) == [record("1"), changed, record("2")]
