"""One version and everything it was made from, without reading what is known of the other thousands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..errors import LineageError
from ..lineage import ModelVersion, VersionLineage
from .registry_descent import Origins
from .registry_references import Registered, registered


def closure(origins: Origins, model: ModelVersion, tags: Mapping[str, str] | None = None) -> tuple[VersionLineage, ...]:
    """What is known of a version, and of every registered version among its ancestors, the nearest first; with `tags` as if these were its own.

    Names of base models may mean any version, so that all of them are looked up by number, run and source; tags, runs and files are read of these
    alone.

    Raises:
        LineageError: it is not registered.
    """
    versions = registered(origins.rows.untagged(), origins.rows.aliases())
    if model not in versions.rows:
        raise LineageError(f"{model}: no such version in the registry, or it is a prompt")
    given = {} if tags is None else {(model.name, model.version): tags}
    found: dict[ModelVersion, VersionLineage] = {}
    waiting = [model]
    while waiting:
        versions = _tagged(origins, versions, waiting, given)
        found |= {lineage.model: lineage for lineage in origins.of(versions, waiting)}
        parents = dict.fromkeys(edge.parent for each in waiting for edge in found[each].ancestors)
        waiting = [parent for parent in parents if parent not in found and parent in versions.rows]
    return tuple(found.values())


def _tagged(origins: Origins, versions: Registered, models: list[ModelVersion], given: Mapping[tuple[str, str], Mapping[str, str]]) -> Registered:
    tags = {**origins.rows.tags({(model.name, model.version) for model in models}), **given}
    rows = {model: replace(versions.rows[model], tags=tags[model.name, model.version]) for model in models}
    return replace(versions, rows={**versions.rows, **rows})
