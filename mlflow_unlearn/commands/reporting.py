"""What `report` does: everything that shows what became of a request, as one zip with the verifier in it, and one page for people.

The same state gives the same bytes. Nothing here holds a person's id, text or keyed tag: counts, digests, names of models and holders alone.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .. import verifier
from ..digests import write_atomically
from ..documents import decode, encode
from ..errors import ConfigError, LineageError, StoreError, TamperedError
from ..graph import to_html
from ..lineage import ModelVersion, Trace, VersionLineage
from ..records import ErasureRequest
from ..stages.attesting import marked
from ..stages.tracing import trace_requests
from ..stages.workbench import Workbench
from ..statements import Certificate
from ..verifier import Report, UndecidedError
from ..verifier.answer import Case, verify
from .report_page import Facts, Version, page
from .requests import open_ends, summary

SCHEMA, REQUEST_SCHEMA = "mlflow-unlearn.bundle/1", "mlflow-unlearn.request/1"
DOCUMENTS = ("split", "unlearned", "evaluation", "verdict", "commitment", "validation")
"""What was registered beside a version: counts, digests and figures."""
PURGE = "not purged yet: older versions, caches, remotes and backups still hold what they held"
_EARLIEST = (1980, 1, 1, 0, 0, 0)


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

    def signed(self, name: str, read: Callable[[], bytes | None]) -> bytes | None:
        """An envelope as it lies in MLflow; one that cannot be read, or was changed, is told and keeps nobody from the rest."""
        try:
            raw = read()
        except (LineageError, StoreError, TamperedError) as error:
            self.absent.append(f"{name}: {error}")
            return None
        if raw is not None:
            self.files[name] = raw
        return raw


def report(request_id: str, out: Path) -> dict[str, Any]:
    """Write REQUEST.zip and REQUEST.html.

    Returns:
        Both paths, the digest of the zip, the versions that were made for the request with what the verifier answers, and what is absent.

    Raises:
        LedgerError: no such request.
    """
    bench, bundle = Workbench(), Bundle()
    request, lineages = bench.ledger.get(request_id), bench.registry.lineages()
    traced = marked(bench, trace_requests(bench, [request], lineages), lineages)
    trust = bundle.file("trust.json", bench.settings.trust_file)
    for name in ("policy.yaml", "params.yaml"):
        bundle.file(name, bench.folder / name)
    of = {lineage.model: lineage for lineage in lineages}
    made = [_version(bench, bundle, lineage, trust) for lineage in lineages if request_id in lineage.requests]
    for ancestor in _ancestors(of, [each.model for each in made]):
        _statements(bench, bundle, ancestor)
    facts = _facts(bench, bundle, request, traced, made)
    _finish(bundle, facts)
    packed = zipped(bundle.files)
    paths = {"bundle": out / f"{request_id}.zip", "page": out / f"{request_id}.html"}
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(paths["bundle"], packed)
    write_atomically(paths["page"], bundle.files["report.html"])
    return {
        "request": request_id,
        **{name: str(path) for name, path in paths.items()},
        "sha256": hashlib.sha256(packed).hexdigest(),
        "files": len(bundle.files),
        "versions": [{"version": str(each.model), "answer": each.report.answer if each.report else None} for each in made],
        "absent": bundle.absent,
    }


def zipped(files: Mapping[str, bytes]) -> bytes:
    """A zip of these files whose bytes depend on nothing else."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _EARLIEST)
            entry.compress_type, entry.create_system, entry.external_attr = zipfile.ZIP_DEFLATED, 3, 0o644 << 16
            archive.writestr(entry, files[name])
    return buffer.getvalue()


def _version(bench: Workbench, bundle: Bundle, lineage: VersionLineage, trust: bytes | None) -> Version:
    """A version that was made for the request: its statements, its documents, and what the verifier answers without its files."""
    model, home = lineage.model, folder_of(lineage.model)
    certificate = _statements(bench, bundle, model)
    documents = {name: bench.registry.document(model, name) for name in DOCUMENTS}
    for name, document in documents.items():
        if document is not None:
            bundle.json(f"{home}/{name}.json", document)
    predicate, answered = _checked(bench, model, certificate, trust)
    if isinstance(lock := predicate.get("lock"), dict):
        bundle.json(f"{home}/environment.json", lock)
    elif certificate is None:
        bundle.absent.append(f"{home}/certificate.json: {model} has none, so that nobody stands for its verdict")
    verdicts = predicate.get("verdicts") or (documents["verdict"] or {}).get("verdicts") or []
    return Version(
        model=model,
        home=home,
        aliases=lineage.aliases,
        parent=lineage.parent,
        run=predicate.get("unlearned") or documents["unlearned"] or {},
        evaluation=predicate.get("evaluation") or documents["evaluation"] or {},
        verdicts=verdicts,
        not_claimed=predicate.get("not_claimed") or [],
        report=answered,
        policy_included=bool(predicate) and hashlib.sha256(bundle.files.get("policy.yaml", b"")).hexdigest() == predicate.get("policy_file"),
    )


