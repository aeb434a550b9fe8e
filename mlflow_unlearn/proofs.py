"""Proofs that ids are in a committed set or are not, as one JSON document that is checked offline, with the commitment key alone."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .commitments import DIGEST, Commitment, Domain, leaf
from .documents import decode, encode
from .errors import ConfigError
from .verifier.merkle import Absence, Head, Inclusion, ProofError, verify_absence, verify_inclusion

SCHEMA = "mlflow-unlearn.proofs/1"
_SURROGATE = re.compile("[\ud800-\udfff]")
"""Half a character, which JSON can write and UTF-8 cannot."""


@dataclass(frozen=True, kw_only=True)
class Present:
    """A leaf that is in the set, with its way up, in hex."""

    leaf: str
    index: int
    path: tuple[str, ...]

    def __post_init__(self) -> None:
        if not all(DIGEST.fullmatch(each) for each in (self.leaf, *self.path)):
            raise ConfigError("expected leaf and path as 64 hex characters (0-9, a-f) each")


@dataclass(frozen=True, kw_only=True)
class Absent:
    """A leaf that is not in the set, with the two between which it would lie, in hex."""

    leaf: str
    left: Present | None
    right: Present | None

    def __post_init__(self) -> None:
        if not DIGEST.fullmatch(self.leaf):
            raise ConfigError("expected the leaf as 64 hex characters (0-9, a-f)")


@dataclass(frozen=True, kw_only=True)
class Proofs:
    """One document of proofs. It holds leaves, never ids."""

    dataset: str
    about: Mapping[str, str]
    """What the set is: `md5` of a dataset revision, or `version` and `set`."""
    commitment: Commitment
    proofs: tuple[Present | Absent, ...]

    def __post_init__(self) -> None:
        if not all(text.isprintable() for text in (self.dataset, *self.about, *self.about.values())):
            raise ConfigError("expected a dataset name and `about` without control characters")


@dataclass(frozen=True, kw_only=True)
class Checked:
    """How many were shown to be in the set, how many not to be, and what is wrong, each with its place in the list of ids."""

    present: int
    absent: int
    problems: tuple[str, ...]


def written(proof: Inclusion | Absence) -> Present | Absent:
    """A proof in hex."""
    if isinstance(proof, Inclusion):
        return _present(proof)
    left, right = (None if each is None else _present(each) for each in (proof.left, proof.right))
    return Absent(leaf=proof.leaf.hex(), left=left, right=right)


def document(proofs: Proofs) -> dict[str, Any]:
    """The JSON of proofs."""
    return {"schema": SCHEMA, **encode(proofs)}


def read_proofs(path: Path) -> Proofs:
    """A document of proofs.

    Raises:
        ConfigError: cut short, of another schema, or with a wrong key or type, all complaints at once.
    """
    body = read_json(path)
    if body.pop("schema", None) != SCHEMA:
        raise ConfigError(f"{path}: expected schema {SCHEMA}; make the file with `mlflow-unlearn commitment prove`")
    return decode(Proofs, body, str(path))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ConfigError: missing or not one.
    """
    try:
        body = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise ConfigError(f"{path}: not a JSON object; it was cut short or is another file")
    return body


def asked(key: bytes, ids: Mapping[Domain, Sequence[str]]) -> list[tuple[str, bytes]]:
    """(line of the list it came from, leaf) of every id. A content is one JSON object a line with `prompt` and `answer`.

    Raises:
        ConfigError: no id at all, or a content that is not such an object.
    """
    leaves = [
        (f"line {number} of --{domain}s", leaf(key, domain, *(_content(number, line) if domain == "content" else [line.strip()])))
        for domain, lines in ids.items()
        for number, line in enumerate(lines, 1)
        if line.strip()
    ]
    if not leaves:
        raise ConfigError("expected --subjects, --records or --contents with a file or -, one a line; there is not one id in it")
    return leaves


def check(proofs: Proofs, wanted: Sequence[tuple[str, bytes]], trusted: Head | None = None) -> Checked:
    """Check the proof of every leaf that is asked about.

    Args:
        proofs: the document, which nobody need trust.
        wanted: from `asked`.
        trusted: the commitment known from elsewhere, such as a version's tag; without it the document's own is taken.
    """
    head = proofs.commitment.head
    problems = [] if trusted in (None, head) else ["the proofs are for another root or size than the one that was given"]
    by_leaf = {bytes.fromhex(each.leaf): each for each in proofs.proofs}
    sound: list[Present | Absent] = []
    for place, each in wanted:
        try:
            sound.append(_sound(head, by_leaf.get(each)))
        except ProofError as error:
            problems.append(f"{place}: {error}")
    present = sum(isinstance(proof, Present) for proof in sound)
    return Checked(present=present, absent=len(sound) - present, problems=tuple(problems))


def _sound(head: Head, proof: Present | Absent | None) -> Present | Absent:
    if proof is None:
        raise ProofError("the document has no proof for this one")
    if isinstance(proof, Present):
        verify_inclusion(head, _inclusion(proof))
    else:
        left, right = (None if each is None else _inclusion(each) for each in (proof.left, proof.right))
        verify_absence(head, Absence(leaf=bytes.fromhex(proof.leaf), left=left, right=right))
    return proof


def _content(number: int, line: str) -> tuple[str, ...]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    texts = [row.get(name) for name in ("prompt", "answer")] if isinstance(row, dict) else []
    found = tuple(text for text in texts if isinstance(text, str) and not _SURROGATE.search(text))
    if len(found) != 2:
        raise ConfigError(f'line {number} of --contents: expected one JSON object with the texts "prompt" and "answer"')
    return found


def _present(proof: Inclusion) -> Present:
    return Present(leaf=proof.leaf.hex(), index=proof.index, path=tuple(each.hex() for each in proof.path))


def _inclusion(proof: Present) -> Inclusion:
    return Inclusion(leaf=bytes.fromhex(proof.leaf), index=proof.index, path=tuple(map(bytes.fromhex, proof.path)))
