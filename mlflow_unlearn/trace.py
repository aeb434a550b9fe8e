"""The verb `trace`: from requests and everything known to affected, clear and unknown versions, each with its path and its reason.

Affected outweighs unknown, and unknown outweighs clear: a version whose data, or an ancestor's data, cannot be named stays unknown whatever
the index says about the rest, unless one of its paths leads to a requested record. A path ends at a version that was made to forget the
request and passed for the effect asked; what cannot be read is not ended by that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from .ancestry import Ancestry, ancestry, trouble
from .closure import Reach
from .lineage import (
    DatasetRevision,
    Derivation,
    HeldRevision,
    Hop,
    ModelVersion,
    RunLineage,
    Step,
    Trace,
    TracedOutput,
    TracedRun,
    TracedVersion,
    VersionLineage,
)
from .provenance import Provenance, provenance
from .records import ErasureRequest, Outcome
from .story import counted

_KINDS = ("affected", "clear", "unknown")
_NAMED = 6
_DOWNSTREAM = "; an output on the way keeps no record tags, so this is everything downstream and may be too much"


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Everything a trace goes by. What is missing here makes versions unknown, never clear."""

    requests: Sequence[ErasureRequest]
    versions: Sequence[VersionLineage]
    """Every registered version, each once."""
    states: Mapping[str, DatasetRevision]
    """DVC md5 -> dataset revision, of every state that is indexed."""
    matches: Mapping[str, int]
    """DVC md5 -> how many requested records it holds; a missing md5 holds none if it is in `states`."""
    holders: Mapping[str, Collection[str]] = field(default_factory=dict)
    """DVC md5 -> ids of the requests whose records it holds; one with `matches` that is missing here holds those of all of them."""
    derivations: Sequence[Derivation] = ()
    """Edges of DVC's graph over all revisions. All edges into an output belong together: its other sources are not guessed."""
    runs: Sequence[RunLineage] = ()
    """Runs that read a dataset under DVC; those of registered versions may be among them."""
    unreadable: Mapping[str, str] = field(default_factory=dict)
    """DVC md5 -> why this state of a dataset could not be indexed; it stays unknown even if all that it was made from is clear."""
    warnings: tuple[str, ...] = ()
    tracked: frozenset[str] = frozenset()
    """md5s of every DVC output at any revision: a dependency among them is data, whatever its name ends in."""


def trace(evidence: Evidence) -> Trace:
    """Sort every version into affected, clear or unknown, with the data, outputs and runs that the records reached.

    A state that is indexed is exact, whatever it was made from: its own rows decide. An output that is not indexed is affected, though not
    exactly, when any of its sources is; it is clear only when it was made from indexed states, directly or through other such outputs, and
    from nothing else but code and settings.
    """
    versions = sorted(evidence.versions, key=_by_number)
    known = _ancestry(evidence, versions)
    lines: dict[str, list[TracedVersion]] = {kind: [] for kind in _KINDS}
    for number, lineage in enumerate(versions):
        kind, line = _place(number, lineage, known, evidence.requests)
        lines[kind].append(line)
    affected, clear, unknown = (tuple(lines[kind]) for kind in _KINDS)
    states, matches = evidence.states, evidence.matches
    return Trace(
        requests=tuple(sorted(request.request_id for request in evidence.requests)),
        affected=affected,
        clear=clear,
        unknown=unknown,
        held=tuple(HeldRevision(state=states[md5], records=matches[md5]) for md5 in sorted(known.hits, key=lambda md5: (states[md5].name, md5))),
        outputs=_outputs(known),
        runs=_runs(evidence, known),
        warnings=tuple(sorted({*evidence.warnings, *(f"dataset state {md5[:8]}: {reason}" for md5, reason in evidence.unreadable.items())})),
    )


def tainted(evidence: Evidence) -> dict[str, tuple[Step, ...]]:
    """Every dataset state and derived output that holds or may hold requested records: md5 -> the path that leads there.

    Ask the registry for the runs that read these, and hand both to `trace`.
    """
    known = _ancestry(replace(evidence, versions=()), ())
    return {md5: known.story.tell(reach)[0] for md5, reach in known.reached.items() if isinstance(md5, str)}


