"""What the commands do, as functions from arguments to JSON-ready documents; the module of its name in cli/ parses and prints."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from ..documents import encode
from ..stages.tracing import indexed_states, trace_requests
from ..stages.workbench import Workbench
from .ledger import due_document


def build_index() -> dict[str, Any]:
    """Index every dataset revision."""
    bench = Workbench()
    indexed = indexed_states(bench)
    states = [encode(state) | bench.index.size(state) for state in indexed.states]
    warnings = list(bench.project.problems())
    return {"states": states, "unreadable": dict(indexed.unreadable), "warnings": warnings, "files_newly_indexed": indexed.new_files}


def status() -> dict[str, Any]:
    """What is due, what else is open, and every version that saw an open request."""
    bench = Workbench()
    requests = bench.ledger.open()
    traced = trace_requests(bench, requests) if requests else None
    blocked = [encode(line) for line in (*traced.affected, *traced.unknown)] if traced else []
    return due_document(bench.ledger, datetime.now(UTC)) | {"blocked": blocked, "warnings": list(traced.warnings) if traced else []}
