"""What the commands do, as functions from arguments to JSON-ready documents; the module of its name in cli/ parses and prints."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from .. import config
from ..documents import decode, encode
from ..errors import ConfigError
from ..gate import gate
from ..lineage import ModelVersion
from ..policy import Policy
from ..records import Evaluation, State, Unlearned, Verdict
from ..stages.tracing import indexed_states, trace_requests
from ..stages.workbench import Workbench
from .ledger import due_document

T = TypeVar("T")


def build_index() -> dict[str, Any]:
    """Index every dataset revision."""
    bench = Workbench()
    indexed = indexed_states(bench)
    states = [encode(state) | bench.index.size(state) for state in indexed.states]
    warnings = list(bench.project.problems())
    return {"states": states, "unreadable": dict(indexed.unreadable), "warnings": warnings, "files_newly_indexed": indexed.new_files}


def gate_version(uri: str, policy: Path | None) -> dict[str, Any]:
    """The gate's answer for one version."""
    bench = Workbench()
    if policy is not None and not policy.exists():
        raise ConfigError(f"{policy}: no such policy file")
    version = bench.registry.resolve(uri)
    lineages = bench.registry.lineages()
    lineage = next(each for each in lineages if each.model == version)
    held = [request for request in bench.ledger.requests() if request.state is not State.REFUSED]
    traced = trace_requests(bench, held, lineages) if held else None
    verdicts = _judged_again(bench, version, config.load_policy(policy)) if policy else bench.registry.verdicts(version)
    decision: dict[str, Any] = encode(gate(lineage, traced, verdicts))
    return decision | {"version": str(version)}


def _judged_again(bench: Workbench, version: ModelVersion, policy: Policy) -> tuple[Verdict, ...]:
    """The registered evaluation under another policy; nothing where there is none."""
    evaluation, unlearned = _registered(bench, version, Evaluation), _registered(bench, version, Unlearned)
    if evaluation is None or unlearned is None:
        return ()
    from ..judge import judge  # scipy

    return judge(evaluation, policy, unlearned)


def _registered(bench: Workbench, version: ModelVersion, cls: type[T]) -> T | None:
    """The document of a version that is called after its type."""
    name = cls.__name__.lower()
    document = bench.registry.document(version, name)
    if document is None:
        return None
    return decode(cls, {key: value for key, value in document.items() if key != "schema"}, f"{version}: {name}.json")


def status() -> dict[str, Any]:
    """What is due, what else is open, and every version that saw an open request."""
    bench = Workbench()
    requests = bench.ledger.open()
    traced = trace_requests(bench, requests) if requests else None
    blocked = [encode(line) for line in (*traced.affected, *traced.unknown)] if traced else []
    return due_document(bench.ledger, datetime.now(UTC)) | {"blocked": blocked, "warnings": list(traced.warnings) if traced else []}
