"""From requests to a trace: what the `index` and `trace` stages and the commands `request add`, `trace`, `gate` and `status` share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ..adapters.dvc_history import WORKSPACE
from ..errors import DataError, LineageError
from ..lineage import DatasetRevision, ModelVersion, Parent, Relation, Trace, VersionLineage
from ..records import ErasureRequest
from ..trace import Evidence, lineage_datasets, tainted, trace, undecided
from .workbench import Workbench

_NOWHERE = "in no dataset state that is indexed: data.name, data.columns or the tag key changed since, or the data cannot be read any more"


@dataclass(frozen=True, kw_only=True)
class Indexed:
    """The record index brought up to date."""

    states: tuple[DatasetRevision, ...]
    """Every dataset revision that can be read."""
    unreadable: Mapping[str, str]
    """DVC md5 -> why; versions trained on these stay unknown."""
    new_files: int


def indexed_states(bench: Workbench) -> Indexed:
    """Index what is new in any git revision of any configured dataset.

    Raises:
        DataError: the workspace's own dataset is not what params.yaml says; older revisions are merely unreadable.
    """
    states = [state for name, path in bench.datasets.items() for state in bench.project.dataset_states(name, path)]
    updated = bench.index.update(states)
    for state in states:
        error = updated.unreadable.get(state.md5)
        if isinstance(error, DataError) and WORKSPACE in state.revisions:
            raise error
    readable = tuple(state for state in states if state.md5 not in updated.unreadable)
    return Indexed(states=readable, unreadable={md5: str(error) for md5, error in updated.unreadable.items()}, new_files=updated.new_files)


def trace_requests(bench: Workbench, requests: Sequence[ErasureRequest], versions: Sequence[VersionLineage] | None = None) -> Trace:
    """Trace over every version of every registered model, every DVC output and every run."""
    evidence = evidence_for(bench, requests, bench.registry.lineages() if versions is None else versions)
    return decided(bench, requests, trace(replace(evidence, runs=bench.registry.runs_on(tainted(evidence)))))


def evidence_for(bench: Workbench, requests: Sequence[ErasureRequest], versions: Sequence[VersionLineage]) -> Evidence:
    """What the index and DVC's graph know of the requested records and of what these versions were trained on; runs are not asked for."""
    indexed = indexed_states(bench)
    subjects, records = _tags(requests)
    derivations = bench.project.derivations()
    matches = bench.index.matches(indexed.states, subjects=subjects, records=records)
    derived = {edge.target for edge in derivations} - matches.keys()
    blind = _with_own_ids(bench) if records else frozenset()
    states = {state.md5: state for state in indexed.states if not (state.name in blind and state.md5 in derived)}
    return Evidence(
        requests=requests,
        versions=versions,
        states=states,
        matches=matches,
        holders=_holders(bench, requests, [states[md5] for md5 in matches if md5 in states]) if len(requests) > 1 else {},
        derivations=derivations,
        unreadable=indexed.unreadable,
        warnings=bench.project.problems(),
        tracked=bench.project.outputs(),
    )


def decided(bench: Workbench, requests: Sequence[ErasureRequest], traced: Trace) -> Trace:
    """The trace, with nothing clear where a requested tag could not be looked up at all."""
    subjects, records = _tags(requests)
    lost = sum(map(len, bench.index.unknown(subjects=subjects, records=records)))
    return undecided(traced, f"{lost} of the requested tags are {_NOWHERE}") if lost else traced


def _holders(bench: Workbench, requests: Sequence[ErasureRequest], hit: Sequence[DatasetRevision]) -> dict[str, frozenset[str]]:
    """DVC md5 -> the requests whose records that state holds: a version may have forgotten one request and have nothing to do with another."""
    by_tag: dict[str, set[str]] = {}
    for request in requests:
        for tag in (*request.subjects, *request.records):
            by_tag.setdefault(tag, set()).add(request.request_id)
    subjects, records = _tags(requests)
    held = bench.index.held(hit, subjects=subjects, records=records)
    return {md5: frozenset().union(*(by_tag[tag] for tag in tags)) for md5, tags in held.items()}


