"""Closing an erasure request: the records leave the dataset, the canary pool is spent, the ledger remembers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .documents import decode
from .errors import ConfigError
from .records import ErasureRequest, Outcome, Registered, Split, State
from .stages.workbench import Workbench


def close_request(request_id: str) -> dict[str, Any]:
    """Close a request if a registered version passed for its effect; every step may be repeated after a kill.

    Returns:
        `closed` and the `reasons`.

    Raises:
        LedgerError: no such request.
    """
    bench = Workbench()
    request = bench.ledger.get(request_id)
    if request.state is not State.OPEN:
        return {"request": request_id, "closed": False, "reasons": [f"{request_id} is {request.state}, not open"]}
    reason = _why_not(bench, request)
    if reason:
        return {"request": request_id, "closed": False, "reasons": [reason]}
    canaries = forgotten_canaries(bench)
    left = _commit_retain(bench, request, canaries)
    split = bench.value(Split, "split")
    if split.canaries:
        bench.ledger.spend_pool(str(split.canaries["commitment"]), ",".join(split.requests), datetime.now(UTC))
    bench.ledger.close(request_id, canaries, datetime.now(UTC))
    if not bench.ledger.open():
        bench.ledger.release_parent(bench.params.model.name)
    return {"request": request_id, "closed": True, "records_erased": left, "reasons": [f"{request_id} closed: {left} records left the dataset"]}


def forgotten_canaries(bench: Workbench) -> frozenset[str]:
    """Record tags of the canaries that were forgotten in the batch's run."""
    from .adapters.tables import read_set

    return frozenset(record.tag for name in ("audit_included", "tuning_included") for record in read_set(bench.sets, name))


def _why_not(bench: Workbench, request: ErasureRequest) -> str | None:
    try:
        document = bench.read("registered")
    except ConfigError:
        document = {"requests": []}
    if request.request_id not in document["requests"]:
        return f"no registered version was made for {request.request_id}; run `dvc repro` first"
    registered = decode(Registered, document, str(bench.path("registered")))
    outcome = registered.verdicts.get(request.effect.value, Outcome.INCONCLUSIVE)
    if outcome is Outcome.PASS:
        return None
    asked = f"{request.request_id} asks for {request.effect}, and version {registered.model} is {outcome} for it"
    return f"{asked}; see `mlflow-unlearn gate models:/{registered.model}`"


def _commit_retain(bench: Workbench, request: ErasureRequest, canaries: frozenset[str]) -> int:
    from .adapters.erasure import Erased, erase

    data = bench.params.data
    subjects, records = bench.ledger.erased()
    gone = Erased(
        schema=bench.schema,
        subjects=subjects | set(request.subjects),
        records=records | set(request.records) | canaries,
    )
    count = erase(_files(bench.folder / data.path), gone)
    bench.project.commit_output(bench.from_root(data.path), f"Erase {request.request_id} from {data.name}")
    return count


def _files(path: Path) -> Sequence[Path]:
    return sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
