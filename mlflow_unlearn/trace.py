"""The verb `trace`: from requests and lineages to affected, clear and unknown versions, each with its reason.

Unknown is never clear: a version whose data, or an ancestor's data, cannot be named stays unknown whatever the index says about the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from .lineage import DatasetRevision, ModelVersion, Trace, TracedVersion, VersionLineage
from .records import ErasureRequest, Outcome

_KINDS = ("affected", "clear", "unknown")


@dataclass(frozen=True, kw_only=True)
class _Evidence:
    requests: Sequence[ErasureRequest]
    lineages: Mapping[ModelVersion, VersionLineage]
    states: Mapping[str, DatasetRevision]
    matches: Mapping[str, int]


def trace(
    requests: Sequence[ErasureRequest],
    versions: Sequence[VersionLineage],
    states: Mapping[str, DatasetRevision],
    matches: Mapping[str, int],
) -> Trace:
    """Sort every version into affected, clear or unknown.

    Args:
        requests: whose records are looked for.
        versions: every registered version.
        states: DVC md5 -> dataset revision, of every state that is indexed.
        matches: DVC md5 -> how many requested records it holds; a missing md5 holds none if it is in `states`.
    """
    evidence = _Evidence(requests=requests, lineages={lineage.model: lineage for lineage in versions}, states=states, matches=matches)
    lines: dict[str, list[TracedVersion]] = {kind: [] for kind in _KINDS}
    for lineage in sorted(versions, key=_by_number):
        kind, line = _place(lineage, evidence)
        lines[kind].append(line)
    affected, clear, unknown = (tuple(lines[kind]) for kind in _KINDS)
    return Trace(requests=tuple(sorted(request.request_id for request in requests)), affected=affected, clear=clear, unknown=unknown)


def without_batch(traced: Trace, requests: Sequence[str]) -> Trace:
    """The trace without versions made for exactly this batch: what `build/trace.json` shows, equal before and after the batch is registered."""
    batch = set(requests) or None
    affected, clear, unknown = (
        tuple(line for line in lines if set(line.requests) != batch) for lines in (traced.affected, traced.clear, traced.unknown)
    )
    return replace(traced, affected=affected, clear=clear, unknown=unknown)


def lineage_datasets(model: ModelVersion, lineages: Mapping[ModelVersion, VersionLineage]) -> tuple[frozenset[str], str | None]:
    """DVC md5s of everything a version and its ancestors were trained on, and why that may not be all, if it may not be."""
    datasets: set[str] = set()
    seen: set[ModelVersion] = set()
    problem: str | None = None
    current: ModelVersion | None = model
    while current is not None and current not in seen:
        seen.add(current)
        lineage = lineages.get(current)
        trouble = _trouble(lineage)
        if trouble:
            problem = problem or (trouble if current == model else f"its ancestor {current}: {trouble}")
        datasets.update(lineage.datasets.values() if lineage else ())
        current = lineage.parent if lineage else None
    return frozenset(datasets), problem


def _trouble(lineage: VersionLineage | None) -> str | None:
    if lineage is None:
        return "no longer registered"
    return lineage.problem or (None if lineage.datasets else "no dataset under DVC was logged with it")


def _by_number(lineage: VersionLineage) -> tuple[str, int, str]:
    version = lineage.model.version
    return lineage.model.name, int(version) if version.isdecimal() else 0, version


def _place(lineage: VersionLineage, evidence: _Evidence) -> tuple[str, TracedVersion]:
    datasets, problem = lineage_datasets(lineage.model, evidence.lineages)
    known = tuple(evidence.states[md5] for md5 in sorted(datasets) if md5 in evidence.states)
    unreadable = sorted(md5[:8] for md5 in datasets if md5 not in evidence.states)
    problem = problem or (f"dataset state {', '.join(unreadable)} is in no git revision that can be read" if unreadable else None)
    hits = [state for state in known if evidence.matches.get(state.md5, 0)]
    count = max((evidence.matches[state.md5] for state in hits), default=0)
    line = TracedVersion(model=lineage.model, why="", records=count, datasets=known, aliases=lineage.aliases, requests=lineage.requests)
    if not hits:
        return (
            ("unknown", replace(line, why=problem)) if problem else ("clear", replace(line, why=f"none of the requested records in {_shown(known)}"))
        )
    passed, story = _unlearning(lineage, evidence.requests)
    saw = f"{_counted(count)} in {_shown(hits)}" + (f"; {story}" if story else "")
    if passed and problem:
        return "unknown", replace(line, why=f"{saw}; yet {problem}")
    return ("clear" if passed else "affected"), replace(line, why=saw)


def _unlearning(lineage: VersionLineage, requests: Sequence[ErasureRequest]) -> tuple[bool, str]:
    """Whether the version was made to forget all of these requests and passed for the effect of each, and that in words."""
    if not lineage.requests:
        return False, ""
    made = f"made from {lineage.parent or 'no named parent'} to forget {', '.join(sorted(lineage.requests))}"
    missing = sorted({request.request_id for request in requests} - set(lineage.requests))
    if missing:
        return False, f"{made}, not {', '.join(missing)}"
    outcomes = {request.effect.value: lineage.verdict.get(request.effect.value, Outcome.INCONCLUSIVE.value) for request in requests}
    passed = bool(outcomes) and all(outcome == Outcome.PASS.value for outcome in outcomes.values())
    return passed, f"{made}: unlearned, {', '.join(f'{outcome} as {effect}' for effect, outcome in sorted(outcomes.items()))}"


def _counted(records: int) -> str:
    return f"{records} of the requested records"


def _shown(states: Sequence[DatasetRevision]) -> str:
    return "; ".join(f"{state.name} {state.md5[:8]} ({', '.join(state.revisions) or 'no revision'})" for state in states)
