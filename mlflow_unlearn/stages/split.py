"""Stage `split`: what to forget, to keep and to compare with, from the parent's own data as DVC kept them."""

from __future__ import annotations

from ..adapters.tables import write_set
from ..digests import sha256_json
from ..records import Split, State, Trace
from ..split import SETS, Canary, SplitJob, SplitSets, split, union
from .workbench import NO_REQUEST, Workbench, body


def run(bench: Workbench) -> str:
    """Write build/raw/sets (git-ignored, never cached) and build/split.json (counts and digests)."""
    bench.sets.mkdir(parents=True, exist_ok=True)
    if bench.no_request("split", "trace"):
        return NO_REQUEST
    traced = bench.value(Trace, "trace")
    sets, canaries = _sets(bench, traced)
    files = {name: write_set(bench.sets, name, getattr(sets, name)) for name in SETS}
    rows = {name: len(getattr(sets, name)) for name in SETS} | {"dataset": len(sets.forget) + len(sets.retain)}
    effects = tuple(sorted({request.effect for request in bench.ledger.open()}))
    digest = sha256_json([files["forget"], files["retain"], files["holdout"]])
    if traced.parent is not None:
        record = Split(requests=traced.requests, parent=traced.parent, effects=effects, rows=rows, files=files, digest=digest, canaries=canaries)
        bench.write("split", body(record))
    return f"forget {rows['forget']} ({rows['requested']} requested, the rest canaries), retain {rows['retain']}, hold-out {rows['holdout']}"


def _sets(bench: Workbench, traced: Trace) -> tuple[SplitSets, dict[str, int | str | bool]]:
    data, reader = bench.params.data, bench.reader
    states = traced.parent.datasets if traced.parent else ()
    holdout, general, file = (bench.from_root(path) if path else None for path in (data.holdout, data.general, data.canaries))
    asked = [request for request in bench.ledger.requests() if request.state is not State.REFUSED]
    erased_subjects, erased_records = bench.ledger.erased()
    found, strangers = reader.canaries(file, states), reader.strangers(holdout, states)
    flips = {flip.record_id: flip for flip in found.flips} if found else {}
    job = SplitJob(
        dataset=union(reader.records(state, strangers) for state in states),
        subjects=erased_subjects | {tag for request in asked for tag in request.subjects},
        records=erased_records | {tag for request in asked for tag in request.records},
        canaries=[Canary(record=r, pool=flips[r.tag].pool, included=flips[r.tag].included) for r in (found.records if found else ())],
        holdout=reader.beside(holdout, states),
        general=reader.beside(general, states),
    )
    return split(job), {"commitment": found.commitment, "committed": found.committed} if found else {}
