"""What of MLflow goes into an evidence bundle: what can be read as the statement or record that it claims to be, and nothing else.

Whoever can write into a run can put anything there. What is no such document, or other than what was certified, is listed as absent; its text is not.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..commitments import Commitments
from ..documents import decode, encode
from ..errors import ConfigError, LineageError, StoreError, TamperedError
from ..lineage import ModelVersion
from ..reasons import APPROVALS, OVERRIDES
from ..records import Evaluation, Split, Unlearned, Verdict
from ..stages.workbench import Workbench
from ..statements import CERTIFICATE, LINEAGE, REVIEW, Certificate, Review, ReviewKind
from ..verifier import UndecidedError, open_envelope, read_json
from ..verifier.envelopes import STATEMENT

_UNREADABLE = (ConfigError, LineageError, StoreError, TamperedError, UndecidedError, KeyError, TypeError, ValueError, AttributeError)
_REASONS = {ReviewKind.APPROVAL: APPROVALS, ReviewKind.OVERRIDE: OVERRIDES}
_LONGEST = 100


@dataclass(frozen=True, kw_only=True)
class _Judged:
    """build/verdict.json."""

    requests: tuple[str, ...] = ()
    attempt: int | None = None
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True, kw_only=True)
class _Rule:
    """A line of build/validation.json."""

    name: str
    success: bool
    rows: int
    violations: int
    warn_only: bool


@dataclass(frozen=True, kw_only=True)
class _Validated:
    """build/validation.json."""

    requests: tuple[str, ...]
    success: bool
    split: str
    results: tuple[_Rule, ...]


DOCUMENTS: Mapping[str, type] = {
    "split": Split,
    "unlearned": Unlearned,
    "evaluation": Evaluation,
    "verdict": _Judged,
    "commitment": Commitments,
    "validation": _Validated,
}
"""What was registered beside a version: counts, digests and figures."""


@dataclass
class Bundle:
    """What goes into the zip, and what should have and is not there."""

    files: dict[str, bytes] = field(default_factory=dict)
    absent: list[str] = field(default_factory=list)

    def json(self, name: str, document: Any) -> None:
        """A document for people and machines."""
        self.files[name] = (json.dumps(document, indent=2, ensure_ascii=False, sort_keys=True) + "\n").encode()

    def file(self, name: str, path: Path) -> bytes | None:
        """A file of this machine, under another name."""
        if not path.is_file():
            self.absent.append(f"{name}: there is none here")
            return None
        self.files[name] = path.read_bytes()
        return self.files[name]


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A statement as it lies in MLflow, and what it says; nothing of it is verified."""

    raw: bytes
    predicate: dict[str, Any]


def kept_statements(bench: Workbench, bundle: Bundle, model: ModelVersion) -> Kept | None:
    """Everything signed about a version into the bundle; its certificate back. What cannot be read is told and keeps nobody from the rest."""
    from ..adapters.statements import Statements

    statements, home = Statements(bench.registry), folder_of(model)
    certificate = _signed(bundle, f"{home}/certificate.json", lambda: statements.certificate(model), _certificate)
    lineage = _signed(bundle, f"{home}/lineage.json", lambda: statements.lineage(model), _lineage)
    if certificate is None and lineage is None:
        bundle.absent.append(f"{home}/lineage.json: nothing that can be read is signed about how {model} was made")
    _reviews(bundle, f"{home}/reviews", statements, model)
    return certificate


def kept_documents(bench: Workbench, bundle: Bundle, model: ModelVersion, certified: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The documents of a version's registration into the bundle, and back by name; where a certificate says the same thing, as it says it."""
    said = {**certified, "commitment": certified.get("commitments")}
    found = {}
    for name, cls in DOCUMENTS.items():
        place = f"{folder_of(model)}/{name}.json"
        try:
            document = bench.registry.document(model, name)
            if document is None:
                continue
            value = encode(decode(cls, {key: each for key, each in document.items() if key != "schema"}, name))
        except _UNREADABLE:
            bundle.absent.append(f"{place}: what lies in MLflow is no such document")
            continue
        if certified and (value["verdicts"] != said["verdicts"] if name == "verdict" else value != said.get(name, value)):
            bundle.absent.append(f"{place}: what lies in MLflow is not what the certificate says")
            continue
        bundle.json(place, value)
        found[name] = value
    return found


def _signed(bundle: Bundle, name: str, read: Callable[[], bytes | None], predicate: Callable[[bytes], dict[str, Any]]) -> Kept | None:
    try:
        if (raw := read()) is None:
            return None
        kept = Kept(raw=raw, predicate=predicate(raw))
    except (LineageError, StoreError, TamperedError) as error:
        bundle.absent.append(f"{name}: {error}")
        return None
    except _UNREADABLE:
        bundle.absent.append(f"{name}: what lies in MLflow is no such statement of this version of the format")
        return None
    bundle.files[name] = raw
    return kept


def _reviews(bundle: Bundle, home: str, statements: Any, model: ModelVersion) -> None:
    """What reviewers signed about this version; other versions of its run have theirs in the same place."""
    registered = encode(statements.registration(model))
    try:
        kept = statements.reviews(model)
    except (LineageError, StoreError) as error:
        bundle.absent.append(f"{home}: {error}")
        return
    strange = 0
    for raw in kept:
        try:
            about = _review(raw)["registered"]
        except _UNREADABLE:
            strange += 1
            continue
        if about == registered:
            bundle.files[f"{home}/{open_envelope(raw, 'review').digest}.json"] = raw
    if strange:
        bundle.absent.append(f"{home}: {strange} files there are no reviews that can be read, or give a reason that is none of the known codes")


def _certificate(raw: bytes) -> dict[str, Any]:
    found: dict[str, Any] = encode(decode(Certificate, _predicate(raw, CERTIFICATE), "certificate"))
    return found


def _lineage(raw: bytes) -> dict[str, Any]:
    from ..adapters.stated_lineage import stated

    found = _predicate(raw, LINEAGE)
    stated(found["buildDefinition"])
    return found


def _review(raw: bytes) -> dict[str, Any]:
    said = decode(Review, _predicate(raw, REVIEW), "review")
    if said.reason not in _REASONS[said.kind]:
        raise ValueError("no code")
    found: dict[str, Any] = encode(said)
    return found


def _predicate(raw: bytes, kind: str) -> dict[str, Any]:
    """Of a statement that says nothing beside it."""
    document = read_json(open_envelope(raw, "statement").payload, "statement")
    if document.keys() != {"_type", "predicate", "predicateType", "subject"} or (document["_type"], document["predicateType"]) != (STATEMENT, kind):
        raise ValueError("another kind")
    found: dict[str, Any] = document["predicate"]
    return found


def folder_of(model: ModelVersion) -> str:
    """Where a version's files are in the zip: a folder of its own, also where case does not tell names apart. Names are somebody's text."""
    name = re.sub(r"[^a-z0-9_-]", lambda found: "".join(f"={byte:02X}" for byte in found.group().encode()), model.name)
    if len(name) > _LONGEST:
        name = f"=={hashlib.sha256(model.name.encode()).hexdigest()}"
    return f"versions/{name}/{model.version}"
