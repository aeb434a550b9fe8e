"""Exact unlearning is `dvc repro`: only the shards that a request touches are trained again, and what comes out never saw the person."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest
from sentinels import require_only_in_data
from small_project import Project, copy_of_this_project, kill_during

pytestmark = pytest.mark.e2e
ROUTE = "pipelines/routes/exact/dvc.yaml"
KEY = bytes(range(32))
"""Who is in which shard follows from the key: with another one a slice may hold too few canaries for any alarm."""


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Four shards of two slices, trained on one dataset revision and registered by `dvc repro`, @champion."""
    project = copy_of_this_project(tmp_path_factory.mktemp("exact") / "project")
    (project.folder / ".unlearn/tag.key").write_bytes(KEY)
    project.edit_params({"unlearn": {"strategy": "exact"}, "evaluate": {"permutations": 2000}, "dataset": {"audit": 160, "tuning": 20}})
    project.must("dvc", "repro", "-q", "pipelines/customers/dvc.yaml:dataset")
    project.commit("dataset")
    project.must("git", "tag", "data-v1")
    project.must("dvc", "repro", "-q")
    project.commit("family")
    project.champion("1")
    return project


def exact(project: Project, name: str) -> dict[str, Any]:
    return json.loads((project.folder / "build/exact" / name).read_bytes())


def digests(project: Project) -> dict[str, str]:
    return exact(project, "model/ensemble.json")["digests"]


def versions(project: Project) -> list[Any]:
    return sorted(project.client().search_model_versions("name = 'customers'"), key=lambda each: int(each.version))


def test_without_a_request_the_family_is_trained_and_registered_with_its_lineage(family: Project) -> None:
    (version,) = versions(family)
    assert version.tags["unlearn.family"] == exact(family, "family.json")["family"]
    assert "unlearn.request" not in version.tags
    assert version.tags["unlearn.dvc.customers"] == exact(family, "cut.json")["datasets"][0]["md5"]
    said = family.must("dvc", "repro")
    assert "these weights already" in said
    assert "train_shard:" not in said


def test_a_request_trains_only_what_it_touches_and_passes_as_exact(family: Project) -> None:
    before = digests(family)
    asked = family.json("mlflow-unlearn", "request", "add", "--subjects", "-", "--basis", "gdpr_17", stdin=family.people()[3])
    said = family.must("dvc", "repro")
    evidence = exact(family, "unlearned.json")["exactness"]
    (touched,) = evidence["touched"]
    trained = [line.split()[-1] for line in said.splitlines() if line.startswith("> mlflow-unlearn stage train_shard")]
    assert trained == [str(touched)]
    assert {name for name, digest in digests(family).items() if before[name] != digest} == {f"{touched:03d}"}
    verdicts = {each["effect"]: each for each in family.document("verdict")["verdicts"]}
    assert {effect: each["outcome"] for effect, each in verdicts.items()} == {"removal": "PASS", "suppression": "PASS"}, verdicts
    assert versions(family)[-1].tags["unlearn.claim"] == "exact"
    assert versions(family)[-1].tags["unlearn.request"] == asked["request_id"]


def test_what_saw_the_person_is_listed_for_purging(family: Project) -> None:
    listed = exact(family, "unlearned.json")["exactness"]["purge"]
    (touched,) = exact(family, "unlearned.json")["exactness"]["touched"]
    assert f"build/exact/shards/{touched}/weights.safetensors" in listed.values()
    cached = [family.folder / ".dvc/cache/files/md5" / md5[:2] / md5[2:] for md5 in listed]
    assert all(path.is_file() for path in cached)  # DVC's copies are found by these names


def test_only_canaries_of_the_touched_slice_were_used(family: Project) -> None:
    split, evidence = family.document("split"), exact(family, "unlearned.json")["exactness"]
    shape, *pieces = split["canaries"]["pieces"].split()
    assert shape == "4x2x1"
    assert [int(piece.split(".")[0]) for piece in pieces] == evidence["touched"]
    assert 0 < split["rows"]["audit_included"] < 40
    assert split["rows"]["tuning_included"] == 0


