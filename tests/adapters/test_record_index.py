import re
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context

import pytest

from mlflow_unlearn.adapters.dvc_project import DvcProject
from mlflow_unlearn.adapters.record_index import RecordIndex
from mlflow_unlearn.adapters.record_indexes import RecordIndexes
from mlflow_unlearn.adapters.schemas import Schema
from mlflow_unlearn.digests import keyed_tag
from mlflow_unlearn.errors import DataError, StoreError
from mlflow_unlearn.params import Columns

KEY = bytes(range(32))


def subject(name, key=KEY):
    return keyed_tag(key, "subject", name)


def record(name):
    return keyed_tag(KEY, "record", "d", f"r-{name}")


def index_of(root, key=KEY, columns=Columns()):  # noqa: B008 - frozen
    return RecordIndex(root / ".unlearn/index", DvcProject(root), Schema(dataset="d", columns=columns, key=key))


def states_of(index):
    return {name: s for s in index.project.dataset_states("d", "data/train") for name in s.revisions}


@pytest.fixture
def indexed(repository):
    index = index_of(repository.root)
    states = states_of(index)
    index.update(list(states.values()))
    return index, states


def test_a_new_revision_costs_only_the_files_that_changed(repository):
    index = index_of(repository.root)
    states = states_of(index)
    assert [index.update([states[name]]).new_files for name in ("data-v1", "main", "trial", "data-v1")] == [2, 1, 1, 0]
    assert index_of(repository.root).update([states["trial"]]).new_files == 0


def test_matches_count_distinct_records_by_revision(indexed):
    index, states = indexed
    found = index.matches(list(states.values()), subjects=[subject("ana"), subject("eve")], records=[record("ana"), record("bo")])
    assert {name: found.get(s.md5, 0) for name, s in states.items() if name in ("data-v1", "main", "trial")} == {"data-v1": 2, "main": 3, "trial": 2}


def test_each_state_names_the_asked_tags_that_it_holds(indexed):
    index, states = indexed
    people, records = {name: subject(name) for name in ("ana", "eve")}, {name: record(name) for name in ("bo", "cy")}
    texts = {name: keyed_tag(KEY, "content", f"Where is {name}?", f"In {name}ville.") for name in ("bo", "dee")}
    found = RecordIndexes({"d": index}, "d").held(
        list(states.values()), subjects=list(people.values()), records=list(records.values()), contents=list(texts.values())
    )
    held = {name: found.get(states[name].md5, frozenset()) for name in ("data-v1", "main", "trial")}
    assert held["data-v1"] == {people["ana"], records["bo"], records["cy"], texts["bo"]}
    assert held["main"] == {*people.values(), *records.values(), texts["bo"]}
    assert held["trial"] == {people["eve"], *records.values(), texts["bo"]}
    assert index.held(list(states.values())) == index.held([], subjects=[people["ana"]]) == {}


def test_nobody_asked_for_matches_nothing(indexed):
    index, states = indexed
    assert index.matches(list(states.values()), subjects=[], records=[]) == {}
    assert index.matches([], subjects=[subject("ana")], records=[]) == {}


def test_unknown_gives_positions_and_knows_every_revision(indexed):
    index, _ = indexed
    asked = [subject("dee"), subject("nobody"), subject("ana")]
    assert index.unknown(subjects=asked, records=[record("x"), record("cy")]) == ([1], [0])


def test_a_subjects_tag_is_no_records_tag(indexed):
    index, _ = indexed
    assert index.unknown(subjects=[record("ana")], records=[subject("ana")]) == ([0], [0])


def test_a_summary_counts_records_and_people(indexed):
    index, states = indexed
    assert index.summary(states["main"]) == {"records": 4, "subjects": 4}


def test_what_was_indexed_stays_traceable_when_its_bytes_are_purged(indexed, repository, tmp_path):
    _, states = indexed
    repository.empty_cache()
    (tmp_path / "home/remote").rename(tmp_path / "home/gone")
    again = index_of(repository.root)
    assert again.update([states["data-v1"]]).new_files == 0
    assert again.matches([states["data-v1"]], subjects=[subject("ana")], records=[]) == {states["data-v1"].md5: 1}


def test_another_key_or_other_columns_never_use_an_old_index(indexed, repository):
    _, states = indexed
    other = bytes(32)
    assert index_of(repository.root, key=other).update([states["main"]]).new_files == 2
    assert index_of(repository.root, columns=Columns(subject="record_id")).update([states["main"]]).new_files == 2
    assert index_of(repository.root, key=other).unknown(subjects=[subject("ana", other)], records=[]) == ([], [])


def test_the_index_holds_no_identifier(indexed):
    index, _ = indexed
    content = b"".join(path.read_bytes() for path in index.folder.rglob("*") if path.is_file())
    assert content
    assert not any(text in content for text in (b"ana", b"r-bo", b"Where", b"ville"))