def _tags(requests: Sequence[ErasureRequest]) -> tuple[list[str], list[str]]:
    """Those of the people and of the single records that are asked for."""
    return sorted({tag for request in requests for tag in request.subjects}), sorted({tag for request in requests for tag in request.records})


def _with_own_ids(bench: Workbench) -> frozenset[str]:
    """Datasets whose rows go by other record ids than the main one's: a request for a record cannot be looked up there, so DVC's graph decides."""
    main = bench.schema
    return frozenset(
        name
        for name, schema in bench.schemas.items()
        if schema.record_domain != main.record_domain or (schema.columns.record is None) != (main.columns.record is None)
    )


def pinned_parent(bench: Workbench, traced: Trace) -> Trace:
    """The trace with its parent: pinned in the ledger on first use, so that a batch that grows keeps it.

    Raises:
        LineageError: what the parent was trained on is unknown.
    """
    model = bench.params.model
    parent = bench.ledger.pinned_parent(model.name, model.parent)
    if parent is None:
        version = bench.registry.resolve(model.parent)
        if any(line.model == version for line in traced.clear):
            return traced
        parent = resolve_parent(bench, version)
        bench.ledger.pin_parent(model.name, model.parent, parent)
    return replace(traced, parent=parent)


def seen_by(bench: Workbench, parent: Parent, requests: Sequence[ErasureRequest]) -> list[ErasureRequest]:
    """The requests of which the parent's data hold at least one record: only these can be forgotten from it."""
    return [r for r in requests if bench.index.matches(parent.datasets, subjects=r.subjects, records=r.records)]


def resolve_parent(bench: Workbench, version: ModelVersion) -> Parent:
    """A version with its tensor digest and every dataset revision in its closure."""
    lineages = {lineage.model: lineage for lineage in bench.registry.lineages()}
    if bench.params.unlearn.strategy == "approximate":
        _refuse_long_chain(version, lineages, bench.policy.max_serial_unlearnings)
    known = {state.md5: state for state in indexed_states(bench).states}
    wanted, problem = lineage_datasets(version, lineages)
    missing = problem or next((f"dataset state {md5[:8]} is not readable" for md5 in wanted if md5 not in known), None)
    if missing:
        raise LineageError(f"{version}: cannot tell what it was trained on ({missing}); retain would be a guess, so nothing is unlearned")
    datasets = tuple(known[md5] for md5 in sorted(wanted))
    return Parent(model=version, tensor_digest=bench.registry.tensor_digest(version), datasets=datasets)


def own_datasets(bench: Workbench, parent: Parent) -> tuple[DatasetRevision, ...]:
    """The revisions that a version, or the one it was unlearned from, was itself trained on: what its base learned from is not among them."""
    lineages = {lineage.model: lineage for lineage in bench.registry.lineages()}
    md5s: set[str] = set()
    seen: set[ModelVersion] = set()
    todo = [parent.model]
    while todo:
        model = todo.pop()
        if model in seen or model not in lineages:
            continue
        seen.add(model)
        md5s |= set(lineages[model].datasets.values())
        todo += [each.parent for each in lineages[model].ancestors if each.relation is Relation.UNLEARNED]
    return tuple(state for state in parent.datasets if state.md5 in md5s)


def _refuse_long_chain(version: ModelVersion, lineages: Mapping[ModelVersion, VersionLineage], most: int) -> None:
    """Each approximate unlearning leaves a residue that the next one inherits; after `most` in a row only training anew starts clean."""
    chain: list[ModelVersion] = []
    current: ModelVersion | None = version
    while current is not None and current in lineages and current not in chain and lineages[current].requests:
        chain.append(current)
        current = lineages[current].parent
    if len(chain) >= most:
        raise LineageError(f"{version}: unlearned {len(chain)} times in a row, the policy allows {most}; retrain without the erased records")
