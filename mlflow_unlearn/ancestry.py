"""Versions and the data they were trained on as one graph, and what spreads over it: requested records, and what cannot be read."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from .closure import Edge, Reach, flood, flow, spread
from .lineage import ModelVersion, Relation, VersionLineage
from .provenance import Provenance
from .records import ErasureRequest, Outcome
from .story import Story, descent

_WEIGHTS_ALONE = frozenset({Relation.COPIED, Relation.MERGED, Relation.QUANTISED})
"""Made from other versions' weights; data that such a step used, e.g. to calibrate, are logged like any others or the run says so."""
_GONE = "no longer registered"
_NONE: tuple[Edge, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Ancestry:
    """The graph of one trace. Nodes are md5s (see `Provenance`), whole numbers of versions, and `!MD5` for states that no graph knows."""

    story: Story
    numbers: Mapping[ModelVersion, int]
    trained: Mapping[Hashable, Sequence[Edge]]
    """Node -> versions that were trained on it."""
    descended: Mapping[Hashable, Sequence[Edge]]
    """Version -> versions made from it."""
    forgotten: Mapping[Hashable, int]
    """Version -> one bit for each request that it was made to forget and passed for."""
    every: int
    """All bits."""
    held: Mapping[str, int]
    """Indexed state -> bits of the requests whose records it holds; one that is missing here holds those of all."""

    @cached_property
    def hits(self) -> list[str]:
        """Indexed states that hold requested records, most first."""
        matches, states = self.story.matches, self.story.data.states
        return sorted((md5 for md5 in states if matches.get(md5, 0)), key=lambda md5: (-matches[md5], states[md5].name, md5))

    @cached_property
    def exact(self) -> dict[Hashable, Reach]:
        """What the records reach through data whose own rows were looked up."""
        return flow(self._starts, self._looked_up, self.forgotten)[0] if self.story.data.made else self.reached

    @property
    def reached(self) -> dict[Hashable, Reach]:
        """What the records reach, or may reach: everything downstream."""
        return self._flow[0]

    @property
    def left(self) -> dict[Hashable, int]:
        """Node -> bits of the requests whose records reach it, or may."""
        return self._flow[1]

    @cached_property
    def _flow(self) -> tuple[dict[Hashable, Reach], dict[Hashable, int]]:
        return flow(self._starts, self._onward, self.forgotten)

    @property
    def _starts(self) -> dict[Hashable, int]:
        return {md5: self.held.get(md5, self.every) for md5 in self.hits}

    @cached_property
    def seen(self) -> dict[Hashable, Reach]:
        """What the records ever reached, forgotten or not."""
        return spread(self.hits, self._onward) if self.forgotten else self.reached

    @cached_property
    def most(self) -> dict[Hashable, str]:
        """Node -> the state with the most requested records among those that ever reached it."""
        return flood(self.hits, self._onward)

    @cached_property
    def unread(self) -> dict[Hashable, Reach]:
        """What holes reach. No verdict ends these: nobody measured whether the unknown was forgotten."""
        return spread(sorted(self.story.holes, key=lambda node: (isinstance(node, str), node)), self._onward)

    def _looked_up(self, node: Hashable) -> Sequence[Edge]:
        return self.descended.get(node, _NONE) if isinstance(node, int) else self.trained.get(node, _NONE)

    def _onward(self, node: Hashable) -> Sequence[Edge]:
        if isinstance(node, int):
            return self.descended.get(node, _NONE)
        made = self.story.data.made.get(str(node), _NONE)
        return (*made, *self.trained.get(node, _NONE)) if made else self.trained.get(node, _NONE)


def ancestry(
    versions: Sequence[VersionLineage],
    requests: Sequence[ErasureRequest],
    data: Provenance,
    matches: Mapping[str, int],
    holders: Mapping[str, Collection[str]],
) -> Ancestry:
    """Put versions, already in their order, and datasets together; `holders` as `trace.Evidence` has it."""
    by_request = {request.request_id: 1 << place for place, request in enumerate(requests)}
    numbers = {lineage.model: number for number, lineage in enumerate(versions)}
    lost = sorted({edge.parent for lineage in versions for edge in lineage.ancestors} - numbers.keys())
    numbers |= {model: number for number, model in enumerate(lost, len(versions))}
    holes: dict[Hashable, str] = dict(data.holes) | {numbers[model]: _GONE for model in lost}
    trained: dict[Hashable, list[Edge]] = {}
    descended: dict[Hashable, list[Edge]] = {}
    for number, lineage in enumerate(versions):
        if reason := trouble(lineage):
            holes[number] = reason
        learned = Edge(number, "trained on it")
        for md5 in set(lineage.datasets.values()):
            trained.setdefault(_node(md5, data, holes), []).append(learned)
        for edge in lineage.ancestors:
            descended.setdefault(numbers[edge.parent], []).append(Edge(number, descent(edge.parent, edge)))
    return Ancestry(
        story=Story(data=data, models=[*numbers], holes=holes, matches=matches),
        numbers=numbers,
        trained=trained,
        descended=descended,
        forgotten={number: bits for number, lineage in enumerate(versions) if (bits := _passed(lineage, requests))},
        every=(1 << max(1, len(requests))) - 1,
        held={md5: sum(by_request[request] for request in set(found)) for md5, found in holders.items()},
    )


def trouble(lineage: VersionLineage | None) -> str | None:
    """Why it cannot be told what a version itself was trained on; None when it can."""
    if lineage is None:
        return _GONE
    if lineage.problem or lineage.datasets:
        return lineage.problem
    from_weights = lineage.ancestors and all(edge.relation in _WEIGHTS_ALONE for edge in lineage.ancestors)
    return None if from_weights else "no dataset under DVC was logged with it"


def _node(md5: str, data: Provenance, holes: dict[Hashable, str]) -> Hashable:
    """The node of a state that a version was trained on; one that nothing explains is a node of its own, where nothing else hangs on it."""
    if md5 in data.states or md5 in data.outputs or md5 in data.holes:
        return md5
    holes[f"!{md5}"] = data.hole(md5) or ""
    return f"!{md5}"


def _passed(lineage: VersionLineage, requests: Sequence[ErasureRequest]) -> int:
    """One bit for each request that the version was made to forget and passed for the effect asked; the registry's word is taken for it."""
    if not lineage.requests:
        return 0
    bits = 0
    for place, request in enumerate(requests):
        if request.request_id in lineage.requests and lineage.verdict.get(request.effect.value) == Outcome.PASS.value:
            bits |= 1 << place
    return bits
