"""The verb `trace`: from requests and lineages to affected, clear and unknown versions, each with its reason.

Unknown is never clear: a version whose data, or an ancestor's data, cannot be named stays unknown whatever the index says about the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from .records import DatasetRevision, ErasureRequest, ModelVersion, Outcome, Trace, TracedVersion, VersionLineage


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
    lineages = {lineage.model: lineage for lineage in versions}
    lines: dict[str, list[TracedVersion]] = {"affected": [], "clear": [], "unknown": []}
    for lineage in sorted(versions, key=lambda each: (each.model.name, int(each.model.version))):
        kind, line = _place(lineage, requests, lineages, states, matches)
        lines[kind].append(line)
    ids = tuple(sorted(request.request_id for request in requests))
    return Trace(requests=ids, affected=tuple(lines["affected"]), clear=tuple(lines["clear"]), unknown=tuple(lines["unknown"]))


def without_batch(traced: Trace, requests: Sequence[str]) -> Trace:
    """The trace without versions made for exactly this batch: what `build/trace.json` shows, equal before and after the batch is registered."""
    batch = f"made to forget {', '.join(sorted(requests))}:"

    def kept(lines: Sequence[TracedVersion]) -> tuple[TracedVersion, ...]:
        return tuple(line for line in lines if batch not in line.why)

    return replace(traced, affected=kept(traced.affected), clear=kept(traced.clear), unknown=kept(traced.unknown))


def lineage_datasets(model: ModelVersion, lineages: Mapping[ModelVersion, VersionLineage]) -> tuple[frozenset[str], str | None]:
    """DVC md5s of everything a version and its ancestors were trained on, and why that is not all, if it is not."""
    datasets: set[str] = set()
    seen: set[ModelVersion] = set()
    current: ModelVersion | None = model
    while current is not None and current not in seen:
        seen.add(current)
        lineage = lineages.get(current)
        if lineage is None:
            return frozenset(datasets), f"its ancestor {current} is no longer registered"
        if lineage.problem or not lineage.datasets:
            reason = lineage.problem or "no dataset under DVC was logged with it"
            return frozenset(datasets), reason if current == model else f"its ancestor {current}: {reason}"
        datasets.update(lineage.datasets.values())
        current = lineage.parent
    return frozenset(datasets), None


def _place(
    lineage: VersionLineage,
    requests: Sequence[ErasureRequest],
    lineages: Mapping[ModelVersion, VersionLineage],
    states: Mapping[str, DatasetRevision],
    matches: Mapping[str, int],
) -> tuple[str, TracedVersion]:
    datasets, problem = lineage_datasets(lineage.model, lineages)
    known = tuple(states[md5] for md5 in sorted(datasets) if md5 in states)
    line = TracedVersion(model=lineage.model, why="", datasets=known, aliases=lineage.aliases)
    unreadable = sorted(md5[:8] for md5 in datasets if md5 not in states)
    hits = [state for state in known if matches.get(state.md5, 0)]
    if hits:
        count = max(matches[state.md5] for state in hits)
        kind, why = _affected(lineage, requests, count, hits)
        return kind, replace(line, why=why, records=count)
    if problem or unreadable:
        return "unknown", replace(line, why=problem or f"dataset state {', '.join(unreadable)} is in no git revision that can be read")
    return "clear", replace(line, why=f"none of the requested records in {_shown(known)}")


def _affected(lineage: VersionLineage, requests: Sequence[ErasureRequest], count: int, hits: Sequence[DatasetRevision]) -> tuple[str, str]:
    saw = f"{count} of the requested records in {_shown(hits)}"
    if not lineage.requests:
        return "affected", saw
    made = f"made to forget {', '.join(sorted(lineage.requests))}:"
    missing = sorted({request.request_id for request in requests} - set(lineage.requests))
    if missing:
        return "affected", f"{saw}; {made} not {', '.join(missing)}"
    outcomes = {request.effect.value: lineage.verdict.get(request.effect.value, Outcome.INCONCLUSIVE.value) for request in requests}
    verdict = ", ".join(f"{outcome} as {effect}" for effect, outcome in sorted(outcomes.items()))
    passed = all(outcome == Outcome.PASS.value for outcome in outcomes.values())
    return ("clear" if passed else "affected"), f"{saw} through {lineage.parent}; {made} {verdict}"


def _shown(states: Sequence[DatasetRevision]) -> str:
    return "; ".join(f"{state.name} {state.md5[:8]} ({', '.join(state.revisions) or 'no revision'})" for state in states)
