"""What `replay` and `switch-off` do, as functions from arguments to JSON-ready documents; `plan` is in forecasting.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import ensembles
from ..errors import LedgerError, LineageError
from ..lineage import Parent
from ..records import ErasureRequest, State
from ..sisa import owner, shard_of
from ..split import union
from ..stages.attesting import attested
from ..stages.tracing import resolve_parent
from ..stages.workbench import Workbench


def replay(version: str, shards: Sequence[int]) -> dict[str, Any]:
    """Train a version's shards again and compare; see `stages.version_replay`."""
    from ..stages.version_replay import replay_version

    return replay_version(Workbench(), version, shards or None)


def switch_off(request_id: str, version: str | None = None) -> dict[str, Any]:
    """A version of the parent in which the shards that hold a request's records do not answer, within seconds: an interim measure.

    What an earlier one switched off for a request that is still open stays off: the newest such version serves all of them.

    Args:
        request_id: an open request.
        version: `models:/NAME/VERSION` or `models:/NAME@ALIAS`; None: the pinned parent, else `model.parent` of params.yaml.

    Returns:
        `request`, `requests` (all that it serves), `version` (the new one), `parent`, `off` (shards), `shards` (how many there are) and
            `signed` (in words).

    Raises:
        LedgerError: no such request, or not an open one.
        LineageError: the version holds none of its records, is no ensemble, or nobody knows what it was trained on.
        ConfigError: no shard would be left.
    """
    from ..adapters import registration

    bench = Workbench()
    request = bench.ledger.get(request_id)
    if request.state is not State.OPEN:
        raise LedgerError(f"{request_id} is {request.state}, not open: there is nothing to bridge")
    parent = _parent(bench, version)
    number = _shards(bench, parent)
    held = _held(bench, parent, number, [request, *_switched_off(bench, parent)])
    if request_id not in held:
        raise LineageError(f"{parent.model} was trained on none of the records of {request_id}; see `mlflow-unlearn trace {request_id}`")
    off = sorted(set().union(*held.values()))
    measure = registration.SwitchedOff(parent=parent, requests=tuple(sorted(held)), shards=tuple(off))
    made = registration.register_switched_off(bench.registry, bench.params.model.name, measure)
    return {
        "request": request_id,
        "requests": sorted(held),
        "version": str(made.model),
        "parent": str(parent.model),
        "off": off,
        "shards": number,
        "signed": attested(bench, made.model),
    }


def _parent(bench: Workbench, version: str | None) -> Parent:
    model = bench.params.model
    pinned = bench.ledger.pinned_parent(model.name, model.parent) if version is None else None
    return pinned or resolve_parent(bench, bench.registry.resolve(version or model.parent))


def _shards(bench: Workbench, parent: Parent) -> int:
    folder = bench.registry.files(parent.model).model
    if not ensembles.is_ensemble(folder):
        raise LineageError(f"{parent.model}: one model and no ensemble of shards, so that no part can be switched off; take its alias away instead")
    return ensembles.read(folder).shards


def _switched_off(bench: Workbench, parent: Parent) -> list[ErasureRequest]:
    """Open requests for which shards of this parent were switched off before."""
    from ..adapters.registration import INTERIM_TAG, SWITCHED_OFF
    from ..adapters.registry_entries import find

    found = find(bench.registry, bench.params.model.name, INTERIM_TAG, SWITCHED_OFF)
    named = {name for each in found if each.tags["unlearn.parent"] == str(parent.model) for name in each.tags["unlearn.request"].split(",")}
    return [request for request in bench.ledger.open() if request.request_id in named]


def _held(bench: Workbench, parent: Parent, shards: int, requests: Sequence[ErasureRequest]) -> dict[str, set[int]]:
    """Request -> the shards that hold records of it; requests without any are left out."""
    records, held = union(bench.reader.records(state) for state in parent.datasets), {}
    for request in requests:
        subjects, tags = set(request.subjects), set(request.records)
        held[request.request_id] = {shard_of(owner(record), shards) for record in records if record.subject in subjects or record.tag in tags}
    return {request: found for request, found in held.items() if found}
