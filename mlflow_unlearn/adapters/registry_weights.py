"""Which registered version has some weights: for runs that say from which local model they started, by its tensor digest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from ..lineage import ModelVersion
from .registry_apart import apart
from .registry_rows import VersionRow

Known = Callable[[str], Sequence[ModelVersion]]
"""Tensor digest -> the versions that are known to have these weights, the first registered first."""


@dataclass(frozen=True)
class KnownWeights:
    """Inside a server, where whoever registers a run may claim any digest: nothing is hashed to find out, and what is not known is unknown."""

    known: Known

    def version(self, digest: str, other: ModelVersion) -> ModelVersion | None:
        """The first version other than `other` with these weights."""
        return next((each for each in self.known(digest) if each != other), None)


@dataclass(frozen=True)
class HashedWeights:
    """Elsewhere, those that claim the digest first."""

    versions: Callable[[], list[VersionRow]]
    """Reads every version with its tags."""
    digest_of: Callable[[ModelVersion], str]
    digests: dict[tuple[ModelVersion, str], str | None]
    """Of versions, with their sources, that were hashed before; None where that failed."""
    found: dict[tuple[str, ModelVersion], ModelVersion | None] = field(default_factory=dict)

    def version(self, digest: str, other: ModelVersion) -> ModelVersion | None:
        """A version other than `other` with these weights."""
        if (digest, other) not in self.found:
            rows = sorted(self._rows, key=lambda row: row.tags.get("unlearn.tensor_digest") != digest)
            candidates = ((ModelVersion(name=row.name, version=row.version), row.source) for row in rows)
            self.found[digest, other] = next((each for each, source in candidates if each != other and self._digest(each, source) == digest), None)
        return self.found[digest, other]

    @cached_property
    def _rows(self) -> list[VersionRow]:
        return self.versions()

    def _digest(self, model: ModelVersion, source: str) -> str | None:
        if (model, source) not in self.digests:
            self.digests[model, source] = None
            with apart(f"{model}: its weights cannot be read"):  # each artifact store's client has errors of its own
                self.digests[model, source] = self.digest_of(model)
        return self.digests[model, source]