def test_bytes_that_are_nowhere_are_one_clear_line(repository):
    index = index_of(repository.root)
    repository.people("data/train/shard-1.csv", "flo")
    repository.add("data/train")
    state = states_of(index)["workspace"]
    repository.empty_cache()
    assert re.fullmatch(r"object \w{8}: [^\n]*", str(index.update([state]).unreadable[state.md5]))
    with pytest.raises(StoreError, match="not indexed"):
        index.matches([state], subjects=[subject("ana")], records=[])


def test_a_renamed_column_names_the_file_and_the_key(repository):
    index = index_of(repository.root, columns=Columns(subject="person"))
    (said,) = index.update([states_of(index)["main"]]).unreadable.values()
    assert re.match(r"data/train/shard-\d\.csv: no column 'person' \(data\.columns\.subject of params\.yaml\)", str(said))


def test_an_id_in_two_files_is_counted_and_never_quoted(repository):
    repository.people("data/train/shard-1.csv", "ana")
    repository.add("data/train")
    index = index_of(repository.root)
    state = states_of(index)["workspace"]
    index.update([state])
    with pytest.raises(DataError, match="data/train: 1 duplicate record ids across its files") as caught:
        index.summary(state)
    assert "ana" not in str(caught.value)


def test_a_dataset_of_one_file_is_indexed_too(repository):
    index = index_of(repository.root)
    state = index.project.current_state("d", "data/holdout.csv")
    assert (index.update([state]).new_files, index.summary(state)) == (1, {"records": 1, "subjects": 1})
    assert index.matches([replace(state, revisions=())], subjects=[subject("zed")], records=[]) == {state.md5: 1}


def test_a_truncated_file_makes_the_index_anew(indexed, repository):
    index, states = indexed
    (part,) = index.folder.glob("part-*")
    content = (part / "record.parquet").read_bytes()
    (part / "record.parquet").write_bytes(content[: len(content) // 2])
    again = index_of(repository.root)
    again.update(list(states.values()))
    assert again.matches([states["main"]], subjects=[subject("ana")], records=[]) == {states["main"].md5: 1}


@pytest.mark.parametrize("name", ["subject.parquet", "subject.words", "record.words"])
def test_a_damaged_file_of_equal_size_makes_the_index_anew(indexed, repository, name):
    index, states = indexed
    (part,) = index.folder.glob("part-*")
    (part / name).write_bytes(bytes((part / name).stat().st_size))
    again = index_of(repository.root)
    again.update(list(states.values()))
    assert again.matches([states["main"]], subjects=[subject("ana")], records=[record("bo")]) == {states["main"].md5: 2}


def test_a_data_file_that_is_not_what_its_md5_says_is_not_indexed(repository):
    index = index_of(repository.root)
    state = states_of(index)["main"]
    path = index.project.local_path(dict(index.project.files(state.md5))["shard-0.csv"])
    path.chmod(0o644)
    path.write_text("record_id,subject_id,question,answer\nr-bo,bo,q,a\n")
    assert "has other bytes than its md5 says" in str(index.update([state]).unreadable[state.md5])


def test_two_that_index_at_once_lose_nothing(repository):
    states = list(states_of(index_of(repository.root)).values())
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        list(pool.map(update_in_another_process, [repository.root] * 2, [states, states[::-1]]))
    index = index_of(repository.root)
    assert index.update(states).new_files == 0
    assert index.matches(states, subjects=[subject("ana")], records=[]) == {s.md5: 1 for s in states if "trial" not in s.revisions}


def update_in_another_process(root, states):
    index_of(root).update(states)


def test_renamed_columns_of_an_earlier_revision_are_tried_in_turn(repository):
    repository.write("data/holdout.csv", "id,who,q,a\nr-ana,ana,Where?,Here.\n")
    repository.add("data/holdout.csv")
    earlier = (Columns(record="id", subject="who", prompt="q", answer="a"),)
    schema = Schema(dataset="d", columns=Columns(), key=KEY, earlier=earlier)
    index = RecordIndex(repository.root / ".unlearn/index", DvcProject(repository.root), schema)
    states = index.project.dataset_states("d", "data/holdout.csv")
    assert not index.update(states).unreadable
    here = next(state for state in states if "workspace" in state.revisions)
    assert index.matches(states, subjects=[subject("ana")], records=[]) == {here.md5: 1}


def test_rows_of_several_datasets_are_asked_as_one(repository):
    parts = {
        name: RecordIndex(repository.root / ".unlearn/index", DvcProject(repository.root), Schema(dataset=name, columns=Columns(), key=KEY))
        for name in ("d", "h")
    }
    both = RecordIndexes(parts, "d")
    states = [*parts["d"].project.dataset_states("d", "data/train"), *parts["h"].project.dataset_states("h", "data/holdout.csv")]
    both.update(states)
    found = both.matches(states, subjects=[subject("zed"), subject("cy")], records=[])
    assert {state.name for state in states if found.get(state.md5)} == {"d", "h"}
    assert both.unknown(subjects=[subject("zed"), subject("nobody")], records=[]) == ([1], [])
    with pytest.raises(StoreError, match=r"dataset x: not in params\.yaml"):
        both.size(replace(states[0], name="x"))
