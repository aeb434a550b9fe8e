"""Whether data that were added after something was forgotten bring it back, under the tag key in use and every retired one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ..digests import key_id, read_retired_keys, retired_key_file
from ..gate import Proof, Reason
from ..lineage import DatasetRevision, ModelVersion, VersionLineage
from ..records import Tombstones
from .grounding import undecided
from .workbench import Workbench


def returned(
    bench: Workbench, closure: Sequence[VersionLineage], proofs: Mapping[ModelVersion, Proof], readable: Mapping[str, DatasetRevision]
) -> list[Reason]:
    """What the index tells of them; near duplicates it cannot tell.

    Args:
        bench: the project.
        closure: a version and its ancestors.
        proofs: what is signed about them.
        readable: md5 -> dataset state, of those that are indexed; what was trained on others is unknown to the trace.

    Raises:
        UnlearnError: the ledger does not answer, or the file of a retired key is not what its name says.
    """
    states = [readable[md5] for md5 in sorted(_since(closure, proofs)) if md5 in readable]
    if not states:
        return []
    buried, path = bench.ledger.tombstones(), bench.settings.tag_key_file
    keys = {key_id(bench.key): bench.key, **read_retired_keys(path)}
    lost = [
        undecided("not_compared", f"{retired_key_file(path, identity)}: not there, and tombstones were made with this key; restore it")
        for identity in sorted(buried.keys() - keys.keys())
    ]
    back = [reason for identity in sorted(buried.keys() & keys.keys()) for reason in _found(bench, keys[identity], buried[identity], states)]
    text = f"{len(states)} dataset states were added since: erased people, records and texts were looked for, near duplicates were not"
    return [*back, *lost, Reason(answer="note", code="not_compared", text=text)]


def _found(bench: Workbench, key: bytes, buried: Tombstones, states: Sequence[DatasetRevision]) -> Iterator[Reason]:
    """What one key finds. An index belongs to its key, so that a retired one has its own, made here of these states."""
    index = bench.index if key == bench.key else bench.index_under(key)
    unreadable = index.update(states).unreadable
    for md5, error in sorted(unreadable.items()):
        yield undecided("not_compared", f"dataset state {md5[:8]}: cannot be read with a retired key, with which tombstones were made: {error}")
    here = [state for state in states if state.md5 not in unreadable]
    names = {state.md5: state.name for state in here}
    kinds = {"subjects": buried.subjects, "records": buried.records, "contents": buried.contents}
    for md5, tags in sorted(index.held(here, **{kind: sorted(each) for kind, each in kinds.items()}).items()):
        yield Reason(answer="no", code="returned", text=f"{len(tags)} erased people, records or texts are back in {names[md5]} {md5[:8]}")


def _since(closure: Sequence[VersionLineage], proofs: Mapping[ModelVersion, Proof]) -> set[str]:
    """md5s of what descendants of a certified version were trained on, and neither that version nor its ancestors."""
    lineages = {lineage.model: lineage for lineage in closure}

    def seen(model: ModelVersion) -> set[ModelVersion]:
        found, waiting = set(), [model]
        while waiting:
            if (each := waiting.pop()) not in found:
                found.add(each)
                waiting += [edge.parent for edge in lineages[each].ancestors if edge.parent in lineages] if each in lineages else []
        return found

    def data(models: set[ModelVersion]) -> set[str]:
        return {md5 for model in models if model in lineages for md5 in lineages[model].datasets.values()}

    certified = [model for model in lineages if proofs[model].kind == "certificate" and proofs[model].holds]
    ancestors = {model: seen(model) for model in lineages} if certified else {}
    return {
        md5
        for old in certified
        for model in lineages
        if model != old and old in ancestors[model]
        for md5 in set(lineages[model].datasets.values()) - data(ancestors[old])
    }
