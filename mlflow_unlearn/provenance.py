"""Where DVC outputs come from: which hold requested records, which may, and which cannot be told.

An indexed state is exact whatever it was made from: its own rows were looked up. An output that is not indexed is what its sources are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import PurePosixPath

from .closure import Edge, grounded
from .lineage import DatasetRevision, Derivation

CODE = frozenset({".cfg", ".ini", ".jl", ".py", ".pyx", ".r", ".sh", ".toml", ".yaml", ".yml"})
"""Suffixes of dependencies that are code or settings and hold no records. JSON, SQL, notebooks, folders and names without a suffix may."""

_EVERY_FIELD = attrgetter("source", "source_path", "target", "target_path", "stage")  # the order of the dataclass, in a tenth of its time
_BEYOND = "is not indexed and no stage says what it was made from"
_ROOTLESS = "is made by code alone or by a ring of stages, so that DVC names no data it began with"


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """The datasets of a trace as a graph; nodes are md5s, and `?PATH` for a dependency without one."""

    states: Mapping[str, DatasetRevision]
    paths: Mapping[str, tuple[str, ...]]
    """Node -> the paths it has in DVC's graph, sorted."""
    outputs: Mapping[str, tuple[str, ...]]
    """md5 of each output of a stage -> its paths as an output, sorted."""
    made: Mapping[str, tuple[Edge, ...]]
    """Node -> outputs made from it that are not indexed; taint runs along these."""
    indexed: Mapping[str, tuple[Edge, ...]]
    """Node -> outputs made from it that are indexed, whose own rows decide."""
    holes: Mapping[str, str]
    """Node -> why nobody can say what it holds, as what follows its name."""
    unreadable: Mapping[str, str]
    names: dict[str, str] = field(default_factory=dict)
    """Names said before."""

    def name(self, node: str) -> str:
        """A node for people: its path and the first digits of its md5."""
        if node not in self.names:
            self.names[node] = self._named(node)
        return self.names[node]

    def _named(self, node: str) -> str:
        if state := self.states.get(node):
            return f"{state.name} {node[:8]} ({', '.join(state.revisions) or 'no revision'})"
        if node.startswith("?"):
            return node[1:]
        return f"{self.paths[node][0]} {node[:8]}" if node in self.paths else f"dataset state {node[:8]}"

    def hole(self, md5: str) -> str | None:
        """Why nobody can say what a dataset state holds, by itself; None when that is known, or its sources decide."""
        if md5 in self.states or md5 in self.outputs:
            return self.holes.get(md5)
        return self.holes.get(md5) or self.unreadable.get(md5) or "is in no git revision that can be read"


def provenance(
    states: Mapping[str, DatasetRevision],
    derivations: Iterable[Derivation],
    unreadable: Mapping[str, str],
    tracked: frozenset[str] = frozenset(),
) -> Provenance:
    """Put the edges of DVC's graph, over all revisions, together with what is indexed.

    A dependency is code or settings, and holds no records, when every path it has ends in a suffix of `CODE`, it is not indexed, no stage writes it
    and DVC does not track it (`tracked`, md5s). An output is a hole, whatever else is known of it, when it is a dataset's state that could not be
    read, when it is made of code alone (its script reads what DVC does not see), or when it has no origin but itself (a stage that copies, a ring).
    """
    edges = sorted(set(derivations), key=_EVERY_FIELD)
    outputs = _paths((edge.target, edge.target_path) for edge in edges)
    sources = _paths((_source(edge), edge.source_path) for edge in edges)
    ends = [node for node in sources if node not in states and node not in outputs]
    code = {node for node in ends if node not in tracked and all(map(_is_code, sources[node]))}
    makings: dict[tuple[str, str], set[str]] = {}
    for edge in edges:
        makings.setdefault((edge.target, edge.stage), set()).add(_source(edge))
    made_of = ((target, frozenset(nodes - code)) for (target, _), nodes in makings.items())
    rooted = grounded(made_of, [*states, *(node for node in ends if node not in code)])
    holes = {md5: _ROOTLESS for md5 in outputs if md5 not in rooted} | {node: _BEYOND for node in ends if node not in code}
    holes |= {md5: reason for md5, reason in unreadable.items() if md5 in outputs or md5 in holes}
    return Provenance(
        states=states,
        paths=sources | outputs,
        outputs=outputs,
        made=_onward(edge for edge in edges if edge.target not in states),
        indexed=_onward(edge for edge in edges if edge.target in states),
        holes=holes,
        unreadable=unreadable,
    )


def _source(edge: Derivation) -> str:
    return edge.source or f"?{edge.source_path}"


def _paths(named: Iterable[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    found: dict[str, set[str]] = {}
    for node, path in named:
        found.setdefault(node, set()).add(path)
    return {node: tuple(sorted(paths)) for node, paths in found.items()}


def _is_code(path: str) -> bool:
    return PurePosixPath(path).suffix.lower() in CODE


def _onward(edges: Iterable[Derivation]) -> dict[str, tuple[Edge, ...]]:
    made: dict[str, dict[str, str]] = {}
    for edge in edges:
        made.setdefault(_source(edge), {}).setdefault(edge.target, f"made from it by {edge.stage}")
    return {node: tuple(Edge(target, how) for target, how in onward.items()) for node, onward in made.items()}
