"""A person's word about an old version: it may add to what was recorded, never take away, and is known as such for ever."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from registered_models import MD5, OTHER, Maker, dataset, registry_at
from signed_versions import files, version

from mlflow_unlearn.adapters.adoption import Adoption, Stated, adoption, unrecorded
from mlflow_unlearn.adapters.statements import Statements
from mlflow_unlearn.adapters.training_data import TrainingData
from mlflow_unlearn.errors import LineageError
from mlflow_unlearn.lineage import ModelVersion, Relation
from mlflow_unlearn.verifier import subject_of

TRAIN, CALLS = ("train", TrainingData(path="data/train", md5=MD5)), ("calls", TrainingData(path="data/calls", md5=OTHER))


@pytest.fixture
def statements(mlflow_store: str, tmp_path: Path) -> Statements:
    return Statements(registry_at(tmp_path, mlflow_store))


@pytest.fixture
def make(statements: Statements) -> Maker:
    client = statements.registry.client
    return Maker(client, client.get_experiment_by_name("customers").experiment_id)


def adopt(statements: Statements, model: ModelVersion, stated: Stated) -> Adoption:
    found = adoption(statements, model, stated)
    for key, value in found.tags.items():
        statements.tag(model, key, value)
    return found


def test_the_registry_then_says_what_was_stated(statements: Statements, make: Maker, tmp_path: Path) -> None:
    base, old = make.version("base", tags={"unlearn.dvc.calls": OTHER}), version(make.client, "old", files(tmp_path / "f"))
    made = adopt(statements, old, Stated(datasets=[TRAIN], made_from=[base], relation=Relation.ADAPTER))
    lineage = statements.registry.closure(old)[0]
    assert lineage == made.lineage
    assert (lineage.datasets, lineage.problem, lineage.adopted) == ({"train": MD5}, None, True)
    assert [(each.parent, each.relation) for each in lineage.ancestors] == [(base, Relation.ADAPTER)]
    assert (made.changes, made.before) == (True, False)


def test_repeating_it_changes_nothing_and_saying_something_else_is_noticed(statements: Statements, make: Maker, tmp_path: Path) -> None:
    old = version(make.client, "old", files(tmp_path / "f"))
    adopt(statements, old, Stated(datasets=[TRAIN]))
    again, other = (adoption(statements, old, Stated(datasets=[each])) for each in (TRAIN, CALLS))
    assert ((again.changes, again.before), (other.changes, other.before)) == ((False, False), (True, True))
    adopt(statements, old, Stated(datasets=[CALLS], nothing_else=True))
    assert statements.tags(old) == {
        "unlearn.dvc.calls": OTHER,
        "unlearn.base_model": "none",
        "unlearn.lineage.adopted": "unlearn.base_model,unlearn.dvc.calls",
    }


def test_recorded_data_cannot_be_left_out(statements: Statements, make: Maker) -> None:
    old, _ = make.trained("old", dataset("train", MD5))
    with pytest.raises(LineageError, match="old/1: its training recorded train aaaaaaaa, which the statement leaves out"):
        adoption(statements, old, Stated(datasets=[CALLS]))
    found = adopt(statements, old, Stated(datasets=[TRAIN, CALLS]))
    assert set(found.lineage.datasets.values()) == {MD5, OTHER}


def test_what_is_recorded_anyway_is_attested_and_not_adopted(statements: Statements, make: Maker) -> None:
    old, _ = make.trained("old", dataset("train", MD5))
    with pytest.raises(LineageError, match="all of this is recorded by its training; sign that with `mlflow-unlearn attest models:/old/1`"):
        adoption(statements, old, Stated(datasets=[TRAIN]))


def test_a_recorded_parent_cannot_be_denied(statements: Statements, make: Maker) -> None:
    _, logged = make.trained("base", dataset("calls", OTHER))
    old, _ = make.trained("old", read=(logged,))
    other = make.version("other", tags={"unlearn.dvc.calls": OTHER})
    with pytest.raises(LineageError, match=r"--nothing-else, but it was made from base/1 \(model input of its run\)"):
        adoption(statements, old, Stated(datasets=[TRAIN], nothing_else=True))
    with pytest.raises(LineageError, match="recorded as made from base/1, which --made-from leaves out"):
        adoption(statements, old, Stated(datasets=[TRAIN], made_from=[other]))
    assert adoption(statements, old, Stated(datasets=[TRAIN])).lineage.parent == ModelVersion(name="base", version="1")


def test_a_tag_that_somebody_set_is_not_overwritten(statements: Statements, make: Maker) -> None:
    base = make.version("base", tags={"unlearn.dvc.calls": OTHER})
    old = make.version("old", tags={"unlearn.base_model": "hf://org/x"})
    with pytest.raises(LineageError, match=r"its tag unlearn.base_model says hf://org/x, the statement something else"):
        adoption(statements, old, Stated(datasets=[TRAIN], made_from=[base]))


@pytest.mark.parametrize("answered", [True, False])
def test_an_origin_that_nobody_recorded_has_to_be_stated(statements: Statements, make: Maker, answered: bool) -> None:
    run = make.run(dataset("train", MD5), tags={"unlearn.base": "e" * 64})  # local weights that no version has
    old = make.version("old", run)
    if answered:
        assert adopt(statements, old, Stated(datasets=[TRAIN], nothing_else=True)).lineage.problem is None
        assert statements.registry.closure(old)[0].problem is None
    else:
        with pytest.raises(LineageError, match=r"still unknown: it was trained from a local model .*: --made-from VERSION or --nothing-else"):
            adoption(statements, old, Stated(datasets=[TRAIN]))


def test_data_outside_dvc_are_not_talked_away(statements: Statements, make: Maker) -> None:
    old, _ = make.trained("old", dataset("web", "2", "http", '{"url": "http://x"}'))
    with pytest.raises(LineageError, match="still unknown: it also learned from 1 datasets that are not under DVC"):
        adoption(statements, old, Stated(datasets=[TRAIN], nothing_else=True))


def test_without_any_data_nothing_is_stated(statements: Statements, make: Maker, tmp_path: Path) -> None:
    old = version(make.client, "old", files(tmp_path / "f"))
    with pytest.raises(LineageError, match="still unknown: no DVC dataset was logged with it"):
        adoption(statements, old, Stated(nothing_else=True))


def why_unrecorded(statements: Statements, model: ModelVersion) -> str | None:
    return unrecorded(statements, statements.registry.closure(model)[0])


def test_tags_of_a_version_may_add_to_what_its_run_recorded(statements: Statements, make: Maker) -> None:
    base = make.version("base", tags={"unlearn.dvc.calls": OTHER})
    tags = {"unlearn.dvc.more": "c" * 32, "unlearn.base_model": f"models:/{base}"}
    assert why_unrecorded(statements, make.version("tuned", make.run(dataset("train", MD5)), tags=tags)) is None


@pytest.mark.parametrize(
    ("run", "tags", "words"),
    [
        ({}, {"unlearn.dvc.train": MD5}, "without tags of the version, .* no DVC dataset was logged with it"),
        ({}, {"unlearn.base_model": "models:/base/1", "unlearn.relation": "merged"}, "without tags of the version, .* no DVC dataset was logged"),
        ({"unlearn.base": "e" * 64}, {"unlearn.base_model": "none", "unlearn.dvc.train": MD5}, "it was trained from a local model"),
        ({"unlearn.base": "e" * 64}, {"unlearn.parent": "base/1"}, "it was trained from a local model"),
    ],
)
def test_tags_of_a_version_never_stand_in_for_its_run(
    statements: Statements, make: Maker, run: dict[str, str], tags: dict[str, str], words: str
) -> None:
    make.version("base", tags={"unlearn.dvc.calls": OTHER})
    inputs = [dataset("train", MD5)] if run else []
    found = why_unrecorded(statements, make.version("tuned", make.run(*inputs, tags=run), tags=tags))
    assert found is not None
    assert re.search(words, found)


def test_a_tag_that_hides_the_start_of_a_run_is_told(statements: Statements, make: Maker, tmp_path: Path) -> None:
    version(make.client, "affected", files(tmp_path / "f"))
    make.version("base", tags={"unlearn.dvc.calls": OTHER})
    digest = subject_of(tmp_path / "f")[0]["digest"]["tensors"]
    tuned = make.version("tuned", make.run(dataset("train", MD5), tags={"unlearn.base": digest}), tags={"unlearn.parent": "base/1"})
    assert statements.registry.closure(tuned)[0].parent == ModelVersion(name="base", version="1")
    assert why_unrecorded(statements, tuned) == "tags of the version hide that its run started from affected/1"


def test_an_earlier_statement_that_cannot_be_read_may_be_a_persons(statements: Statements, make: Maker, tmp_path: Path) -> None:
    model = version(make.client, "m", files(tmp_path / "f"), make.run(dataset("train", MD5)))
    assert why_unrecorded(statements, model) is None
    (tmp_path / "lineage.json").write_bytes(b"\xff no envelope")
    make.client.log_artifact(statements.registration(model).run_id, str(tmp_path / "lineage.json"), "unlearn")
    assert str(why_unrecorded(statements, model)).startswith("what is kept as an earlier statement of it cannot be read")
    assert adoption(statements, model, Stated(datasets=[TRAIN])).changes
