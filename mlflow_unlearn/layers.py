"""A layered drawing of a graph: which column a node stands in, and in which order, so that few lines cross (Sugiyama et al. 1981)."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import TypeVar

N = TypeVar("N", bound=Hashable)

_SWEEPS = 4


def layered(nodes: Sequence[N], edges: Iterable[tuple[N, N]], first: Mapping[N, int]) -> list[list[N]]:
    """Columns from left to right, each from top to bottom.

    A node stands one column after the nearest node that leads to it. Lines then go one column on, or stay, or go back where the graph has a cycle.

    Args:
        nodes: in the order that decides between equals.
        edges: from left to right; both ends are among the nodes.
        first: column of the nodes that the drawing begins with; a node that none of them reaches stands in column 0.
    """
    after: dict[N, list[N]] = {node: [] for node in nodes}
    before: dict[N, list[N]] = {node: [] for node in nodes}
    for source, target in edges:
        after[source].append(target)
        before[target].append(source)
    columns = _columns(nodes, after, first)
    rows: list[list[N]] = [[] for _ in range(max(columns.values(), default=-1) + 1)]
    for node in nodes:
        rows[columns[node]].append(node)
    return _untangled(rows, before, after)


def _columns(nodes: Sequence[N], after: Mapping[N, Sequence[N]], first: Mapping[N, int]) -> dict[N, int]:
    columns: dict[N, int] = {}
    waiting = deque(sorted(((column, node) for node, column in first.items()), key=itemgetter(0)))
    while waiting:
        column, node = waiting.popleft()
        if column < columns.get(node, column + 1):
            columns[node] = column
            waiting.extend((column + 1, each) for each in after[node])
    return {node: columns.get(node, 0) for node in nodes}


def _untangled(rows: list[list[N]], before: Mapping[N, Sequence[N]], after: Mapping[N, Sequence[N]]) -> list[list[N]]:
    """Each column sorted by the mean place of its neighbours in the column beside it, forth and back a few times."""
    for sweep in range(_SWEEPS):
        forth = sweep % 2 == 0
        order = range(1, len(rows)) if forth else range(len(rows) - 2, -1, -1)
        for number in order:
            places = {node: place for place, node in enumerate(rows[number - 1 if forth else number + 1])}
            beside = before if forth else after
            rows[number] = _by_neighbours(rows[number], places, beside)
    return [sorted(row, key=lambda node: not (before[node] or after[node])) for row in rows]  # what stands alone stands below


def _by_neighbours(row: list[N], places: Mapping[N, int], beside: Mapping[N, Sequence[N]]) -> list[N]:
    means = {}
    for place, node in enumerate(row):
        found = [places[each] for each in beside[node] if each in places]
        means[node] = sum(found) / len(found) if found else float(place)
    return sorted(row, key=means.__getitem__)