def test_a_second_run_changes_nothing(family: Project) -> None:
    before = (family.folder / "build/registered.json").read_bytes()
    said = family.must("dvc", "repro")
    assert "stage train_shard" not in said
    assert "stage replay" not in said
    assert (family.folder / "build/registered.json").read_bytes() == before


def test_no_name_or_id_of_a_person_is_anywhere_but_in_the_data(family: Project) -> None:
    require_only_in_data(family, family.people()[3], ("data-v1",))


def test_closing_changes_no_weights(family: Project) -> None:
    (request,) = family.json("mlflow-unlearn", "request", "list")["requests"]
    assert family.json("mlflow-unlearn", "request", "close", request["request_id"])["closed"]
    family.commit("closed")
    said = family.must("dvc", "repro")
    assert "stage train_shard" not in said
    assert "customers/2 has these weights already" in said


def test_a_family_that_never_saw_the_person_has_the_same_digest_even_after_a_kill(family: Project) -> None:
    before = digests(family)
    for folder in (family.folder / "build/exact/shards", family.folder / "build/raw"):
        shutil.rmtree(folder)
    family.must("dvc", "repro", "-q", f"{ROUTE}:shards")
    kill_during(family, f"{ROUTE}:train_shard@0", once_there="build/exact/shards/0/slices/0/state.pt")
    family.must("dvc", "repro", "-q", f"{ROUTE}:ensemble")
    assert digests(family) == before
    logs = [exact(family, f"shards/{shard}/training.json") for shard in range(4)]
    assert any(log["resumed_after"] for log in logs)  # what was killed went on


def test_a_damaged_slice_checkpoint_is_trained_again_and_said(family: Project) -> None:
    before, folder = digests(family), family.folder / "build/exact/shards/1"
    for state in folder.glob("slices/*/state.pt"):
        content = state.read_bytes()
        state.unlink()
        state.write_bytes(content[:-200])
    (folder / "weights.safetensors").unlink()
    said = family.must("mlflow-unlearn", "stage", "train_shard", "1")
    assert "missing, damaged or of another environment" in said
    assert exact(family, "shards/1/training.json")["tensor_digest"] == before["001"]


def test_another_number_of_shards_is_another_family_and_said(family: Project) -> None:
    family.edit_params({"exact": {"shards": [0, 1, 2]}})
    said = family.must("dvc", "repro", f"{ROUTE}:shards")
    assert "a new family" in said
    assert not (family.folder / "build/exact/shards/3").exists()


def test_adapters_are_registered_without_their_base_and_repeat(family: Project) -> None:
    family.edit_params({"exact": {"shards": [0, 1], "lora": {"rank": 2, "alpha": 4}, "optimiser": {"epochs": 2}}})
    said = family.must("dvc", "repro")
    assert "registered as trained" in said
    version = versions(family)[-1]
    assert {each.name for each in family.client().search_registered_models()} == {"customers", "customers-base"}
    shards = [each for each in (family.folder / "mlartifacts").rglob("data/ensemble/shard-*.safetensors") if each.stat().st_size < 20_000]
    assert len(shards) == 2  # adapters alone: the base has 100 kB
    replayed = family.json("mlflow-unlearn", "replay", f"models:/customers/{version.version}")
    assert replayed["equal"]
    assert [each["shard"] for each in replayed["shards"]] == [0, 1]


def test_a_second_request_starts_from_the_exact_version_and_touches_nothing_else(family: Project) -> None:
    family.edit_params({"exact": {"shards": [0, 1, 2, 3], "lora": None, "optimiser": {"epochs": 3}}})
    family.must("dvc", "repro", "-q")
    family.champion("2")
    before = digests(family)
    family.must("mlflow-unlearn", "request", "add", "--subjects", "-", "--basis", "ccpa", stdin=family.people()[8])
    family.must("dvc", "repro", "-q")
    evidence = exact(family, "unlearned.json")["exactness"]
    assert evidence["before"] == before
    changed = {int(name) for name, digest in digests(family).items() if before[name] != digest}
    assert 0 < len(changed) < 4
    assert changed <= set(evidence["touched"])
    outcomes = {each["effect"]: each["outcome"] for each in family.document("verdict")["verdicts"]}
    assert outcomes["removal"] == "PASS", family.document("verdict")
