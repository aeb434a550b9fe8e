"""Values of lineage: from dataset revisions through DVC outputs and MLflow runs to registered versions. Frozen, standard library only.

Records and people are counts or keyed tags here. What cannot be read has a `problem`, and a problem is never "clear".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Relation(StrEnum):
    """How a version came from another one; each hands on what its parent saw."""

    UNLEARNED = "unlearned"
    FINE_TUNED = "fine-tuned"
    ADAPTER = "adapter"
    MERGED = "merged"
    QUANTISED = "quantised"
    COPIED = "copied"


class Hop(StrEnum):
    """What a step of a path is."""

    DATASET = "dataset"
    OUTPUT = "output"
    RUN = "run"
    VERSION = "version"


@dataclass(frozen=True, kw_only=True, order=True)
class ModelVersion:
    """A version in the registry (MLflow's), by name and number."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name}/{self.version}"


@dataclass(frozen=True, kw_only=True)
class DatasetRevision:
    """One state of a dataset under DVC."""

    name: str
    path: str
    """Path of the DVC output, relative to the git root."""
    md5: str
    """DVC's digest; ends in `.dir` for a directory."""
    revisions: tuple[str, ...] = ()
    """Names of git revisions (branches, tags, experiments, short commits) that hold this state, sorted."""


@dataclass(frozen=True, kw_only=True, order=True)
class Derivation:
    """One edge of DVC's graph at some revision: a stage read the source and wrote the target."""

    source: str
    """md5 of the dependency; empty when dvc.lock names none, which is then unknown."""
    source_path: str
    target: str
    """md5 of the output."""
    target_path: str
    stage: str
    """`path/to/dvc.yaml:name`, or the `.dvc` file of an import."""


@dataclass(frozen=True, kw_only=True, order=True)
class Descent:
    """One edge between versions."""

    parent: ModelVersion
    relation: Relation
    evidence: str
    """Which record says so, e.g. `tag unlearn.parent` or `base_model_name_or_path of the adapter`."""


@dataclass(frozen=True, kw_only=True)
class VersionLineage:
    """What the registry says about the making of one version."""

    model: ModelVersion
    datasets: Mapping[str, str] = field(default_factory=dict)
    """Dataset name -> DVC md5 of everything the version itself was trained on; empty when it cannot be read."""
    ancestors: tuple[Descent, ...] = ()
    """Versions it was made from; the one it was unlearned from first."""
    requests: tuple[str, ...] = ()
    verdict: Mapping[str, str] = field(default_factory=dict)
    """Effect -> outcome, for the requests this version was made to forget."""
    tensor_digest: str | None = None
    aliases: tuple[str, ...] = ()
    run_id: str | None = None
    problem: str | None = None
    adopted: bool = False
    """Whether a person stated some of it afterwards (`adopt`)."""
    certificate: str | None = None
    statement: str | None = None
    """Payload digests of its certificate and of its signed lineage, as its tags have them; nothing is verified here."""

    @property
    def parent(self) -> ModelVersion | None:
        """The version this one was made from: unlearned from, else the first that is named."""
        return self.ancestors[0].parent if self.ancestors else None


@dataclass(frozen=True, kw_only=True)
class RunLineage:
    """A run that read a dataset under DVC, registered or not."""

    run_id: str
    experiment: str
    datasets: Mapping[str, str]
    """Dataset name -> DVC md5."""
    logged_models: tuple[str, ...] = ()
    """Ids (`m-...`) of the models it logged."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One hop of the path from the requested records to what saw them."""

    kind: Hop
    name: str
    how: str
    """What leads here from the step before; for the first step, what it holds."""


@dataclass(frozen=True, kw_only=True)
class HeldRevision:
    """A dataset revision that holds requested records."""

    state: DatasetRevision
    records: int


@dataclass(frozen=True, kw_only=True)
class TracedOutput:
    """A DVC output derived from a dataset revision that holds requested records."""

    path: str
    md5: str
    exact: bool
    """True when its own rows carry record tags and were looked up; false when it is merely downstream."""
    why: tuple[Step, ...]


@dataclass(frozen=True, kw_only=True)
class TracedRun:
    """A run that read such a revision or output, and the models it logged."""

    run_id: str
    experiment: str
    logged_models: tuple[str, ...]
    exact: bool
    path: tuple[Step, ...]


@dataclass(frozen=True, kw_only=True)
class TracedVersion:
    """One line of a trace: a version and why it stands where it stands."""

    model: ModelVersion
    why: str
    records: int = 0
    exact: bool = True
    """False when a derived dataset on the path keeps no record tags, so that this is everything downstream and may be too much."""
    datasets: tuple[DatasetRevision, ...] = ()
    path: tuple[Step, ...] = ()
    signed: bool = False
    aliases: tuple[str, ...] = ()
    requests: tuple[str, ...] = ()
    """Requests this version was made to forget, as its lineage says."""


@dataclass(frozen=True, kw_only=True)
class Parent:
    """The version to be unlearned, pinned when a batch of requests is first traced."""

    model: ModelVersion
    tensor_digest: str
    datasets: tuple[DatasetRevision, ...]


@dataclass(frozen=True, kw_only=True)
class Trace:
    """Which versions saw the requested records. What cannot be read is unknown, never clear."""

    requests: tuple[str, ...]
    affected: tuple[TracedVersion, ...] = ()
    clear: tuple[TracedVersion, ...] = ()
    unknown: tuple[TracedVersion, ...] = ()
    held: tuple[HeldRevision, ...] = ()
    outputs: tuple[TracedOutput, ...] = ()
    runs: tuple[TracedRun, ...] = ()
    warnings: tuple[str, ...] = ()
    """What of the history could not be read: revisions whose data are gone, tracking files in conflict, a shallow clone."""
    parent: Parent | None = None
