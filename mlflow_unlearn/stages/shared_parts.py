"""What all shards share, examined: where the base came from by DVC's graph or the registry, and what stands in the texts it was made from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal

from ..adapters.dvc_history import WORKSPACE
from ..adapters.dvc_locks import TrackedOutput
from ..adapters.formats import Source
from ..adapters.question_search import Needle, held, needles
from ..adapters.tables import read_set
from ..adapters.workspace_digest import digest_of
from ..errors import StoreError
from ..exactness import SharedPart
from ..lineage import DatasetRevision, ModelVersion, Trace, TracedVersion, VersionLineage
from ..protocols import Record
from ..provenance import provenance
from ..records import ErasureRequest, Split
from ..shared_state import BASE, TOKENIZER, BaseSeen, SharedEvidence, shared_state, upstream
from ..trace import Evidence, trace
from .families import exact_params, shards_folder
from .tracing import decided, evidence_for, trace_requests
from .workbench import Workbench

_SEARCHED = ("searched for the questions",)
"""Said in place of the revisions of a text that no index holds."""


def shared_parts(bench: Workbench, split: Split, base_reference: str, base_digest: str) -> tuple[SharedPart, ...]:
    """What of the shared state holds for the records that a split forgets.

    Args:
        bench: the project.
        split: whose records; their texts are those of build/raw/sets.
        base_reference: folder, hub id or `models:/NAME/VERSION`.
        base_digest: tensor digest of the base model.
    """
    trusted = frozenset(bench.policy.trusted_bases)
    seen = _seen(bench, [bench.ledger.get(request) for request in split.requests], base_reference)
    digests = {BASE: base_digest}
    if seen.kind == "unknown" and ((bench.folder / base_reference).is_dir() or base_digest in trusted):
        digests[TOKENIZER] = _tokenizer_digest(bench, base_reference)  # else a hub's files would be fetched for nothing
    return shared_state(
        SharedEvidence(
            reference=base_reference,
            digests=digests,
            seen=seen,
            trusted=trusted,
            aggregation=bench.params.exact.aggregation if bench.params.exact else "confident",
        )
    )


def base_apart(bench: Workbench) -> bool:
    """Whether the base is a folder that DVC's graph leads back to no dataset of the project, and to no text with a question of it."""
    folder = bench.folder / exact_params(bench).base
    if not folder.is_dir():
        return False
    evidence = evidence_for(bench, (), ())
    everything = replace(evidence, matches=dict.fromkeys(evidence.states, 1))
    rows = [record for path in sorted(shards_folder(bench).glob("*.parquet")) for record in read_set(path.parent, path.stem)]
    return _folder_seen(bench, folder, _Wanted(evidence=everything, needles=needles([*rows, *_forgotten(bench)], ()))).kind == "clear"


@dataclass(frozen=True, kw_only=True)
class _Wanted:
    """What is looked for: in DVC's graph, and word for word."""

    evidence: Evidence
    needles: Sequence[Needle]
    requests: Sequence[ErasureRequest] = ()


def _seen(bench: Workbench, requests: Sequence[ErasureRequest], reference: str) -> BaseSeen:
    if reference.startswith("models:/"):
        return _version_seen(trace_requests(bench, requests), bench.registry.resolve(reference))
    folder = bench.folder / reference
    if not folder.is_dir():
        return BaseSeen(kind="unknown", why=f"{reference}: nothing here says what it was trained on", searched={})
    forgotten, evidence = _forgotten(bench), evidence_for(bench, requests, ())
    subjects = sorted({tag for request in requests for tag in request.subjects})
    records = sorted({tag for request in requests for tag in request.records} | {record.tag for record in forgotten})  # canaries, too
    matches = bench.index.matches(tuple(evidence.states.values()), subjects=subjects, records=records)
    looked_for = needles(forgotten, read_set(bench.sets, "retain"))
    return _folder_seen(bench, folder, _Wanted(evidence=replace(evidence, matches=matches), needles=looked_for, requests=requests))


def _version_seen(traced: Trace, version: ModelVersion) -> BaseSeen:
    """A registered base, as the trace has it."""
    places: tuple[tuple[Literal["affected", "clear", "unknown"], Sequence[TracedVersion]], ...] = (
        ("affected", traced.affected),
        ("clear", traced.clear),
        ("unknown", traced.unknown),
    )
    found = next((kind, line.why) for kind, lines in places for line in lines if line.model == version)
    return BaseSeen(kind=found[0], why=f"{version}: {found[1]}", searched={})