def reaching(evidence: Evidence, models: Iterable[ModelVersion]) -> dict[ModelVersion, tuple[str, ...]]:
    """Ids of the requests whose records reach each of these versions, or may; sorted."""
    known = _ancestry(evidence, sorted(evidence.versions, key=_by_number))
    named: dict[int, tuple[str, ...]] = {}
    found = {}
    for model in models:
        if (bits := known.left.get(known.numbers[model], 0)) not in named:
            named[bits] = tuple(sorted(request.request_id for place, request in enumerate(evidence.requests) if bits >> place & 1))
        found[model] = named[bits]
    return found


def undecided(traced: Trace, why: str) -> Trace:
    """The trace with nothing clear: for when a requested tag could not be looked up at all."""
    moved = tuple(replace(line, why=f"{why}; else: {line.why}") for line in traced.clear)
    return replace(traced, clear=(), unknown=(*traced.unknown, *moved), warnings=(*traced.warnings, why))


def without_batch(traced: Trace, requests: Sequence[str]) -> Trace:
    """The trace without what the batch itself makes: what `build/trace.json` shows, equal before and after the batch is registered.

    That are versions made for exactly this batch, and every run and DVC output, since unlearning and its evaluation are such too.
    """
    batch = set(requests) or None
    affected, clear, unknown = (
        tuple(line for line in lines if set(line.requests) != batch) for lines in (traced.affected, traced.clear, traced.unknown)
    )
    return replace(traced, affected=affected, clear=clear, unknown=unknown, outputs=(), runs=())


def lineage_datasets(model: ModelVersion, lineages: Mapping[ModelVersion, VersionLineage]) -> tuple[frozenset[str], str | None]:
    """DVC md5s of everything a version and its ancestors were trained on, and why that may not be all, if it may not be."""
    datasets: set[str] = set()
    problem: str | None = None
    seen = {model}
    waiting = deque([model])
    while waiting:
        current = waiting.popleft()
        lineage = lineages.get(current)
        if problem is None and (reason := trouble(lineage)):
            problem = reason if current == model else f"its ancestor {current}: {reason}"
        datasets.update(lineage.datasets.values() if lineage else ())
        parents = [edge.parent for edge in (lineage.ancestors if lineage else ()) if edge.parent not in seen]
        seen.update(parents)
        waiting.extend(parents)
    return frozenset(datasets), problem


def _by_number(lineage: VersionLineage) -> tuple[str, int, str]:
    version = lineage.model.version
    return lineage.model.name, int(version) if version.isdecimal() else 0, version


def _ancestry(evidence: Evidence, versions: Sequence[VersionLineage]) -> Ancestry:
    data = provenance(evidence.states, evidence.derivations, evidence.unreadable, evidence.tracked)
    return ancestry(versions, evidence.requests, data, evidence.matches, evidence.holders)


def _place(number: int, lineage: VersionLineage, known: Ancestry, requests: Sequence[ErasureRequest]) -> tuple[str, TracedVersion]:
    story, states = known.story, known.story.data.states
    md5s = sorted(set(lineage.datasets.values()))
    own = tuple([states[md5] for md5 in md5s if md5 in states])
    exact, hole, seen = known.exact.get(number), known.unread.get(number), known.seen.get(number)
    reach = exact or known.reached.get(number)
    missing = _missing(number, md5s, known, hole) if hole else ""
    path, onward = story.tell(way) if (way := reach or seen) else ((), "")
    if way is None:
        why = missing or _nothing(md5s, lineage, story.data)
    else:
        downstream = "" if exact or not reach else _DOWNSTREAM
        why = f"{_saw(way, own, known)}{onward if way.length > 2 else ''}{_forgot(number, lineage, known, requests)}{downstream}"
        why += f"; yet {missing}" if missing else ""
    return "affected" if reach else "unknown" if hole else "clear", TracedVersion(
        model=lineage.model,
        why=why,
        records=story.matches[known.most[number]] if way else 0,
        exact=bool(exact) or not reach,
        datasets=own,
        path=story.tell(hole)[0] if hole and not reach else path,
        aliases=lineage.aliases,
        requests=lineage.requests,
    )


