"""Stage `trace`: which registered versions saw the records of the open requests, and the pinned parent to unlearn."""

from __future__ import annotations

from dataclasses import replace

from ..trace import without_batch
from .tracing import pinned_parent, seen_by, trace_requests
from .workbench import NO_REQUEST, Workbench, body


def run(bench: Workbench) -> str:
    """Write build/trace.json; equal bytes when nothing changed. Its requests are those the parent can forget."""
    requests = bench.ledger.open()
    if not requests:
        bench.write("trace", {"requests": []})
        return NO_REQUEST
    traced = pinned_parent(bench, trace_requests(bench, requests))
    batch = seen_by(bench, traced.parent, requests) if traced.parent else []
    ids = tuple(request.request_id for request in batch)
    others = f"; {len(requests) - len(batch)} others are not in its data: see `mlflow-unlearn trace`" if len(batch) < len(requests) else ""
    if not batch:
        bench.write("trace", {"requests": []})
        return f"{bench.params.model.parent} saw none of the {len(requests)} open requests' records: nothing to forget{others}"
    bench.write("trace", body(replace(without_batch(traced, ids), requests=ids)))
    counts = f"{len(traced.affected)} affected, {len(traced.clear)} clear, {len(traced.unknown)} unknown"
    return f"{len(batch)} requests: {counts} versions; parent {traced.parent.model if traced.parent else None}{others}"