def _folder_seen(bench: Workbench, folder: Path, wanted: _Wanted) -> BaseSeen:
    """A folder here: what DVC tracks is traced as a version would be that learned from nothing but it."""
    path = bench.from_root(str(folder.resolve()))
    output = _tracked(bench, path)
    if output is None:
        return BaseSeen(kind="unknown", why=f"{path}: DVC does not track it, so that nobody can say what it was made from", searched={})
    if not _as_tracked(bench, output):
        return BaseSeen(kind="unknown", why=f"{path}: its files are not those that DVC recorded; run `dvc repro` or `dvc checkout`", searched={})
    if not any(edge.target == output.md5 for edge in wanted.evidence.derivations):
        return BaseSeen(kind="unknown", why=f"{path}: DVC tracks it, and no stage says what it was made from", searched={})
    evidence, searched = _with_texts(bench, output.md5, wanted)
    base = VersionLineage(model=ModelVersion(name=path, version="here"), datasets={path: output.md5})
    traced = decided(bench, wanted.requests, trace(replace(evidence, versions=(base,))))
    found = _version_seen(traced, base.model)
    return replace(found, why=found.why.removeprefix(f"{base.model}: ").replace(f"; {base.model} trained on it", ""), searched=searched)


def _tracked(bench: Workbench, path: str) -> TrackedOutput | None:
    """The output in the workspace that is this path, or holds it."""
    inside = [path, *map(str, PurePosixPath(path).parents)] if not path.startswith("..") else []
    return next((found for each in inside if (found := bench.project.output_at(each, WORKSPACE)) is not None), None)


def _as_tracked(bench: Workbench, output: TrackedOutput) -> bool:
    place, home = bench.settings.root / output.path, bench.project.folder
    return any(digest_of(place, home, unified_ends=ends) == output.md5 for ends in (False, True))


def _with_texts(bench: Workbench, md5: str, wanted: _Wanted) -> tuple[Evidence, dict[str, int]]:
    """The evidence, with the texts and tables above an output as if they were indexed: where they hold questions, or else nobody could say what they
    hold. A text that is made from data and holds none stays what its data are.
    """
    evidence = wanted.evidence
    graph = provenance(evidence.states, evidence.derivations, evidence.unreadable, evidence.tracked)
    above = upstream(md5, evidence.derivations, evidence.states.keys())
    told = {each: path for each, path in above.items() if each not in evidence.states and each not in evidence.unreadable}
    counts = {
        each: count
        for each, path in told.items()
        if (each in graph.outputs or each in graph.holes) and (count := _questions_in(bench, each, path, wanted.needles)) is not None
    }
    known = {each: count for each, count in counts.items() if count or each in graph.holes}
    states = {each: DatasetRevision(name=told[each], path=told[each], md5=each, revisions=_SEARCHED) for each in known}
    matches = {**evidence.matches, **{each: count for each, count in known.items() if count}}
    return replace(evidence, states={**evidence.states, **states}, matches=matches), {told[each]: count for each, count in counts.items()}


def _questions_in(bench: Workbench, md5: str, path: str, looked_for: Sequence[Needle]) -> int | None:
    """How many of the records an output, or a file that git keeps, gives away; None where its bytes are nowhere, or are no text."""
    try:
        return held(_files(bench, md5, path), looked_for)
    except StoreError:
        return None


def _files(bench: Workbench, md5: str, path: str) -> Iterator[Source]:
    """The bytes with this md5: those of the workspace where they still are, else as DVC kept them."""
    here, project = bench.settings.root / path, bench.project
    if here.is_file() and digest_of(here, project.folder) == md5:
        yield Source(name=path, path=here)
        return
    for relpath, each in project.files(md5):
        yield Source(name=f"{path}/{relpath}".rstrip("/"), path=project.local_path(each))


def _forgotten(bench: Workbench) -> list[Record]:
    """With canaries; none where no request is open."""
    return read_set(bench.sets, "forget") if (bench.sets / "forget.parquet").is_file() else []


def _tokenizer_digest(bench: Workbench, reference: str) -> str:
    from ..adapters.bases import fetch, tokenizer_digest  # torch

    folder = bench.folder / reference
    return tokenizer_digest(fetch(str(folder) if folder.is_dir() else reference).tokenizer)
