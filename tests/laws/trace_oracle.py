"""Where every version belongs, by walking each path backwards on its own; shares no walk with what it judges."""

from __future__ import annotations

from collections.abc import Iterator

from mlflow_unlearn.lineage import Derivation, ModelVersion, Relation
from mlflow_unlearn.records import ErasureRequest
from mlflow_unlearn.trace import Evidence

WEIGHTS_ALONE = {Relation.COPIED, Relation.MERGED, Relation.QUANTISED}


class Oracle:
    """Every path from a version back to where it ends, by brute force."""

    def __init__(self, given: Evidence) -> None:
        self.given = given
        self.lineages = {lineage.model: lineage for lineage in given.versions}

    def stages(self, md5: str) -> list[list[Derivation]]:
        into = [edge for edge in self.given.derivations if edge.target == md5]
        return [[edge for edge in into if edge.stage == stage] for stage in sorted({edge.stage for edge in into})]

    def is_code(self, edge: Derivation) -> bool:
        paths = {each.source_path for each in self.given.derivations if each.source == edge.source}
        return edge.source not in self.given.states and not self.stages(edge.source) and all(path.endswith(".py") for path in paths)

    def explained(self, md5: str, above: frozenset[str] = frozenset()) -> bool:
        """Whether some tree of stages ends in data and never meets the same bytes twice on one branch."""
        if md5 in self.given.states or not self.stages(md5):
            return True
        trees = [[edge.source for edge in stage if not self.is_code(edge)] for stage in self.stages(md5)]
        return any(tree and all(each not in above | {md5} and self.explained(each, above | {md5}) for each in tree) for tree in trees)

    def ends(self, node: str | ModelVersion, path: tuple[str | ModelVersion, ...] = ()) -> Iterator[tuple[str, tuple[str | ModelVersion, ...]]]:
        """(hit, clean or hole; the nodes from the version to there)."""
        if node in path:
            return
        path = (*path, node)
        if isinstance(node, ModelVersion):
            yield from self._ends_of_version(node, path)
        elif node in self.given.states:
            yield ("hit" if self.given.matches.get(node, 0) else "clean"), path
        elif not self.stages(node) or not self.explained(node) or node in self.given.unreadable:
            yield "hole", path
            yield from self._ends_of_output(node, path)
        else:
            yield from self._ends_of_output(node, path)

    def _ends_of_output(self, md5: str, path: tuple[str | ModelVersion, ...]) -> Iterator[tuple[str, tuple[str | ModelVersion, ...]]]:
        for edge in (edge for stage in self.stages(md5) for edge in stage if not self.is_code(edge)):
            yield from self.ends(edge.source, path)

    def _ends_of_version(self, model: ModelVersion, path: tuple[str | ModelVersion, ...]) -> Iterator[tuple[str, tuple[str | ModelVersion, ...]]]:
        lineage = self.lineages.get(model)
        if lineage is None:
            yield "hole", path
            return
        told = lineage.datasets or (lineage.ancestors and {edge.relation for edge in lineage.ancestors} <= WEIGHTS_ALONE)
        if lineage.problem or not told:
            yield "hole", path
        for node in (*lineage.datasets.values(), *(edge.parent for edge in lineage.ancestors)):
            yield from self.ends(node, path)

    def forgot(self, model: ModelVersion, request: ErasureRequest) -> bool:
        lineage = self.lineages[model]
        return request.request_id in lineage.requests and lineage.verdict[request.effect.value] == "PASS"

    def place(self, model: ModelVersion) -> tuple[str, bool]:
        """Where the version belongs, and whether that is exact."""
        ends = list(self.ends(model))
        hits = [path for end, path in ends if end == "hit"]
        kept = [
            path for path in hits for request in self.given.requests if not any(self.forgot(n, request) for n in path if isinstance(n, ModelVersion))
        ]
        if kept:
            return "affected", any(all(isinstance(node, ModelVersion) for node in path[:-1]) for path in kept)
        return ("unknown" if any(end == "hole" for end, _ in ends) else "clear"), True
