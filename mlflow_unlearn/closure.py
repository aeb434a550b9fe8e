"""Walks over a graph of datasets and versions: what spreads from where, by the shortest way, and what has an origin at all.

Nodes are whatever hashes; the trace takes DVC md5s for datasets and outputs and whole numbers for versions. Every walk is a queue, never a
recursion, and linear in nodes and edges, so that chains of ten thousand versions and cycles are ordinary input.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

N = TypeVar("N", bound=Hashable)

_HEAD = 6
_TAIL = 5


class Edge(NamedTuple):
    """One way onward."""

    to: Hashable
    how: str
    """What leads there, said of the node it leads to: `fine-tuned from m/1`."""


class Reach(NamedTuple):
    """The first arrival of some bits at a node, with the way it came."""

    node: Hashable
    how: str
    bits: int
    before: Reach | None
    head: tuple[Reach, ...]
    """The first arrivals of the way, shared by everything that follows, so that long ways cost no more than short ones."""
    length: int
    """Number of nodes on the way, this one included."""

    @property
    def start(self) -> Hashable:
        """Where the way begins."""
        return self.head[0].node if self.head else self.node

    def way(self) -> tuple[Sequence[Reach], int, Sequence[Reach]]:
        """First arrivals, how many are left out, last arrivals; nothing is left out of a way of up to 12 nodes."""
        tail: list[Reach] = []
        whole = self.length <= _HEAD + _TAIL + 1
        at: Reach | None = self
        while at is not None and len(tail) < (self.length if whole else _TAIL):
            tail.append(at)
            at = at.before
        tail.reverse()
        return ((), 0, tail) if whole else (self.head, self.length - _HEAD - _TAIL, tail)


def spread(
    starts: Iterable[Hashable], onward: Callable[[Hashable], Iterable[Edge]], every: int = 1, forgotten: Mapping[Hashable, int] | None = None
) -> dict[Hashable, Reach]:
    """The shortest way to every node that something reaches: the first arrivals of `flow`, when all bits begin everywhere."""
    return flow(dict.fromkeys(starts, every), onward, forgotten)[0]


def flow(
    starts: Mapping[Hashable, int], onward: Callable[[Hashable], Iterable[Edge]], forgotten: Mapping[Hashable, int] | None = None
) -> tuple[dict[Hashable, Reach], dict[Hashable, int]]:
    """The shortest way to every node that something reaches, and all that reaches it.

    Args:
        starts: node -> what begins there, one bit for each request, in the order that decides between ways of equal length.
        onward: the edges out of a node, in that order too.
        forgotten: node -> the bits that end there. A node where nothing is left is not reached, nor is anything beyond it on that way.

    Returns:
        Node -> the first arrival of which some bit is left, and node -> every bit that is left there. Each bit passes each node once, which bounds
        the work.
    """
    ends = forgotten or {}
    first: dict[Hashable, Reach] = {}
    passed: dict[Hashable, int] = {}
    queue = deque(Reach(node, "", bits, None, (), 1) for node, bits in starts.items())
    while queue:
        reach = queue.popleft()
        node = reach.node
        seen = passed.get(node, 0)
        left = reach.bits & ~ends.get(node, 0) & ~seen
        if not left:
            continue
        passed[node] = seen | left
        first.setdefault(node, reach)
        head = (*reach.head, reach) if len(reach.head) < _HEAD else reach.head
        for edge in onward(node):
            if left & ~passed.get(edge.to, 0):
                queue.append(Reach(edge.to, edge.how, left, reach, head, reach.length + 1))
    return first, passed


def grounded(makings: Iterable[tuple[N, frozenset[N]]], origins: Iterable[N]) -> set[N]:
    """Nodes with an origin: the origins, and whatever some making made of grounded nodes alone (a least fixed point, as in Datalog).

    Args:
        makings: (what was made, everything it was made of), one a stage. A node made of nothing, of itself, or in a ring, has no origin.
        origins: nodes that need no explanation.
    """
    waiting: dict[N, list[int]] = {}
    targets, missing = [], []
    for number, (target, sources) in enumerate(makings):
        targets.append(target)
        missing.append(len(sources))
        for source in sources:
            waiting.setdefault(source, []).append(number)
    found = set(origins)
    queue = deque(found)
    while queue:
        for number in waiting.get(queue.popleft(), ()):
            missing[number] -= 1
            if not missing[number] and targets[number] not in found:
                found.add(targets[number])
                queue.append(targets[number])
    return found


def flood(starts: Iterable[N], onward: Callable[[Hashable], Iterable[Edge]]) -> dict[Hashable, N]:
    """Node -> the first of the starts that reaches it at all."""
    first: dict[Hashable, N] = {}
    for start in starts:
        waiting: list[Hashable] = [start]
        while waiting:
            node = waiting.pop()
            if node not in first:
                first[node] = start
                waiting += [edge.to for edge in onward(node) if edge.to not in first]
    return first
