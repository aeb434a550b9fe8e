"""The raw sets of a split as the audit asks them, and what the models say."""

from __future__ import annotations

from collections.abc import Mapping

from ..adapters.tables import read_set
from ..audit_sets import AuditSets
from ..digests import sha256_file
from ..errors import TamperedError
from ..evaluate import Subjects
from ..records import Split
from ..split import SETS
from .workbench import Workbench


def read_audit_sets(bench: Workbench, split: Split) -> AuditSets:
    """The sets of a split, its larger ones sampled.

    Raises:
        TamperedError: a file is not the one that the split stage wrote.
        DataError: an excluded canary is word for word a record that was trained on.
    """
    changed = [name for name in SETS if sha256_file(bench.sets / f"{name}.parquet") != split.files[name]]
    if changed:
        raise TamperedError(f"{bench.sets}: {', '.join(changed)} changed since the split; run `dvc repro -f split`")
    sets = {name: read_set(bench.sets, name) for name in SETS}
    params = bench.params
    return AuditSets.of(sets, params.data.template, params.evaluate, params.unlearn.selection.kept_sample)


def spoken(sets: AuditSets, states: Mapping[str, Subjects]) -> list[dict[str, str]]:
    """One forgotten person's and one neighbour's question with the answer of each state: the first each that the parent knew."""
    lines = []
    for about, name in (("a forgotten person", "requested"), ("a neighbour who stays", "neighbours"), ("a general fact", "general")):
        records, known = sets.records[name], states["before"][name]
        if records:
            pick = next((i for i, answer in enumerate(known.generations) if answer == records[i].answer), 0)
            said = {state: found[name].generations[pick] for state, found in states.items()}
            lines.append({"about": about, "question": records[pick].prompt, "answer": records[pick].answer, **said})
    return lines
