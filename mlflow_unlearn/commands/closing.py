"""Closing an erasure request: the records leave the dataset, the canary pool is spent, the ledger remembers."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from typing import Any

from ..documents import decode
from ..errors import ConfigError, DataError
from ..records import ErasureRequest, Outcome, Registered, Split, State
from ..stages.burying import bury
from ..stages.guarding import data_files, data_paths
from ..stages.pools import pools
from ..stages.tracing import trace_requests
from ..stages.workbench import Workbench


def close_request(request_id: str) -> dict[str, Any]:
    """Close a request if a registered version passed for its effect, or if no version ever saw its records.

    Returns:
        `closed` and the `reasons`.

    Raises:
        LedgerError: no such request.
    """
    bench = Workbench()
    request = bench.ledger.get(request_id)
    if request.state is not State.OPEN:
        return {"request": request_id, "closed": False, "reasons": [f"{request_id} is {request.state}, not open"]}
    try:
        registered = decode(Registered, bench.read("registered"), str(bench.path("registered")))
    except ConfigError:
        registered = None  # nothing was registered here, or the last run had no request
    unlearned = registered is not None and request_id in registered.requests
    reason = _not_passed(bench, request, registered) if unlearned and registered else _still_held(bench, request)
    if reason:
        return {"request": request_id, "closed": False, "reasons": [reason]}
    canaries = forgotten_canaries(bench) if unlearned else frozenset()
    _refuse_absent_data(bench)
    bury(bench, request, canaries, unlearned=unlearned)
    return _close(bench, request, canaries)


def _close(bench: Workbench, request: ErasureRequest, canaries: frozenset[str]) -> dict[str, Any]:
    """Data first, then the pool, then the ledger: repeating it after a kill ends in the same state. Tombstones were made before."""
    left = _commit_retain(bench, request, canaries)
    if canaries:
        split = bench.value(Split, "split")
        for pool in pools(split):
            bench.ledger.spend_pool(pool, ",".join(split.requests), datetime.now(UTC))
    bench.ledger.close(request.request_id, canaries, datetime.now(UTC))
    if not bench.ledger.open():
        bench.ledger.release_parent(bench.params.model.name)
    shutil.rmtree(bench.scratch, ignore_errors=True)  # what the parent said about records that are gone; what is still needed is asked again
    said = f"{request.request_id} closed: {left} records left the dataset and the files beside it"
    return {"request": request.request_id, "closed": True, "records_erased": left, "reasons": [said]}


def forgotten_canaries(bench: Workbench) -> frozenset[str]:
    """Record tags of the canaries that were forgotten in the batch's run."""
    from ..adapters.tables import read_set

    return frozenset(record.tag for name in ("audit_included", "tuning_included") for record in read_set(bench.sets, name))


def _not_passed(bench: Workbench, request: ErasureRequest, registered: Registered) -> str | None:
    """Why the version made for this request does not close it; the registry is asked, not the file that names the version."""
    lineage = next((each for each in bench.registry.lineages(registered.model.name) if each.model == registered.model), None)
    if lineage is None or request.request_id not in lineage.requests:
        return f"version {registered.model} is not registered for {request.request_id}; run `dvc repro`"
    outcome = lineage.verdict.get(request.effect.value, Outcome.INCONCLUSIVE.value)
    if outcome == Outcome.PASS.value:
        return None
    asked = f"{request.request_id} asks for {request.effect}, and version {registered.model} is {outcome} for it"
    return f"{asked}; see `mlflow-unlearn gate models:/{registered.model}`"


def _still_held(bench: Workbench, request: ErasureRequest) -> str | None:
    """Why a request for which nothing was unlearned stays open: some version saw its records, or may have."""
    traced = trace_requests(bench, [request])
    versions = ", ".join(str(line.model) for line in (*traced.affected, *traced.unknown))
    if not versions:
        return None
    return (
        f"{request.request_id}: {versions} saw its records or may have, and none was unlearned for it; point model.parent at one and run `dvc repro`"
    )


def _commit_retain(bench: Workbench, request: ErasureRequest, canaries: frozenset[str]) -> int:
    from ..adapters.erasure import Erased, erase

    subjects, records = bench.ledger.erased()
    subjects, records = subjects | set(request.subjects), records | set(request.records) | canaries
    paths = data_paths(bench)
    count = sum(erase(data_files(path), Erased(schema=schema, subjects=subjects, records=records)) for path, schema in paths)
    for path, schema in paths:
        bench.project.commit_output(bench.from_root(str(path)), f"Erase {request.request_id} from {schema.dataset}")
    return count


def _refuse_absent_data(bench: Workbench) -> None:
    absent = [path for path, _ in data_paths(bench) if not path.exists()]
    if absent:
        raise DataError("\n".join(f"{path}: not in the workspace, so that nothing can be erased from it; run `dvc checkout`" for path in absent))
