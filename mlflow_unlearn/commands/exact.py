"""What the commands of the exact route do: `plan`, `replay` and `switch-off`, as functions from arguments to JSON-ready documents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from ..documents import encode
from ..errors import LineageError
from ..exactness import ShardLog
from ..forecast import Asked, ShardContent, advise, forecast
from ..lineage import Parent
from ..params import ExactParams, OptimiserParams
from ..protocols import Record
from ..records import ErasureRequest, State
from ..sisa import cut, owner, shard_of, sliced
from ..split import union
from ..stages.families import shard_log
from ..stages.jobs import canaries_of
from ..stages.pools import Grid, of_cells, touched_cells, usable
from ..stages.tracing import resolve_parent, seen_by
from ..stages.workbench import Workbench

CHARACTERS_A_TOKEN = 4
"""A rough guess, used and said before the first training."""
SUGGESTED = ExactParams(shards=tuple(range(8)), base="base", optimiser=OptimiserParams(epochs=5, learning_rate=2e-4))
"""Stands in where params.yaml has no section `exact`."""


def plan_deletion(request_id: str) -> dict[str, Any]:
    """What forgetting a request will cost on the exact route, and how many shards would suit the requests so far. Nothing is written or trained.

    Raises:
        LedgerError: no such request.
        LineageError: it is not known what `model.parent` was trained on.
    """
    bench = Workbench()
    request, params = bench.ledger.get(request_id), bench.params.exact or SUGGESTED
    parent = resolve_parent(bench, bench.registry.resolve(bench.params.model.parent))
    held = bool(seen_by(bench, parent, [request]))
    records = union(bench.reader.records(state) for state in parent.datasets)
    people = {owner(record) for record in records if record.subject in request.subjects or record.tag in request.records}
    shards, known = _contents(bench, params, _leaving(bench, parent, request, records), records)
    found = forecast(
        Asked(
            shards=shards,
            epochs=params.optimiser.epochs,
            people=len(people),
            seconds_per_token=_rate(bench, params),
            cost_per_hour=params.cost_per_hour,
        )
    )
    advice = advise(_batches(bench), len(records), params.slices, found.full_seconds)
    return {
        "request": request_id,
        "parent": str(parent.model),
        "held": held,
        "shards": len(params.shards),
        "slices": params.slices,
        "configured": bench.params.exact is not None,
        "trained": known,
        **encode(found),
        "advice": encode(advice),
    }


def replay(version: str, shards: Sequence[int]) -> dict[str, Any]:
    """Train a version's shards again and compare; see `stages.version_replay`."""
    from ..stages.version_replay import replay_version

    return replay_version(Workbench(), version, shards or None)


def switch_off(request_id: str) -> dict[str, Any]:
    """A version of the parent in which the shards that hold a request's records do not answer, within seconds: an interim measure.

    Raises:
        LedgerError: no such request.
        LineageError: the parent holds none of its records, or is no ensemble.
    """
    from .. import ensembles
    from ..adapters import registration

    bench = Workbench()
    request = bench.ledger.get(request_id)
    if request.state is not State.OPEN:
        raise LineageError(f"{request_id} is {request.state}, not open; there is nothing to bridge")
    parent = resolve_parent(bench, bench.registry.resolve(bench.params.model.parent))
    folder = bench.registry.files(parent.model).model
    if not ensembles.is_ensemble(folder):
        raise LineageError(f"{parent.model}: one model and no ensemble of shards, so that no part can be switched off; take its alias away instead")
    number = ensembles.read(folder).shards
    records = union(bench.reader.records(state) for state in parent.datasets)
    asked = [record for record in records if record.subject in request.subjects or record.tag in request.records]
    if not asked:
        raise LineageError(f"{parent.model} was trained on none of the records of {request_id}; see `mlflow-unlearn trace {request_id}`")
    shards = tuple(sorted({shard_of(owner(record), number) for record in asked}))
    made = registration.register_switched_off(
        bench.registry, bench.params.model.name, registration.SwitchedOff(parent=parent, requests=(request_id,), shards=shards)
    )
    return {"request": request_id, "version": str(made.model), "parent": str(parent.model), "off": list(shards), "shards": number}


def _leaving(bench: Workbench, parent: Parent, request: ErasureRequest, records: Sequence[Record]) -> set[str]:
    """Tags of the request's records, and of the included canaries that would be forgotten in the same run."""
    asked = (frozenset(request.subjects), frozenset(request.records))
    leaving = {record.tag for record in records if record.subject in asked[0] or record.tag in asked[1]}
    params = bench.params.exact or SUGGESTED
    cut_by = Grid(shards=len(params.shards), slices=params.slices)
    canaries, commitment = canaries_of(bench, parent, records)
    if commitment is None:
        return leaving
    cells = usable(bench, cut_by, commitment, touched_cells(cut_by, asked, records))
    return leaving | {canary.record.tag for canary in of_cells(canaries, cut_by, cells) if canary.included}


def _contents(bench: Workbench, params: ExactParams, leaving: set[str], records: Sequence[Record]) -> tuple[dict[int, ShardContent], bool]:
    """Tokens by shard and slice, and whether they are those of a training."""
    logs = _logs(bench, params)
    trained = sum(len(each.tags) for log in logs for each in log.slices)
    per_record = sum(log.slices[-1].tokens / log.slices[-1].epochs for log in logs) / trained if trained else None
    shards = {}
    for shard, piece in enumerate(cut(records, len(params.shards))):
        slices = sliced(piece, params.slices)
        shards[shard] = ShardContent(
            tokens=tuple(sum(_tokens(record, per_record) for record in part) for part in slices),
            leaving=tuple(sum(_tokens(record, per_record) for record in part if record.tag in leaving) for part in slices),
            records=tuple(sum(record.tag not in leaving for record in part) for part in slices),
        )
    return shards, bool(trained)


def _logs(bench: Workbench, params: ExactParams) -> list[ShardLog]:
    return [log for shard in params.shards if bench.params.exact and (log := shard_log(bench, shard)) is not None]


def _rate(bench: Workbench, params: ExactParams) -> float | None:
    """Seconds a token took in the last training of each shard."""
    timed = [each for log in _logs(bench, params) for each in log.slices if each.seconds]
    return sum(each.seconds for each in timed) / sum(each.tokens for each in timed) if timed else None


def _tokens(record: Record, per_record: float | None) -> int:
    return max(1, round(per_record if per_record is not None else (len(record.prompt) + len(record.answer)) / CHARACTERS_A_TOKEN))


def _batches(bench: Workbench) -> list[int]:
    """People and single records in each batch so far: requests received on one day (UTC) are taken for one batch, refused ones do not count."""
    days: Counter[str] = Counter()
    for request in bench.ledger.requests():
        if request.state is not State.REFUSED:
            days[request.received_at.date().isoformat()] += len(request.subjects) + len(request.records)
    return [people for people in days.values() if people]
