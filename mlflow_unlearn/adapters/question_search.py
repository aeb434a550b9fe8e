"""Whether texts and tables hold the questions of some records, word for word but for case, white space and quotes. Counts only."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

import polars as pl

from ..protocols import Record
from .formats import Source, holds_no_records

_BLOCK = 1 << 24  # characters searched at a time
_HEAD = 1 << 16  # bytes
_ESCAPED = re.compile(r"\\u([0-9a-fA-F]{4})")
_SPACE = re.compile(r'(?:\\[nrtfb]|[\s\\"\x00-\x1f])+')
"""White space, control characters, and what JSON and CSV put before or instead of a quote or a line's end."""


@dataclass(frozen=True, kw_only=True)
class Needle:
    """What gives a record away: its question, and its answer too where people who stay are asked the same."""

    question: str
    answer: str | None


def needles(records: Iterable[Record], staying: Iterable[Record]) -> tuple[Needle, ...]:
    """What to look for, one a record."""
    common = {loose(record.prompt) for record in staying}
    pairs = ((loose(record.prompt), loose(record.answer)) for record in records)
    return tuple(Needle(question=question, answer=answer if question in common else None) for question, answer in pairs if question)


def held(files: Iterable[Source], wanted: Sequence[Needle]) -> int | None:
    """How many of the records are in these files; None when one of them is neither a text nor a table and what is read holds none."""
    found: set[Needle] = set()
    blind = False
    for file in files:
        text = None if holds_no_records(file.name) else _text(file)
        blind |= text is None and not holds_no_records(file.name)
        found |= _held(loose(text), wanted) if text else set()
    count = sum(needle in found for needle in wanted)
    return None if blind and not count else count


def loose(text: str) -> str:
    """A text without what formats may change of it: Unicode form (NFKC), case, white space, quotes and backslashes."""
    if "\\u" in text:
        text = _ESCAPED.sub(lambda code: chr(int(code[1], 16)), text).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return _SPACE.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()


def _held(text: str, wanted: Sequence[Needle]) -> set[Needle]:
    said = _phrases(text, {phrase for needle in wanted for phrase in (needle.question, needle.answer) if phrase})
    return {needle for needle in wanted if needle.question in said and (needle.answer is None or needle.answer in said)}


def _phrases(text: str, phrases: Collection[str]) -> set[str]:
    """Those that stand in the text and are no piece of a longer word."""
    ordered = sorted(phrases)
    if not ordered:
        return set()
    near: set[str] = set()
    for block in _blocks(text, max(map(len, ordered))):
        near.update(pl.Series([block]).str.extract_many(ordered, overlapping=True)[0])
    return {phrase for phrase in near if re.search(rf"(?<!\w){re.escape(phrase)}(?!\w)", text)}


def _blocks(text: str, overlap: int) -> Iterator[str]:
    for start in range(0, max(1, len(text)), _BLOCK):
        yield text[start : start + _BLOCK + overlap]


def _text(file: Source) -> str | None:
    """Everything that a file says; None where it is neither text nor a table that can be read."""
    if file.name.lower().endswith(".parquet"):
        try:
            return pl.read_parquet(file.path).write_ndjson()
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError):
            return None
    with file.path.open("rb") as stream:
        head = stream.read(_HEAD)
        wide = head.startswith((b"\xff\xfe", b"\xfe\xff"))
        if b"\0" in head and not wide:  # before gigabytes of weights are read
            return None
        content = head + stream.read()
    if b"\0" in content and not wide:
        return None
    try:
        return content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError:
        return None
