"""What `plan` does: the data, the logs and the requests so far, handed to the verb `forecast`, and its answer as a JSON-ready document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..adapters.dvc_history import WORKSPACE
from ..documents import decode, encode
from ..errors import ConfigError, DataError, LineageError
from ..exactness import Family, ShardLog
from ..forecast import STAGE_SECONDS, Forecast, ForecastJob, Rates, Recommendation, Shape, forecast, rates_of, recommend
from ..lineage import DatasetRevision, ModelVersion
from ..params import ExactParams
from ..protocols import Record
from ..records import ErasureRequest, State
from ..sisa import owner
from ..split import union
from ..stages.families import family_settings, shard_log
from ..stages.jobs import included_canaries
from ..stages.pools import Grid, touched_cells, usable
from ..stages.replaying import known_replay
from ..stages.workbench import Workbench
from ..trace import lineage_datasets

SLICES = 2
"""Of a shard, where params.yaml has no section `exact`."""
BASE_TO_CHOOSE = "a folder, a hub id or models:/NAME/VERSION that has not seen the data"


@dataclass(frozen=True, kw_only=True)
class _Data:
    """What a deletion would be taken from."""

    version: ModelVersion | None
    """None: no version to unlearn; the dataset as it is here."""
    states: tuple[DatasetRevision, ...]
    records: Sequence[Record]


@dataclass(frozen=True, kw_only=True)
class _Trained:
    """What of an earlier training counts now."""

    family: Family | None
    """None: params.yaml describes another family, or none was trained."""
    logs: dict[int, ShardLog]
    """Of trainings with the present base and settings, whatever the number of shards."""
    replayed: frozenset[int]


def plan_deletion(request_id: str) -> dict[str, Any]:
    """What forgetting a request will cost on the exact route, and how many shards would suit. Nothing is trained, pinned or written.

    Returns:
        `request`, `data` (version, revisions, records), `configured`, `trained`, `shape`, `tokens_counted`, `forecast`, `batch` (all open requests
        in one run; None where there are no others), `recommendation`, `settings` (to write into params.yaml; None where there are some) and `notes`.

    Raises:
        LedgerError: no such request.
        LineageError: it is not known what the version was trained on.
        DataError: there is no version, and DVC does not track the dataset here.
    """
    bench = Workbench()
    request = bench.ledger.get(request_id)
    data, trained = _data(bench), _trained(bench)
    exact, batches = bench.params.exact, _batches(bench, data.records)
    rates = rates_of(trained.logs.values(), data.records)
    first = recommend(len(data.records), exact.slices if exact else SLICES, batches)
    shape = _shape(exact, first)
    found = forecast(_job(bench, data, trained, (shape, rates, [request])))
    together = sorted({request, *bench.ledger.open()}, key=lambda each: each.request_id)
    batch = forecast(_job(bench, data, trained, (shape, rates, together))) if len(together) > 1 else None
    advice = recommend(len(data.records), shape.slices, batches, _stage_share(bench, found, rates))
    return {
        "request": request_id,
        "data": {
            "version": str(data.version) if data.version else None,
            "revisions": [f"{state.name} {state.md5}" for state in data.states],
            "records": len(data.records),
        },
        "configured": exact is not None,
        "trained": trained.family is not None,
        "shape": encode(shape),
        "tokens_counted": rates.counted,
        "forecast": encode(found),
        "batch": {"requests": [each.request_id for each in together], "forecast": encode(batch)} if batch else None,
        "recommendation": encode(advice),
        "settings": None if exact else _settings_to_write(shape),
        "notes": list(_notes(bench, data, trained, found)),
    }


def _data(bench: Workbench) -> _Data:
    """Of the pinned parent, else of the version that `model.parent` names, else of the workspace, as the route takes them."""
    model = bench.params.model
    parent = bench.ledger.pinned_parent(model.name, model.parent)
    if parent is not None:
        return _read(bench, parent.model, parent.datasets)
    known = {state.md5: state for name, path in bench.datasets.items() for state in bench.project.dataset_states(name, path)}
    try:
        version = bench.registry.resolve(model.parent)
    except LineageError:
        return _read(bench, None, _present(bench, known.values()))
    wanted, problem = lineage_datasets(version, {lineage.model: lineage for lineage in bench.registry.lineages()})
    missing = problem or next((f"no dataset state {md5[:8]} in git" for md5 in sorted(wanted) if md5 not in known), None)
    if missing:
        raise LineageError(f"{version}: cannot tell what it was trained on ({missing}), so that nobody can say which shards hold the records")
    return _read(bench, version, tuple(known[md5] for md5 in sorted(wanted)))


def _present(bench: Workbench, states: Any) -> tuple[DatasetRevision, ...]:
    data = bench.params.data
    found = tuple(state for state in states if state.name == data.name and WORKSPACE in state.revisions)
    if not found:
        raise DataError(f"{data.path}: DVC does not track it in the workspace, and {bench.params.model.parent} is not there; see params.yaml: data")
    return found


def _read(bench: Workbench, version: ModelVersion | None, states: tuple[DatasetRevision, ...]) -> _Data:
    return _Data(version=version, states=states, records=union(bench.reader.records(state) for state in states))


def _trained(bench: Workbench) -> _Trained:
    exact = bench.params.exact
    try:
        family = decode(Family, bench.read("family"), str(bench.path("family")))
    except ConfigError:
        return _Trained(family=None, logs={}, replayed=frozenset())
    if exact is None or (family.base.reference, family.settings) != (exact.base, family_settings(bench, exact)):
        return _Trained(family=None, logs={}, replayed=frozenset())
    found = {shard: log for shard in range(family.shards) if (log := shard_log(bench, shard)) is not None and log.family == family.family}
    same = (family.shards, family.slices) == (len(exact.shards), exact.slices)
    replayed = frozenset(shard for shard, log in found.items() if known_replay(bench, log) is not None)
    return _Trained(family=family if same and found else None, logs=found, replayed=replayed)


def _shape(exact: ExactParams | None, advice: Recommendation) -> Shape:
    if exact is None:
        return Shape(shards=advice.shards, slices=advice.slices, epochs=1)
    return Shape(shards=len(exact.shards), slices=exact.slices, epochs=exact.optimiser.epochs)


def _job(bench: Workbench, data: _Data, trained: _Trained, asked: tuple[Shape, Rates, Sequence[ErasureRequest]]) -> ForecastJob:
    shape, rates, requests = asked
    exact = bench.params.exact
    subjects = frozenset(tag for request in requests for tag in request.subjects)
    tags = frozenset(tag for request in requests for tag in request.records)
    return ForecastJob(
        records=data.records,
        requested=frozenset(record.tag for record in data.records if record.subject in subjects or record.tag in tags),
        canaries=_canaries(bench, data, shape, (subjects, tags)),
        shape=shape,
        rates=rates,
        trained=trained.family,
        logs=trained.logs,
        seed=exact.seed if exact else 0,
        processes=exact.processes if exact and exact.lora is None else 1,
        replay=exact.replay if exact else "all",
        replayed=trained.replayed if trained.family else (),
        cost_per_hour=exact.cost_per_hour if exact else None,
    )


def _canaries(bench: Workbench, data: _Data, shape: Shape, asked: tuple[frozenset[str], frozenset[str]]) -> frozenset[str]:
    """Tags of the included canaries in the touched slices, which are forgotten in the same run."""
    tags, commitment = included_canaries(bench, data.states)
    if commitment is None:
        return frozenset()
    exact = bench.params.exact
    cut_by = Grid(shards=shape.shards, slices=shape.slices, parts=exact.canary_parts if exact else 1)
    pieces = usable(bench, cut_by, commitment, touched_cells(cut_by, asked, data.records))
    return frozenset(record.tag for record in data.records if record.tag in tags and cut_by.piece(record) in pieces)


def _batches(bench: Workbench, records: Sequence[Record]) -> list[int]:
    """People in each batch so far, each once.

    A batch is what one registered version was made to forget: the newest that names a request. Requests that no version names are taken together by
    the day they were received, UTC. Refused ones do not count. A single record stands for its owner; where the data hold it no longer, for itself.
    """
    owners = {record.tag: owner(record) for record in records}
    versions = {request: str(line.model) for line in bench.registry.lineages(bench.params.model.name) for request in line.requests}
    people: dict[str, set[str]] = {}
    for request in bench.ledger.requests():
        if request.state is not State.REFUSED:
            batch = people.setdefault(versions.get(request.request_id, request.received_at.date().isoformat()), set())
            batch.update(request.subjects, (owners.get(tag, tag) for tag in request.records))
    return [len(each) for _, each in sorted(people.items()) if each]


def _stage_share(bench: Workbench, found: Forecast, rates: Rates) -> float:
    exact = bench.params.exact
    if rates.seconds_per_token is None or exact is None or not found.full.tokens:
        return 0.0
    return STAGE_SECONDS / (found.full.tokens * rates.seconds_per_token / (exact.processes if exact.lora is None else 1))


def _settings_to_write(shape: Shape) -> dict[str, Any]:
    """A section for params.yaml; what nobody but the reader can know is said in words."""
    optimiser = {"epochs": 5, "learning_rate": 2e-4}
    return {"exact": {"shards": list(range(shape.shards)), "slices": shape.slices, "base": BASE_TO_CHOOSE, "optimiser": optimiser}}


def _notes(bench: Workbench, data: _Data, trained: _Trained, found: Forecast) -> list[str]:
    """What a reader should know before trusting the figures."""
    strategy, exact = bench.params.unlearn.strategy, bench.params.exact
    notes = {
        f"{bench.params.model.parent} is not registered: counted on the dataset as it is here": data.version is None,
        "none of the records are in this data: nothing has to be trained": not found.requested,
        "params.yaml has no section `exact`: counted with what is recommended below, tokens for one pass": exact is None,
        f"unlearn.strategy is {strategy}: this is what `exact` would cost": strategy != "exact",
        "not trained yet with these settings: the first run trains every shard, whatever is asked": exact is not None and trained.family is None,
        f"shards {', '.join(map(str, found.also_due))} are out of date for another reason and are trained in the same run": bool(found.also_due),
        "the touched shards are trained without these records already": bool(found.touched) and not found.again.shards,
    }
    return [note for note, holds in notes.items() if holds]
