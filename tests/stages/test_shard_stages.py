"""The exact route's stages where shards fall empty, files are changed behind them, runs are killed and settings are other ones."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
from ensemble_files import small_base
from safetensors.torch import load_file, save_file
from shard_workshop import SHARDS, SLICES, Workshop, about

from mlflow_unlearn.adapters import ensembles
from mlflow_unlearn.errors import ConfigError, DataError, StoreError, UnlearnError
from mlflow_unlearn.protocols import Record
from mlflow_unlearn.sisa import log_digest
from mlflow_unlearn.stages.claiming import replay_here
from mlflow_unlearn.stages.cutting import cut_shards
from mlflow_unlearn.stages.ensembling import assemble
from mlflow_unlearn.stages.replaying import known_replay
from mlflow_unlearn.stages.shard_training import train_shard
from mlflow_unlearn.stages.shard_workers import side_by_side

PLACES = list(product(range(SHARDS), range(SLICES)))
EVERYBODY = [record for place in PLACES for record in about(*place)]
FIRST = (1, 0)
LAST = (1, SLICES - 1)


def without(*gone: Record) -> list[Record]:
    return [record for record in EVERYBODY if record not in gone]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("bases")
    small_base(home / "one", num_hidden_layers=1)
    small_base(home / "other", seed=1, num_hidden_layers=1)
    return home


@pytest.fixture(scope="module")
def trained(bases: Path, mlflow_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    made = Workshop.opened(tmp_path_factory.mktemp("family") / "project", bases / "one", mlflow_template)
    made.run(EVERYBODY)
    return made


@pytest.fixture
def family(trained: Workshop, tmp_path: Path) -> Workshop:
    """Three shards of two slices with two people each."""
    return trained.copied(tmp_path / "project")


@pytest.fixture
def lonely(family: Workshop) -> Workshop:
    """All people of the second shard have left."""
    family.run(without(*about(*FIRST), *about(*LAST)))
    return family


def test_a_shard_that_all_people_left_has_no_weights_and_no_checkpoints(lonely: Workshop) -> None:
    assert lonely.log(1).empty
    assert not lonely.present(1)
    assert train_shard(lonely.bench(), 1) == "shard 1 is empty: its model is the base, and it never answers"


def test_an_empty_shard_is_in_the_manifest_and_moves_no_other(lonely: Workshop, trained: Workshop) -> None:
    before = dict(trained.manifest().digests)
    assert lonely.manifest().empty == (1,)
    assert dict(lonely.manifest().digests) == {name: digest for name, digest in before.items() if name != "001"}


def test_nobody_is_answered_by_an_empty_shard(lonely: Workshop) -> None:
    ensemble, tokenizer, _ = ensembles.load(lonely.bench().route / "model", "cpu")
    owners = [ensemble.owner_shard(record.subject) for record in EVERYBODY]
    assert set(owners) == {0, 2, None}
    prompts = [tokenizer(record.prompt)["input_ids"] for record in EVERYBODY]
    assert set(ensemble.answer_shards(prompts, owners, end=tokenizer.eos_token_id, max_new_tokens=3, batch_tokens=999)) <= {0, 2}


def test_all_that_an_emptied_shard_had_is_listed_for_purging(lonely: Workshop, trained: Workshop) -> None:
    assert lonely.listed(1) == trained.present(1)
    assert not lonely.listed(0)


def test_an_empty_shard_trains_again_to_the_same_bits_when_its_people_return(lonely: Workshop, trained: Workshop) -> None:
    assert lonely.run(EVERYBODY) == trained.manifest()


def test_a_slice_that_all_people_left_keeps_no_checkpoint_even_where_the_log_cannot_be_read(family: Workshop) -> None:
    (family.shard(1) / "training.json").write_text("{")
    family.run(without(*about(*FIRST)))
    assert sorted(path.name for path in (family.shard(1) / "slices").iterdir()) == ["1"]


def test_nothing_is_trained_and_nothing_written_where_every_record_left(family: Workshop) -> None:
    before = (family.bench().path("cut")).read_bytes()
    family.split([], forget=EVERYBODY)
    with pytest.raises(DataError, match=r"shards: no record is left to train on; expected at least one\. Look at data\.path"):
        cut_shards(family.bench())
    assert (family.bench().path("cut")).read_bytes() == before


@pytest.mark.parametrize(("place", "kept"), [(FIRST, 0), (LAST, 1)])
def test_a_text_that_changed_under_its_id_trains_its_slice_again(family: Workshop, trained: Workshop, place: tuple[int, int], kept: int) -> None:
    record = about(*place)[0]
    after = family.run([*without(record), replace(record, answer="in the hall")])
    assert family.log(1).resumed_after == kept
    assert {name for name, digest in after.digests.items() if trained.manifest().digests[name] != digest} == {"001"}


def test_a_record_that_joins_the_last_slice_leaves_the_checkpoint_before_in_use(family: Workshop) -> None:
    state = family.shard(1) / "slices/0/state.pt"
    before = state.read_bytes()
    joining = replace(about(*LAST)[0], tag="0" * 32, prompt="the key of ana")
    family.run([*EVERYBODY, joining])
    assert (state.read_bytes(), family.log(1).resumed_after) == (before, 1)
    assert "0" * 32 in family.log(1).slices[1].tags


def test_what_a_joining_record_replaced_is_purged_once_somebody_of_that_shard_leaves(family: Workshop, trained: Workshop) -> None:
    joining, leaving = replace(about(*FIRST)[0], tag="0" * 32), about(*LAST)[0]
    family.run([*EVERYBODY, joining])
    assert not family.purged()
    family.run([*without(leaving), joining], forget=[leaving])
    assert trained.present(1) < family.purged()


def changed_weights(folder: Path) -> None:
    tensors = load_file(folder / "weights.safetensors")
    name = next(iter(tensors))
    (folder / "weights.safetensors").unlink()
    save_file(tensors | {name: tensors[name] + 1}, folder / "weights.safetensors")


def cut_short(folder: Path) -> None:
    content = (folder / "weights.safetensors").read_bytes()
    (folder / "weights.safetensors").unlink()
    (folder / "weights.safetensors").write_bytes(content[:-100])


def removed(folder: Path) -> None:
    (folder / "weights.safetensors").unlink()


@pytest.mark.parametrize("damage", [changed_weights, cut_short, removed])
def test_weights_that_are_not_what_their_log_says_are_made_again(family: Workshop, trained: Workshop, damage: object) -> None:
    damage(family.shard(1))
    assert "trained from slice 2 of 2 on" in train_shard(family.bench(), 1)  # from the last checkpoint, so that nothing is trained
    assert family.present(1) == trained.present(1)


@pytest.mark.parametrize("key", ["tensor_digest", "settings", "family", "base", "shard", "slices"])
def test_a_log_that_somebody_edited_is_written_again(family: Workshop, trained: Workshop, key: str) -> None:
    log = json.loads((family.shard(1) / "training.json").read_text())
    fewer = [log["slices"][0] | {"tags": log["slices"][0]["tags"][1:]}, log["slices"][1]]
    edits = {"settings": {}, "shard": 2, "slices": fewer}
    family.edit_log(1, **{key: edits.get(key, "0" * 64)})
    train_shard(family.bench(), 1)
    assert family.log(1).tensor_digest == trained.log(1).tensor_digest
    assert log_digest(family.log(1)) == log_digest(trained.log(1))


def test_a_training_that_broke_off_goes_on_and_lists_nothing_of_its_own(family: Workshop, trained: Workshop) -> None:
    after, last = without(about(*FIRST)[0]), family.shard(1) / "slices/1"
    shutil.rmtree(last)
    last.touch()  # so that the state after the last slice cannot be kept
    with pytest.raises(StoreError, match="the state of the run could not be kept"):
        family.run(after)
    between = family.present(1)
    last.unlink()
    digests = family.run(after).digests
    assert (family.log(1).resumed_after, digests["000"]) == (1, trained.manifest().digests["000"])
    assert between < family.present(1)
    assert family.listed(1) < trained.present(1)
    assert not family.listed(1) & family.present(1)


def test_two_departures_are_both_listed(family: Workshop, trained: Workshop) -> None:
    family.run(without(about(*LAST)[0]))
    between = family.present(1)
    family.run(without(about(*LAST)[0], about(*FIRST)[0]))
    assert family.listed(1) == trained.present(1) | between
    assert not family.listed(1) & family.present(1)


def test_files_in_use_again_since_somebody_returned_are_not_purged(family: Workshop) -> None:
    one, other = about(*LAST)[0], about(*FIRST)[0]
    family.run(without(one), forget=[one])
    assert family.purged() == family.listed(1)
    family.run(EVERYBODY)
    assert family.listed(1) & family.present(1)  # the same bits as before
    family.run(without(other), forget=[other])
    family.run(EVERYBODY, forget=[other])  # as if it had been left out in vain
    assert family.purged() == family.listed(1) - family.present(1)


def test_a_family_that_shrinks_lists_what_it_leaves_and_takes_it_off_when_it_grows_back(family: Workshop, trained: Workshop) -> None:
    family.edit(exact={"shards": [0, 1]})
    family.run(EVERYBODY)
    assert trained.present(2) <= family.purged()
    family.edit(exact={"shards": [0, 1, 2]})
    assert family.run(EVERYBODY) == trained.manifest()
    assert not family.purged() & family.present(2)


@pytest.mark.parametrize(
    "change",
    [
        {"exact": {"slices": 1}},
        {"exact": {"seed": 1}},
        {"data": {"template": "Q: {prompt} "}},
        {"exact": {"optimiser": {"epochs": 4, "learning_rate": 1e-2}}},
    ],
)
def test_another_setting_is_another_family_of_which_every_shard_is_trained_anew(family: Workshop, change: dict[str, dict[str, object]]) -> None:
    family.edit(**change)
    assert "a new family" in cut_shards(family.bench())
    with pytest.raises(ConfigError, match=r"shards 0, 1, 2 are not trained for family .*; run `dvc repro`"):
        assemble(family.bench())
    family.train()
    assert {family.log(shard).resumed_after for shard in range(SHARDS)} == {0}


@pytest.mark.parametrize("part", ["model.safetensors", "tokenizer.json"])
def test_another_base_is_another_family_and_refused_until_the_shards_are_cut_again(family: Workshop, bases: Path, part: str) -> None:
    shutil.copy(bases / "other/model.safetensors", family.folder / "base/model.safetensors")
    if part == "tokenizer.json":
        shutil.copy(bases / "one/model.safetensors", family.folder / "base/model.safetensors")
        content = json.loads((family.folder / "base/tokenizer.json").read_text())
        (family.folder / "base/tokenizer.json").write_text(json.dumps(content))  # the same tokens in other bytes
    removed(family.shard(1))
    with pytest.raises(ConfigError, match=r"base: not the base that family .* was cut for; run `dvc repro`"):
        train_shard(family.bench(), 1)
    assert "a new family" in cut_shards(family.bench())
    family.train()
    assert {family.log(shard).resumed_after for shard in range(SHARDS)} == {0}


def test_the_same_base_in_another_folder_is_the_same_family(family: Workshop) -> None:
    (family.folder / "base").rename(family.folder / "elsewhere")
    family.edit(exact={"base": "elsewhere"})
    assert "a new family" not in cut_shards(family.bench())
    assert all("ahead of its turn" in said for said in family.train())


def test_two_processes_train_and_replay_to_the_same_digests(family: Workshop, trained: Workshop) -> None:
    shutil.rmtree(family.bench().route / "shards")
    family.edit(exact={"processes": 2})
    first, *others = family.train()
    assert "ahead of its turn" not in first
    assert all("ahead of its turn" in said for said in others)
    assemble(family.bench())
    assert family.manifest() == trained.manifest()
    side_by_side(family.bench(), "replay", dict.fromkeys(range(SHARDS), 1), replay_here)
    found = [known_replay(family.bench(), family.log(shard)) for shard in range(SHARDS)]
    assert all(each is not None and each.equal and not each.differences for each in found)


def test_an_error_in_another_process_is_repeated_in_words_and_quotes_nobody(family: Workshop) -> None:
    shutil.rmtree(family.bench().route / "shards")
    family.edit(exact={"processes": 2})
    long = about(1, 0)[0]
    family.split([*without(long), replace(long, answer="sentinel " * 40)])
    cut_shards(family.bench())
    with pytest.raises(UnlearnError, match=r"1 of 2 processes failed to train shards\nshards: the longest record has \d+ tokens") as told:
        train_shard(family.bench(), 0)
    assert "sentinel" not in str(told.value)


def test_rows_that_are_missing_are_said(family: Workshop) -> None:
    (family.folder / "build/raw/shards/1.parquet").unlink()
    with pytest.raises(DataError, match=r"1\.parquet: not there; run `dvc repro`"):
        train_shard(family.bench(), 1)


def test_a_shard_that_the_family_does_not_have_is_refused(family: Workshop) -> None:
    for shard in (-1, SHARDS):
        with pytest.raises(ConfigError, match=rf"no shard {shard}; exact\.shards of params\.yaml has 3"):
            train_shard(family.bench(), shard)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"exact": {"shards": [0, 2]}}, r"shards: expected 0, 1, 2, \.\.\. without gaps, found \[0, 2\]"),
        ({"exact": {"shards": []}}, r"shards: expected 0, 1, 2, \.\.\. without gaps, found \[\]"),
        ({"exact": {"slices": 0}}, "slices, processes and canary_parts must be at least 1"),
        ({"exact": None}, "a section `exact` is needed: shards, base, optimiser"),
        ({"exact": {"base": "../nowhere"}}, r"\.\./nowhere: no such folder, and not a hub id; correct exact\.base"),
        ({"exact": {"base": "nobody/nothing"}}, "nobody/nothing: neither a folder here nor a model that the hub gives"),
    ],
)
def test_a_family_that_cannot_be_is_refused_in_words(family: Workshop, change: dict[str, dict[str, object]], words: str) -> None:
    family.edit(**change)
    with pytest.raises(ConfigError, match=words):
        cut_shards(family.bench())


def test_a_template_without_a_place_for_the_prompt_is_refused_before_any_training(family: Workshop) -> None:
    family.edit(data={"template": "no place"})
    cut_shards(family.bench())
    with pytest.raises(ConfigError, match=r"expected `\{prompt\}` somewhere in the text"):
        family.train()
