"""What `report` does: everything that shows what became of a request, as one zip with the verifier in it, and one page for people.

The same state gives the same bytes. Nothing here holds a person's id, text or keyed tag: counts, digests, names of models and holders alone.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .. import verifier
from ..digests import write_atomically
from ..documents import encode
from ..graph import to_html
from ..lineage import ModelVersion, Trace, VersionLineage
from ..records import ErasureRequest
from ..stages.attesting import marked
from ..stages.tracing import trace_requests
from ..stages.workbench import Workbench
from ..verifier import Report
from ..verifier.answer import Case, verify
from .bundling import Bundle, folder_of, kept_documents, kept_statements
from .report_page import Facts, Version, page
from .requests import open_ends, summary

SCHEMA, REQUEST_SCHEMA = "mlflow-unlearn.bundle/1", "mlflow-unlearn.request/1"
PURGE = "not purged yet: older versions, caches, remotes and backups still hold what they held"
_EARLIEST = (1980, 1, 1, 0, 0, 0)


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
        kept_statements(bench, bundle, ancestor)
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
    certificate = kept_statements(bench, bundle, model)
    said: dict[str, Any] = certificate.predicate if certificate else {}
    documents = kept_documents(bench, bundle, model, said)
    if certificate is None:
        bundle.absent.append(f"{home}/certificate.json: {model} has none that can be read, so that nobody stands for its verdict")
    else:
        bundle.json(f"{home}/environment.json", said["lock"])
    return Version(
        model=model,
        home=home,
        aliases=lineage.aliases,
        parent=lineage.parent,
        run=said.get("unlearned") or documents.get("unlearned", {}),
        evaluation=said.get("evaluation") or documents.get("evaluation", {}),
        verdicts=said.get("verdicts") or documents.get("verdict", {}).get("verdicts", []),
        not_claimed=said.get("not_claimed", []),
        report=_answered(bench, model, certificate.raw, trust) if certificate else None,
        policy_included=bool(said) and hashlib.sha256(bundle.files.get("policy.yaml", b"")).hexdigest() == said["policy_file"],
    )


def _answered(bench: Workbench, model: ModelVersion, certificate: bytes, trust: bytes | None) -> Report:
    from ..adapters.statements import Statements

    registered = encode(Statements(bench.registry).registration(model))
    return verify(Case(certificate=certificate, trust=trust, registered=registered), datetime.now(UTC))


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
