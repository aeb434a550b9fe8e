"""Evidence of a claim is of this split, these rows, these logs and this model, or it is refused."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from ensemble_files import small_base
from shard_workshop import SHARDS, SLICES, Workshop, about

from mlflow_unlearn.adapters.tables import write_set
from mlflow_unlearn.digests import write_document
from mlflow_unlearn.documents import encode
from mlflow_unlearn.errors import TamperedError
from mlflow_unlearn.exactness import Replay
from mlflow_unlearn.records import Split
from mlflow_unlearn.sisa import log_digest, shard_name
from mlflow_unlearn.stages.claiming import _kept_from_parent, require_bound
from mlflow_unlearn.stages.cutting import read_cut
from mlflow_unlearn.stages.ensembling import logs_of
from mlflow_unlearn.stages.families import shards_folder
from mlflow_unlearn.stages.replaying import known_replay, replays_folder
from mlflow_unlearn.stages.workbench import Workbench, body, stage_schema

EVERYBODY = [record for shard in range(SHARDS) for number in range(SLICES) for record in about(shard, number)]
GONE = about(1, 0)[0]


@pytest.fixture(scope="module")
def left(mlflow_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """A family that one person has left."""
    home = tmp_path_factory.mktemp("claim")
    small_base(home / "base", num_hidden_layers=1)
    made = Workshop.opened(home / "project", home / "base", mlflow_template)
    made.run(EVERYBODY)
    made.run([record for record in EVERYBODY if record != GONE], forget=[GONE])
    return made


@pytest.fixture
def family(left: Workshop, tmp_path: Path) -> Workshop:
    return left.copied(tmp_path / "project")


def require(family: Workshop) -> None:
    bench = family.bench()
    known, cut = read_cut(bench)
    require_bound(bench, known, cut, logs_of(bench, known))


def test_evidence_that_fits_together_is_taken(family: Workshop) -> None:
    require(family)


def test_rows_that_the_split_does_not_retain_are_refused(family: Workshop) -> None:
    bench = family.bench()
    write_set(shards_folder(bench), "1", [GONE])
    with pytest.raises(TamperedError, match="rows, log and weights are not of one training"):
        require(family)


def test_a_log_edited_to_name_other_records_is_refused(family: Workshop) -> None:
    log = family.log(1)
    family.edit_log(1, slices=[encode(replace(each, tags=each.tags[1:])) for each in log.slices])
    with pytest.raises(TamperedError, match="shards 1: rows, log and weights"):
        require(family)


def test_a_model_that_is_not_of_these_shards_is_refused(family: Workshop, left: Workshop) -> None:
    bench = family.bench()
    other = left.copied(family.folder.with_name("other"))
    other.run(EVERYBODY)
    shutil.rmtree(bench.route / "model")
    shutil.copytree(other.bench().route / "model", bench.route / "model")
    with pytest.raises(TamperedError, match="not put together from these shards"):
        require(family)


def test_a_cut_of_another_split_is_refused(family: Workshop) -> None:
    bench = family.bench()
    bench.write("split", body(replace(bench.value(Split, "split"), digest="f" * 64)))
    with pytest.raises(TamperedError, match="cut from another split"):
        require(family)


def test_a_replay_counts_for_the_log_it_repeated_and_for_no_other(family: Workshop) -> None:
    bench, log = family.bench(), family.log(1)
    done = Replay(shard=1, logged=log.tensor_digest, found=log.tensor_digest, log=log_digest(log))
    write_document(replays_folder(bench) / f"1-{log.tensor_digest[:16]}.json", stage_schema("replay"), encode(done))
    assert known_replay(bench, log) == done
    edited = replace(log, slices=tuple(replace(each, tags=each.tags[1:]) for each in log.slices))
    assert known_replay(bench, edited) is None


def test_the_parent_s_own_weights_hold_what_its_log_names(family: Workshop) -> None:
    log, split = family.log(1), family.bench().value(Split, "split")
    gone = {log.slices[0].tags[0]}
    before = {shard_name(1): log.tensor_digest}
    registered: Any = SimpleNamespace(document=lambda model, name: {"schema": "any", **encode(log)} if name == "shards/001" else None)
    bench = cast(Workbench, SimpleNamespace(registry=registered))
    assert _kept_from_parent(bench, split, log, before, gone)
    assert not _kept_from_parent(bench, split, log, {shard_name(1): "other"}, gone)
    assert not _kept_from_parent(bench, split, log, before, {"another"})