def _checked(bench: Workbench, model: ModelVersion, certificate: bytes | None, trust: bytes | None) -> tuple[dict[str, Any], Report | None]:
    """What a certificate says, and whether it holds."""
    from ..adapters.statements import Statements

    if certificate is None:
        return {}, None
    registered = encode(Statements(bench.registry).registration(model))
    answered = verify(Case(certificate=certificate, trust=trust, registered=registered), datetime.now(UTC))
    try:
        document = verifier.read_json(verifier.open_envelope(certificate, "certificate").payload, "certificate")
        predicate: dict[str, Any] = encode(decode(Certificate, document["predicate"], "certificate"))
    except (UndecidedError, ConfigError, KeyError, TypeError):
        return {}, answered  # the answer says why
    return predicate, answered


def _statements(bench: Workbench, bundle: Bundle, model: ModelVersion) -> bytes | None:
    """Everything signed about a version into the bundle; its certificate back."""
    from ..adapters.statements import Statements

    statements, home = Statements(bench.registry), folder_of(model)
    certificate = bundle.signed(f"{home}/certificate.json", lambda: statements.certificate(model))
    lineage = bundle.signed(f"{home}/lineage.json", lambda: statements.lineage(model))
    if certificate is None and lineage is None:
        bundle.absent.append(f"{home}/lineage.json: nothing is signed about how {model} was made")
    for raw in statements.reviews(model):
        bundle.files[f"{home}/reviews/{verifier.open_envelope(raw, 'review').digest}.json"] = raw
    return certificate


def _ancestors(of: Mapping[ModelVersion, VersionLineage], models: list[ModelVersion]) -> Iterator[ModelVersion]:
    """Every version that these were made from, however far back, each once."""
    seen, waiting = set(models), list(models)
    while waiting:
        for edge in of[waiting.pop()].ancestors:
            if edge.parent not in seen and edge.parent in of:
                seen.add(edge.parent)
                waiting.append(edge.parent)
                yield edge.parent


def _facts(bench: Workbench, bundle: Bundle, request: ErasureRequest, traced: Trace, made: list[Version]) -> Facts:
    """What was asked, found and done beside the models, as documents; the tags by which people are known here are counted, not shown."""
    models = {each.model for each in made}
    asked = {
        "schema": REQUEST_SCHEMA,
        **summary(request),
        "purge": PURGE,
        "left_to_do": open_ends(request.request_id),
        "promotions": [encode(each) for each in bench.ledger.promotions() if each.model in models],
    }
    bundle.json("request.json", asked)
    bundle.json("trace.json", {name: value for name, value in encode(traced).items() if name != "parent"})
    bundle.files["trace.html"] = to_html(traced).encode()
    head = bench.ledger.head()
    return Facts(request=asked, traced=traced, versions=tuple(made), ledger=(head.number, head.digest), absent=tuple(bundle.absent))


def _finish(bundle: Bundle, facts: Facts) -> None:
    """The page, the verifier, how to run it, and last the list of everything."""
    folder = Path(verifier.__file__).parent
    bundle.files |= {f"verifier/{path.name}": path.read_bytes() for path in sorted(folder.glob("*.py"))}
    bundle.files["report.html"] = page(facts).encode()
    bundle.files["README.txt"] = readme(facts).encode()
    digests = {name: hashlib.sha256(raw).hexdigest() for name, raw in bundle.files.items()}
    number, digest = facts.ledger
    ledger = {"number": number, "digest": digest}
    bundle.json(
        "manifest.json", {"schema": SCHEMA, "request": facts.request["request_id"], "ledger": ledger, "files": digests, "absent": facts.absent}
    )


def readme(facts: Facts) -> str:
    """How to check the bundle."""
    lines = [
        f"Evidence about the erasure request {facts.request['request_id']}, received {facts.request['received_at']}.",
        "Read report.html. manifest.json lists every file by its sha256; request.json has no id of a person in it, trace.html draws the lineage.",
        "",
        "To check it you need Python 3.11 or newer and one library, and no network:",
        "",
        "  pip install cryptography",
        *(f"  {command}" for each in facts.versions for command in each.commands()),
        "",
        "0 is yes, 1 is no, 2 is could not decide, which is no yes. Compare the key id after `trust file by` with what the owner told you by",
        "another way, or give it: --owner KEYID. The verifier is plain Python in verifier/: read it, or write your own.",
        ""
        if any(each.report for each in facts.versions)
        else "No version that was made for this request has a certificate: there is nothing to verify.",
    ]
    return "\n".join(lines).rstrip() + "\n"


def folder_of(model: ModelVersion) -> str:
    """Where a version's files are in the zip; its name is somebody's text."""
    return f"versions/{re.sub(r'[^A-Za-z0-9_-]', '_', model.name)}/{model.version}"
