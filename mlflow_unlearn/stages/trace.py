"""Stage `trace`: which registered versions saw the records of the open requests, and the pinned parent to unlearn."""

from __future__ import annotations

from ..trace import without_batch
from .tracing import pinned_parent, trace_requests
from .workbench import NO_REQUEST, Workbench, body


def run(bench: Workbench) -> str:
    """Write build/trace.json; equal bytes when nothing changed."""
    requests = bench.ledger.open()
    if not requests:
        bench.write("trace", {"requests": []})
        return NO_REQUEST
    traced = pinned_parent(bench, without_batch(trace_requests(bench, requests), tuple(r.request_id for r in requests)))
    if traced.parent is None:
        bench.write("trace", {"requests": []})
        return f"{bench.params.model.parent} saw none of the {len(requests)} open requests' records: nothing to do"
    bench.write("trace", body(traced))
    counts = f"{len(traced.affected)} affected, {len(traced.clear)} clear, {len(traced.unknown)} unknown"
    return f"{len(requests)} open requests: {counts} versions; parent {traced.parent.model}"
