"""Stage `unlearn`: the pinned parent, the split and a method, to new weights."""

from __future__ import annotations

import shutil

from ..records import Split, Unlearned
from .launching import is_first, launch, launched
from .unlearning import forget, said, sweep
from .workbench import NO_REQUEST, Workbench


def run(bench: Workbench) -> str:
    """Write the weights and unlearned.json of the route; an empty folder when there is nothing to forget."""
    (bench.route / "model").mkdir(parents=True, exist_ok=True)
    if bench.no_request("unlearned", "split"):
        shutil.rmtree(bench.scratch, ignore_errors=True)
        return NO_REQUEST
    processes = bench.params.unlearn.processes
    if not launched():
        sweep(bench)
    if processes > 1 and not launched():
        launch("unlearn", processes, bench.folder)
    else:
        forget(bench, bench.value(Split, "split"))
    return said(bench.value(Unlearned, "unlearned")) if is_first() else ""
