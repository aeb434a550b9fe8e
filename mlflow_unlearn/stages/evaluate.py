"""Stage `evaluate`: the parent, the unlearned model in every deployed precision and after a benign fine-tune, through the same sets."""

from __future__ import annotations

from ..digests import write_document
from ..records import Split, Unlearned
from .scoring import read_audit_sets, spoken
from .states import count_attempt, evaluation, look
from .workbench import NO_REQUEST, Workbench, body, stage_schema


def run(bench: Workbench) -> str:
    """Write build/evaluation.json (figures) and build/raw/answers.json (what the models say; git-ignored, never cached)."""
    answers = bench.folder / "build/raw/answers.json"
    if bench.no_request("evaluation", "split"):
        write_document(answers, stage_schema("answers"), {"requests": []})
        return NO_REQUEST
    split, unlearned = bench.value(Split, "split"), bench.value(Unlearned, "unlearned")
    sets = read_audit_sets(bench, split)
    attempt = count_attempt(bench, split, unlearned)
    seen = look(bench, split, unlearned, sets)
    bench.write("evaluation", body(evaluation(bench, split, attempt, seen)))
    write_document(answers, stage_schema("answers"), {"requests": list(split.requests), "spoken": spoken(sets, seen.audited.subjects)})
    states = seen.audited.subjects
    asked = sum(len(subject.answers) for subject in states["after"].values())
    return f"attempt {attempt}: {len(states)} states of the model, {asked} questions each; {len(seen.audited.after.probes)} deeper probes"
