"""The files of TOFU and MUSE, from a folder or from the Hugging Face hub: JSON, JSON lines or Parquet, rows as records.

TOFU: `forget10_perturbed`, `retain_perturbed`, `real_authors_perturbed`, `world_facts_perturbed`, each with question, answer and perturbed_answer.
MUSE: folders `verbmem` (prompt, gt), `knowmem` (question, answer; `_icl` files have the examples put before each question) and `privleak` (text).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as arrow
import pyarrow.parquet as parquet

from ..digests import sha256_file
from ..errors import ConfigError, DataError
from ..protocols import Record

TOFU_FORGET = ("forget01", "forget05", "forget10")
_TOFU = {"retain": "retain_perturbed", "real_authors": "real_authors_perturbed", "world_facts": "world_facts_perturbed"}
_MUSE_RECORDS = {
    "verbatim": ("verbmem/forget", "prompt", "gt"),
    "forget_questions": ("knowmem/forget_qa", "question", "answer"),
    "forget_examples": ("knowmem/forget_qa_icl", "question", "answer"),
    "retain_questions": ("knowmem/retain_qa", "question", "answer"),
    "retain_examples": ("knowmem/retain_qa_icl", "question", "answer"),
}
_MUSE_TEXTS = {"forget_texts": "privleak/forget", "unseen_texts": "privleak/holdout"}
_SUFFIXES = (".jsonl", ".json", ".parquet")
MANIFEST = "MANIFEST.json"

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class BenchmarkFiles:
    """What a benchmark asks."""

    records: Mapping[str, Sequence[Record]]
    """Set -> questions or beginnings of texts; a set without a file is not there."""
    texts: Mapping[str, Sequence[str]]
    """Set -> whole texts."""
    files: Mapping[str, str]
    """File -> sha256."""
    unchecked: tuple[str, ...]
    """Files that no manifest beside them lists."""


def read_tofu(source: str, forget: str) -> BenchmarkFiles:
    """TOFU's four sets.

    Args:
        source: folder, or hub id (`locuslab/TOFU`, with `@revision` if wanted).
        forget: which authors were to be forgotten: one of `TOFU_FORGET`.

    Raises:
        ConfigError: nothing there, or no file for the forget set.
        DataError: a file cannot be read, lacks a column, or is not the one that MANIFEST.json lists.
    """
    if forget not in TOFU_FORGET:
        raise ConfigError(f"--forget {forget}: expected one of {', '.join(TOFU_FORGET)}")
    stems = {"forget": f"{forget}_perturbed", **_TOFU}
    files = _Files.of(source, [f"{stem}*" for stem in stems.values()])
    records = {name: [_tofu_record(i, row) for i, row in enumerate(files.rows(stem, ("question", "answer")))] for name, stem in stems.items()}
    if not records["forget"]:
        raise ConfigError(f"{source}: no {stems['forget']} ({' or '.join(_SUFFIXES)}); it holds the questions that everything turns on")
    _refuse_shared("forget", records["forget"], "retain", records["retain"])
    return files.made(records, {})


def read_muse(source: str) -> BenchmarkFiles:
    """MUSE's sets of one corpus (News or Books).

    Args:
        source: folder, or hub id (`muse-bench/MUSE-News`, `muse-bench/MUSE-Books`).

    Raises:
        ConfigError: nothing there, or none of its files.
        DataError: a file cannot be read, or lacks a column.
    """
    files = _Files.of(source, ["verbmem/*", "knowmem/*", "privleak/*"])
    records = {
        name: [_record(i, row[prompt], row[answer]) for i, row in enumerate(files.rows(stem, (prompt, answer)))]
        for name, (stem, prompt, answer) in _MUSE_RECORDS.items()
    }
    texts = {name: [str(row["text"]) for row in files.rows(stem, ("text",))] for name, stem in _MUSE_TEXTS.items()}
    if not any(records.values()) and not any(texts.values()):
        raise ConfigError(f"{source}: no verbmem, knowmem or privleak files; point --data at the folder of one corpus (news or books)")
    _refuse_shared("privleak/forget", texts["forget_texts"], "privleak/holdout", texts["unseen_texts"])
    return files.made(records, texts)


def unchecked(folder: Path, names: Sequence[str]) -> tuple[str, ...]:
    """Refuse changed files; the names of those that MANIFEST.json does not list (all of them where there is no manifest: it is optional).

    Raises:
        DataError: a file has other bytes than the manifest says, or the manifest is no JSON.
    """
    manifest = folder / MANIFEST
    listed = {entry["file"]: entry["sha256"] for entry in _manifest(manifest)} if manifest.exists() else {}
    changed = [name for name in names if name in listed and listed[name] != sha256_file(folder / name)]
    if changed:
        raise DataError(f"{', '.join(changed)}: not the bytes that MANIFEST.json beside them lists; fetch the data set again")
    return tuple(name for name in names if name not in listed)


@dataclass(frozen=True, kw_only=True)
class _Files:
    source: str
    folder: Path
    read: dict[str, str]
    """File -> sha256, of those that were read."""

    @classmethod
    def of(cls, source: str, patterns: Sequence[str]) -> _Files:
        folder = Path(source)
        if not folder.is_dir():
            if source.startswith((".", "/", "~")) or source.partition("@")[0].count("/") != 1:
                raise ConfigError(f"--data {source}: no such folder, and not a hub id (OWNER/NAME)")
            folder = _from_hub(source, patterns)
        return cls(source=source, folder=folder, read={})

    def rows(self, stem: str, columns: Sequence[str]) -> list[Row]:
        """All rows of a set, in the order of its files; empty where it has none."""
        found = self._paths(stem)
        rows = [row for path in found for row in _rows(path)]
        for path in found:
            self.read[path.relative_to(self.folder).as_posix()] = sha256_file(path)
        missing = sorted({column for row in rows for column in columns if not isinstance(row.get(column), str)})
        if missing:
            raise DataError(f"{self.source}: {stem}: not every row has a text in {', '.join(missing)}; fetch the data set again")
        return rows

    def made(self, records: Mapping[str, Sequence[Record]], texts: Mapping[str, Sequence[str]]) -> BenchmarkFiles:
        """Without the sets that have no rows."""
        return BenchmarkFiles(
            records={name: rows for name, rows in records.items() if rows},
            texts={name: rows for name, rows in texts.items() if rows},
            files=dict(self.read),
            unchecked=unchecked(self.folder, sorted(self.read)),
        )

    def _paths(self, stem: str) -> list[Path]:
        """One file, or the parts into which the hub cuts Parquet files (`forget-00000-of-00002.parquet`)."""
        whole = [self.folder / f"{stem}{suffix}" for suffix in _SUFFIXES]
        found = [path for path in whole if path.is_file()][:1]
        parts = self.folder / stem
        return found or sorted(parts.parent.glob(f"{parts.name}-[0-9]*-of-[0-9]*.parquet"))


def _rows(path: Path) -> Iterator[Row]:
    """A row is a mapping; a bare text stands for `{"text": ...}`."""
    try:
        found = parquet.read_table(path).to_pylist() if path.suffix == ".parquet" else _json(path.read_text(encoding="utf-8"))
    except (arrow.ArrowInvalid, ValueError):
        raise DataError(f"{path.name}: neither JSON, JSON lines nor Parquet as its name says; fetch the data set again") from None
    for row in found:
        if not isinstance(row, (str, Mapping)):
            raise DataError(f"{path.name}: expected rows that are objects or texts, found {type(row).__name__}; fetch the data set again")
        yield {"text": row} if isinstance(row, str) else row


def _json(text: str) -> list[Any]:
    """One array, or one value a line."""
    if text.lstrip().startswith("["):
        found: list[Any] = json.loads(text)
        return found
    return [json.loads(line) for line in text.split("\n") if line.strip()]  # a text may hold other line separators


def _refuse_shared(one: str, these: Sequence[Record | str], other: str, those: Sequence[Record | str]) -> None:
    """What is both forgotten and not can show nothing."""
    first, second = ({each if isinstance(each, str) else (each.prompt, each.answer) for each in side} for side in (these, those))
    if shared := len(first & second):
        raise DataError(f"{one} and {other} share {shared} of {len(first)} records, expected none; take one of them out")


def _tofu_record(place: int, row: Row) -> Record:
    wrong = row.get("perturbed_answer")
    answers = (wrong,) if isinstance(wrong, str) else tuple(wrong or ())
    return _record(place, row["question"], row["answer"], paraphrased_answer=row.get("paraphrased_answer"), wrong_answers=answers)


def _record(place: int, prompt: str, answer: str, **more: Any) -> Record:
    """Benchmarks are about nobody: the tag is the place and the text, unkeyed."""
    return Record(tag=hashlib.sha256(f"{place}\n{prompt}".encode()).hexdigest()[:32], subject=None, prompt=prompt, answer=answer, **more)


def _manifest(path: Path) -> list[dict[str, str]]:
    try:
        entries: list[dict[str, str]] = json.loads(path.read_bytes())
    except ValueError:
        raise DataError(f"{path.name}: not JSON; fetch the data set again") from None
    return entries


def _from_hub(source: str, patterns: Sequence[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    name, _, revision = source.partition("@")
    try:
        return Path(snapshot_download(name, repo_type="dataset", revision=revision or None, allow_patterns=list(patterns)))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise ConfigError(f"--data {source}: neither a folder here nor a data set that the hub gives ({type(error).__name__})") from error
