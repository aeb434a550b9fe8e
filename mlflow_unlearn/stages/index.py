"""Stage `index`: the record index of the configured dataset, for every git revision, incrementally."""

from __future__ import annotations

from .tracing import indexed_states
from .workbench import Workbench


def run(bench: Workbench) -> str:
    """Index, write build/index.json about the current revision, say what was new. It is about data alone: `requests` is always empty."""
    indexed = indexed_states(bench)
    data = bench.params.data
    current = bench.project.current_state(data.name, bench.from_root(data.path))
    counts = bench.index.summary(current)
    bench.write("index", {"requests": [], "dataset": data.name, "path": current.path, "md5": current.md5, **counts})
    lost = f", {len(indexed.unreadable)} unreadable" if indexed.unreadable else ""
    current_size = f"{counts['records']} records of {counts['subjects']} people"
    return f"{len(indexed.states)} dataset revisions{lost}, {indexed.new_files} files newly indexed; current: {current_size}"
