"""Stage `split`: what to forget, to keep and to compare with, from the parent's own data as DVC kept them."""

from __future__ import annotations

from ..adapters.tables import write_set
from ..digests import sha256_json
from ..errors import LineageError
from ..lineage import Trace
from ..records import Split
from ..split import SETS, split
from .jobs import split_job
from .workbench import NO_REQUEST, Workbench, body


def run(bench: Workbench) -> str:
    """Write build/raw/sets (git-ignored, never cached) and build/split.json (counts and digests)."""
    bench.sets.mkdir(parents=True, exist_ok=True)
    if bench.no_request("split", "trace"):
        return NO_REQUEST
    traced = bench.value(Trace, "trace")
    if traced.parent is None:
        raise LineageError(f"{bench.path('trace')}: it has requests and no parent; run `dvc repro -f trace`")
    job, canaries = split_job(bench, traced.parent)
    sets = split(job)
    files = {name: write_set(bench.sets, name, getattr(sets, name)) for name in SETS}
    rows = {name: len(getattr(sets, name)) for name in SETS} | {"dataset": len(sets.forget) + len(sets.retain)}
    effects = tuple(sorted({request.effect for request in bench.ledger.open()}))
    digest = sha256_json([files["forget"], files["retain"], files["holdout"]])
    record = Split(requests=traced.requests, parent=traced.parent, effects=effects, rows=rows, files=files, digest=digest, canaries=canaries)
    bench.write("split", body(record))
    return f"forget {rows['forget']} ({rows['requested']} requested, the rest canaries), retain {rows['retain']}, hold-out {rows['holdout']}"