def _saw(way: Reach, own: Sequence[DatasetRevision], known: Ancestry) -> str:
    """The records a version saw: all of its own data that hold some, or where the shortest way begins."""
    matches, start = known.story.matches, str(way.start)
    if way.length > 2:
        return f"{counted(matches[start])} in {known.story.name(start)}"
    hits = [state for state in own if matches.get(state.md5, 0)]
    return f"{counted(max(matches[state.md5] for state in hits))} in {'; '.join(known.story.name(state.md5) for state in hits)}"


def _forgot(number: int, lineage: VersionLineage, known: Ancestry, requests: Sequence[ErasureRequest]) -> str:
    """What was done to forget the records, by the version itself or on every way that leads to it."""
    own = f"; {_unlearning(lineage, requests)}" if lineage.requests else ""
    if number in known.reached or known.forgotten.get(number) == known.every:
        return own
    return f"{own}; every path to them runs through a version that passed"


def _missing(number: int, md5s: Sequence[str], known: Ancestry, hole: Reach) -> str:
    """Why the version is unknown: all that is unknown of its own data, or else the nearest that it inherited."""
    story = known.story
    own = [f"{story.data.name(md5)} {reason}" for md5 in md5s if (reason := story.data.hole(md5))]
    return "; ".join([*([story.holes[number]] if number in story.holes else []), *own]) or story.hole(hole)


def _nothing(md5s: Sequence[str], lineage: VersionLineage, data: Provenance) -> str:
    """What was looked up in vain, in a version whose lineage is complete."""
    names = [data.name(md5) for md5 in md5s]
    ancestors = "what its ancestors were trained on" if lineage.ancestors else ""
    return f"none of the requested records in {'; '.join(filter(None, [*names, ancestors]))}"


def _unlearning(lineage: VersionLineage, requests: Sequence[ErasureRequest]) -> str:
    """What the version was made to forget, and its verdict for each effect that is asked."""
    made = f"made from {lineage.parent or 'no named parent'} to forget {_some(lineage.requests)}"
    missing = {request.request_id for request in requests} - set(lineage.requests)
    if missing:
        return f"{made}, not {_some(missing)}"
    outcomes = {request.effect.value: lineage.verdict.get(request.effect.value, Outcome.INCONCLUSIVE.value) for request in requests}
    return f"{made}: unlearned, {', '.join(f'{outcome} as {effect}' for effect, outcome in sorted(outcomes.items()))}"


def _some(requests: Collection[str]) -> str:
    """The first few of the requests, and how many more there are."""
    names = sorted(requests)
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def _outputs(known: Ancestry) -> tuple[TracedOutput, ...]:
    """Outputs of stages that read what the records reached: those that are not indexed, and those whose own rows hold some."""
    data, story, found = known.story.data, known.story, []
    for md5, reach in known.reached.items():
        if md5 in data.outputs and reach.before:
            found += [TracedOutput(path=path, md5=str(md5), exact=False, why=story.tell(reach)[0]) for path in data.outputs[str(md5)]]
    ways: dict[str, tuple[Step, ...]] = {}
    for node, reach in known.reached.items():
        for edge in data.indexed.get(str(node), ()):
            if edge.to != node and story.matches.get(str(edge.to), 0):
                how = f"{edge.how}; holds {counted(story.matches[str(edge.to)])}"
                ways.setdefault(str(edge.to), (*story.tell(reach)[0], Step(kind=Hop.OUTPUT, name=story.name(edge.to), how=how)))
    found += [TracedOutput(path=path, md5=md5, exact=True, why=way) for md5, way in ways.items() for path in data.outputs[md5]]
    return tuple(sorted(found, key=lambda output: (output.path, output.md5)))


def _runs(evidence: Evidence, known: Ancestry) -> tuple[TracedRun, ...]:
    """Runs that read what the records reached and are not the making of a listed version."""
    listed = {lineage.run_id for lineage in evidence.versions}
    found: dict[str, TracedRun] = {}
    for run in sorted(evidence.runs, key=lambda run: run.run_id):
        ways = [known.reached[md5] for md5 in sorted(set(run.datasets.values())) if md5 in known.reached]
        if not ways or run.run_id in listed:
            continue
        way = min(ways, key=lambda reach: reach.length)
        path = (*known.story.tell(way)[0], Step(kind=Hop.RUN, name=run.run_id, how="read it"))
        found[run.run_id] = TracedRun(run_id=run.run_id, experiment=run.experiment, logged_models=run.logged_models, exact=way.length == 1, path=path)
    return tuple(found.values())
