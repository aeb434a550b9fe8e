"""What `trace` does: its table, its graph and its plan, as functions from arguments to JSON-ready documents."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..adapters.git_state import Git
from ..digests import write_atomically
from ..documents import encode, moment
from ..errors import ConfigError
from ..plan import plan
from ..records import Project
from ..stages.attesting import marked
from ..stages.tracing import trace_requests
from ..stages.workbench import Workbench


def trace_request(request_id: str, graph: Path | None = None) -> dict[str, Any]:
    """Trace one request over everything registered; with `graph`, also draw the paths as .dot, .svg or .html.

    Raises:
        LedgerError: no such request.
        ConfigError: another ending than these three.
    """
    bench = Workbench()
    draw = _drawing(graph) if graph else None
    lineages = bench.registry.lineages()
    traced = marked(bench, trace_requests(bench, [bench.ledger.get(request_id)], lineages), lineages)
    if graph and draw:
        write_atomically(graph, draw(traced).encode())
    drawn = {"graph": str(graph)} if graph else {}
    signed = all(line.signed for line in (*traced.affected, *traced.clear, *traced.unknown))
    return {key: value for key, value in encode(traced).items() if key != "parent"} | {"signed": signed} | drawn


def plan_request(request_id: str) -> dict[str, Any]:
    """One job a model, of this project and of those that planned the request in the same ledger; kept there for the others.

    Returns:
        `jobs` by project with the time of its trace, and `not_traced`: projects that share the ledger and have not planned this request.
    """
    bench, now = Workbench(), datetime.now(UTC)
    request, here = bench.ledger.get(request_id), this_project(bench)
    bench.ledger.enrol(here, now)
    jobs = plan(trace_requests(bench, [request]), bench.ledger.projects())
    bench.ledger.record_plan(request_id, here.name, encode(jobs), now)
    plans = bench.ledger.plans(request_id)
    missing = sorted({project.name for project in bench.ledger.projects()} - plans.keys())
    projects = [{"project": name, "traced_at": moment(at), "jobs": list(found)} for name, (at, found) in sorted(plans.items())]
    return {"request": request_id, "projects": projects, "not_traced": missing}


def this_project(bench: Workbench) -> Project:
    """What this pipeline is called in a ledger that it shares: where its repository comes from, and its folder there, so that no two are the same."""
    folder = Path(os.path.relpath(bench.folder, bench.settings.root)).as_posix()
    identity = Git(bench.settings.root).identity() or bench.settings.root.name
    return Project(
        name=identity if folder == "." else f"{identity}/{folder}",
        repository=identity,
        folder=folder,
        model=bench.params.model.name,
        dataset=bench.params.data.name,
    )


def _drawing(graph: Path) -> Any:
    from .. import graph as drawings

    kinds = {".dot": drawings.to_dot, ".svg": drawings.to_svg, ".html": drawings.to_html}
    if graph.suffix not in kinds:
        raise ConfigError(f"{graph}: expected a file name that ends in {', '.join(kinds)}")
    return kinds[graph.suffix]
