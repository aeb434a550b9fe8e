"""Stage `validate`: Great Expectations decides whether the split may be used; it sees flags and counts only."""

from __future__ import annotations

from ..adapters.great_expectations import Column, run_checkpoint
from ..documents import encode
from ..errors import DataError
from ..records import Split
from ..validate import check
from .jobs import validation_job
from .workbench import NO_REQUEST, Workbench


def run(bench: Workbench) -> str:
    """Write build/validation.json and Data Docs.

    Raises:
        DataError: a rule is broken; the document and the docs say which.
    """
    docs = bench.folder / "build/validation"
    docs.mkdir(parents=True, exist_ok=True)
    if bench.no_request("validation", "split"):
        return NO_REQUEST
    split = bench.value(Split, "split")
    checks = check(validation_job(bench, split))
    results = run_checkpoint([Column(name=c.name, obeyed=c.obeyed, warn_only=c.severity == "warn") for c in checks], docs)
    refused = [result for result in results if not result.success and not result.warn_only]
    bench.write("validation", {"requests": list(split.requests), "success": not refused, "split": split.digest, "results": encode(results)})
    if refused:
        raise DataError("\n".join(f"validate: {r.name}: {r.violations} of {r.rows} rows break it; open build/validation/index.html" for r in refused))
    warned = [f"{result.violations} rows: {result.name}" for result in results if not result.success]
    return f"{len(results)} rules hold" if not warned else f"{len(results) - len(warned)} rules hold; warning: {'; '.join(warned)}"
