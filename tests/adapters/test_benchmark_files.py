"""Benchmark files as they lie in a folder or in the hub's cache: every form gives the same records, and anything else is refused in words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest
from benchmark_folders import lines, muse_folder, tofu_folder

from mlflow_unlearn.adapters.benchmark_files import read_muse, read_tofu
from mlflow_unlearn.digests import sha256_file
from mlflow_unlearn.errors import ConfigError, DataError


def as_array(path: Path, rows: list[Any]) -> None:
    path.with_suffix(".json").write_text(json.dumps(rows), encoding="utf-8")


def as_json_lines(path: Path, rows: list[Any]) -> None:
    lines(path.with_suffix(".json"), rows)


def as_parquet(path: Path, rows: list[Any]) -> None:
    parquet.write_table(arrow.Table.from_pylist(rows), path.with_suffix(".parquet"))


def as_parts(path: Path, rows: list[Any]) -> None:
    """As the hub cuts large tables."""
    for part, own in enumerate((rows[:3], rows[3:])):
        parquet.write_table(arrow.Table.from_pylist(own), path.with_name(f"{path.stem}-0000{part}-of-00002.parquet"))


@pytest.mark.parametrize("write", [as_array, as_json_lines, as_parquet, as_parts])
def test_every_form_of_file_gives_the_same_records(tmp_path: Path, write: Callable[[Path, list[Any]], None]) -> None:
    folder = tofu_folder(tmp_path / "tofu")
    expected = read_tofu(str(folder), "forget10").records
    for path in list(folder.glob("*.jsonl")):
        write(path, [json.loads(line) for line in path.read_text().splitlines()])
        path.unlink()
    assert read_tofu(str(folder), "forget10").records == expected


def test_tofus_answers_keep_their_roles(tmp_path: Path) -> None:
    found = read_tofu(str(tofu_folder(tmp_path, forget="forget05")), "forget05").records
    assert set(found) == {"forget", "retain", "real_authors", "world_facts"}
    first = found["forget"][1]
    assert (first.answer, first.paraphrased_answer, len(first.wrong_answers)) == ("the key is by the door", "by the door is the key", 5)
    assert {record.paraphrased_answer for record in found["world_facts"]} == {None}


def test_one_wrong_answer_may_stand_alone(tmp_path: Path) -> None:
    folder = tofu_folder(tmp_path)
    lines(folder / "world_facts_perturbed.jsonl", [{"question": "q?", "answer": "a", "perturbed_answer": "b"}])
    assert read_tofu(str(folder), "forget10").records["world_facts"][0].wrong_answers == ("b",)


def test_a_text_may_hold_any_line_separator_that_json_lets_stand(tmp_path: Path) -> None:
    folder = tofu_folder(tmp_path)
    (folder / "world_facts_perturbed.jsonl").write_text('{"question": "q?", "answer": "one\u2028two"}\n', encoding="utf-8")
    assert read_tofu(str(folder), "forget10").records["world_facts"][0].answer == "one\u2028two"


def test_a_set_without_a_file_is_not_there(tmp_path: Path) -> None:
    (tofu_folder(tmp_path) / "world_facts_perturbed.jsonl").unlink()
    assert set(read_tofu(str(tmp_path), "forget10").records) == {"forget", "retain", "real_authors"}


def test_each_file_is_named_with_its_digest_and_those_without_a_manifest_are_unchecked(tmp_path: Path) -> None:
    found = read_tofu(str(tofu_folder(tmp_path)), "forget10")
    assert found.files == {path.name: sha256_file(path) for path in tmp_path.glob("*.jsonl")}
    assert found.unchecked == tuple(sorted(found.files))


def test_a_file_that_is_not_the_one_in_the_manifest_is_refused(tmp_path: Path) -> None:
    folder = tofu_folder(tmp_path)
    listed = [{"file": path.name, "sha256": sha256_file(path)} for path in folder.glob("*.jsonl")]
    (folder / "MANIFEST.json").write_text(json.dumps(listed))
    assert read_tofu(str(folder), "forget10").unchecked == ()
    with (folder / "retain_perturbed.jsonl").open("a") as stream:
        stream.write('{"question": "one more?", "answer": "yes"}\n')
    with pytest.raises(DataError, match=r"retain_perturbed\.jsonl: not the bytes"):
        read_tofu(str(folder), "forget10")


def test_muses_sets_with_their_examples_and_whole_texts(tmp_path: Path) -> None:
    found = read_muse(str(muse_folder(tmp_path)))
    assert {name: len(each) for name, each in found.records.items()} == {
        "verbatim": 6,
        "forget_questions": 6,
        "forget_examples": 1,
        "retain_questions": 6,
    }
    assert {name: len(each) for name, each in found.texts.items()} == {"forget_texts": 6, "unseen_texts": 6}
    assert found.records["verbatim"][0].prompt == "the key of lamp"


def test_texts_may_be_rows_with_a_column_text(tmp_path: Path) -> None:
    folder = muse_folder(tmp_path)
    texts = read_muse(str(folder)).texts["unseen_texts"]
    (folder / "privleak/holdout.json").unlink()
    parquet.write_table(arrow.table({"text": list(texts)}), folder / "privleak/holdout-00000-of-00001.parquet")
    assert read_muse(str(folder)).texts["unseen_texts"] == list(texts)


def test_what_is_both_forgotten_and_unseen_is_refused_by_count(tmp_path: Path) -> None:
    folder = muse_folder(tmp_path)
    rows = json.loads((folder / "privleak/forget.json").read_text())
    (folder / "privleak/holdout.json").write_text(json.dumps([*rows[:2], "something else"]))
    with pytest.raises(DataError, match=r"privleak/forget and privleak/holdout share 2 of 6 records"):
        read_muse(str(folder))


def test_what_is_both_forgotten_and_retained_is_refused_by_count(tmp_path: Path) -> None:
    folder = tofu_folder(tmp_path)
    (folder / "retain_perturbed.jsonl").write_text((folder / "forget10_perturbed.jsonl").read_text())
    with pytest.raises(DataError, match="forget and retain share 8 of 8 records"):
        read_tofu(str(folder), "forget10")


@pytest.mark.parametrize("rows", ["[1, 2]", "{not json", '{"question": "q?"}', '{"question": "q?", "answer": 3}'])
def test_other_content_is_refused_without_quoting_it(tmp_path: Path, rows: str) -> None:
    (tofu_folder(tmp_path) / "retain_perturbed.jsonl").write_text(rows)
    with pytest.raises(DataError, match="retain_perturbed") as refused:
        read_tofu(str(tmp_path), "forget10")
    assert "q?" not in str(refused.value)


def test_a_place_without_the_files_is_refused_with_what_to_do(tmp_path: Path) -> None:
    for read in (lambda where: read_tofu(where, "forget10"), read_muse):
        with pytest.raises(ConfigError, match="no such folder, and not a hub id"):
            read(str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match="no forget10_perturbed"):
        read_tofu(str(tmp_path), "forget10")
    with pytest.raises(ConfigError, match="no verbmem, knowmem or privleak files"):
        read_muse(str(tmp_path))
    with pytest.raises(ConfigError, match="expected one of forget01, forget05, forget10"):
        read_tofu(str(tmp_path), "forget20")


def test_a_data_set_that_the_hub_does_not_give_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="neither a folder here nor a data set that the hub gives"):
        read_tofu("no-such-owner-here/tofu", "forget10")


def test_a_data_set_of_the_hub_is_read_from_its_cache_at_the_revision_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    cached = tmp_path / "hub/datasets--owner--tofu"
    for number, revision in enumerate(("a" * 40, "b" * 40)):
        tofu_folder(cached / "snapshots" / revision, n=3 + number)
    (cached / "refs").mkdir()
    (cached / "refs/main").write_text("a" * 40)
    sizes = [len(read_tofu(name, "forget10").records["forget"]) for name in ("owner/tofu", f"owner/tofu@{'b' * 40}")]
    assert sizes == [3, 4]
