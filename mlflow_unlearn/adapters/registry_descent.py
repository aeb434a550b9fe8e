"""From MLflow's rows to lineages: which data a version learned from, and every version it was made from.

In the order of trust: our tags (`unlearn.parent`, `unlearn.base_model`, `unlearn.base`), copies, inputs of the source run, params and the model's own
files. A logged model or run in between that is no version hands on its data and its own origins.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..lineage import Descent, ModelVersion, Relation, VersionLineage
from .registry_files import FileHints, Hint, KeptAnswers, file_hints
from .registry_references import LOGGED, Reference, Registered, copied_from, registered
from .registry_rows import (
    ADOPTED_TAG,
    BASE_MODEL_TAG,
    BASE_TAG,
    CERTIFICATE_TAG,
    DVC,
    LINEAGE_TAG,
    PROBLEM_TAG,
    RELATION_TAG,
    DatasetRow,
    LoggedModelRow,
    Rows,
    RunRow,
    VersionRow,
)

DATASET_TAG, VERDICT_TAG = "unlearn.dvc.", "unlearn.verdict."
PARENT_TAG = "unlearn.parent"
UNREADABLE = "no DVC dataset was logged with it: add mlflow.log_input(mlflow.data.from_dvc(PATH)) to its training"
UNKNOWN_BASE = "it was trained from a local model that is no registered version, and nobody knows what that one saw"
GONE = "it was made from a logged model or run that no longer exists, and nobody knows what that one saw"
NO_RUN = "its source run no longer exists"
_BARE = "with which no DVC dataset was logged"
_ANSWERED = re.compile(f"{GONE}$|{UNKNOWN_BASE}$|.* {_BARE}$")
"""Origins that nobody recorded, and that a person who was there may state (`adopt`)."""
_SHORT = re.compile(r"[^/\s:]+/\d+")
"""`NAME/VERSION`, as `unlearn.parent` is written, where `models:/NAME/VERSION` is meant."""
_STATED = frozenset({Relation.FINE_TUNED, Relation.ADAPTER, Relation.MERGED, Relation.QUANTISED})
_WITHOUT_DATA = frozenset({Relation.MERGED, Relation.QUANTISED, Relation.COPIED})
"""What is made without learning from anything new."""

ByWeights = Callable[[str, ModelVersion], ModelVersion | None]
"""(tensor digest, version to leave out) -> the registered version with these weights."""


@dataclass
class _Walk:
    """What was found on the way from one version to everything it was made from."""

    model: ModelVersion
    states: set[tuple[str, str]] = field(default_factory=set)
    descents: dict[ModelVersion, Descent] = field(default_factory=dict)
    problems: dict[str, None] = field(default_factory=dict)
    missing: set[str] = field(default_factory=set)
    """Ids of logged models (`m-...`) and runs that have to be read first."""

    def descend(self, parents: Iterable[ModelVersion], relation: Relation, evidence: str) -> None:
        """Add parents; the first word about one counts."""
        for parent in parents:
            if parent != self.model:
                self.descents.setdefault(parent, Descent(parent=parent, relation=relation, evidence=evidence))


@dataclass
class Origins:
    """The rows of a store, read as far as they are needed."""

    rows: Rows
    kept: KeptAnswers
    by_weights: ByWeights
    runs: dict[str, RunRow] = field(default_factory=dict)
    logged: dict[str, LoggedModelRow] = field(default_factory=dict)
    files: dict[str, FileHints] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)

    def lineages(self, name: str | None) -> tuple[VersionLineage, ...]:
        """What is known of every version, or of one model's, by name and number."""
        versions = registered(self.rows.versions(), self.rows.aliases())
        return self.of(versions, [model for model in versions.rows if name in (None, model.name)])

    def of(self, versions: Registered, models: Sequence[ModelVersion]) -> tuple[VersionLineage, ...]:
        """What is known of some versions, whose rows have their tags, in their order."""
        wanted = {model: versions.rows[model] for model in models}
        self._read({row.run_id for row in wanted.values() if row.run_id} | _logged_models(versions, wanted.values()))
        self._read_files(self._location(versions, row) for row in wanted.values())
        walks: dict[ModelVersion, _Walk] = {}
        while pending := [model for model in wanted if model not in walks or walks[model].missing]:
            walks |= {model: self._walk(versions, model) for model in pending}
            self._read({each for model in pending for each in walks[model].missing})
        return tuple(self._lineage(row, walks[model], versions.held.get(model, ())) for model, row in wanted.items())

    def _read(self, ids: Iterable[str]) -> None:
        """Logged models, then runs, the source runs of the new logged models included. What is not there is not asked for again."""
        new = {each for each in ids if each not in self.asked}
        found = self.rows.logged_models({each for each in new if LOGGED.fullmatch(each)})
        runs = {each for each in new if not LOGGED.fullmatch(each)} | {model.run_id for model in found.values() if model.run_id}
        self.logged |= found
        self.runs |= self.rows.runs({run for run in runs if run not in self.runs})
        self.asked |= new | runs

    def _read_files(self, locations: Iterable[str]) -> None:
        self.files |= file_hints({location for location in locations if location and location not in self.files}, self.kept)

    def _location(self, versions: Registered, row: VersionRow) -> str:
        """Where a version's files are; empty for a copy of files that lie elsewhere."""
        logged = self.logged.get(versions.logged_model(row) or "")
        return logged.location if logged else ("" if row.source.startswith("models:") else row.source)

    def _walk(self, versions: Registered, model: ModelVersion) -> _Walk:
        row, walk = versions.rows[model], _Walk(model)
        logged, run = self.logged.get(versions.logged_model(row) or ""), self.runs.get(row.run_id or "")
        self._data(row, run, walk)
        if parent := row.tags.get(PARENT_TAG):
            made = Descent(parent=_version(parent), relation=Relation.UNLEARNED, evidence=f"tag {PARENT_TAG}")
            walk.descents[made.parent] = made
        tags = (row.tags, logged.tags if logged else {}, run.tags if run else {})
        references = deque(_stated(tags, walk))
        if (copied := copied_from(row)) is not None:
            references.append(Reference(text=f"models:/{copied}", relation=Relation.COPIED, evidence="source of the copy", certain=False))
        references += _inputs(run, logged)
        references += self._hints(run, logged, self._location(versions, row), tags, walk)
        self._weights(run, walk)
        self._follow(references, versions, walk, {row.run_id, logged.model_id if logged else None})
        return walk

    def _follow(self, references: deque[Reference], versions: Registered, walk: _Walk, seen: set[str | None]) -> None:
        """Each reference to its versions; through what is no version, on to what that was made from."""
        while references:
            reference = references.popleft()
            target = versions.target(reference.text)
            node = target.logged_model or target.run
            if node is not None and node in seen:
                continue
            walk.descend(target.versions, reference.relation, reference.evidence)
            if target.problem and reference.certain:
                walk.problems[target.problem] = None
            if node is not None and not target.versions:
                seen.add(node)
                references += self._between(node, reference, walk)

    def _between(self, node: str, reference: Reference, walk: _Walk) -> list[Reference]:
        """A logged model or run that is no version: its data are data of the version too, and its origins are the version's."""
        logged = self.logged.get(node)
        run = self.runs.get((logged.run_id or "") if logged else node)
        if node not in self.asked:
            walk.missing.add(node)
            return []
        if run is None and logged is None:
            if reference.certain:
                walk.problems[GONE] = None
            return []
        learned = self._inputs_under_dvc(run, walk)
        tags = (logged.tags if logged else {}, run.tags if run else {})
        location = logged.location if logged else ""
        self._read_files([location])
        found = [*_stated(tags, walk), *_inputs(run, logged), *self._hints(run, logged, location, tags, walk)]
        self._weights(run, walk)
        if not learned and not found and BASE_TAG not in tags[-1]:
            walk.problems[f"it was made from {'a logged model' if logged else 'a run'} {_BARE}"] = None
        return found

    def _data(self, row: VersionRow, run: RunRow | None, walk: _Walk) -> None:
        """The version's tags and the dataset inputs of its source run, whose own `unlearn.dvc.` tags are a hint about its repository only."""
        tagged = {(key.removeprefix(DATASET_TAG), value) for key, value in row.tags.items() if key.startswith(DATASET_TAG)}
        walk.states |= tagged
        learned = self._inputs_under_dvc(run, walk)  # a tag adds to what the run read and never stands in for it
        if tagged or learned:
            return
        if row.run_id and run is None:
            walk.problems[NO_RUN] = None
        else:
            said = run.tags.get(PROBLEM_TAG) if run else None
            walk.problems[f"{UNREADABLE}; its training could not read its lineage: {said}" if said else UNREADABLE] = None

    def _inputs_under_dvc(self, run: RunRow | None, walk: _Walk) -> bool:
        """Take the data of a run; whether there was any, under DVC or not."""
        datasets = run.datasets if run else ()
        walk.states |= {(each.name, each.digest) for each in datasets if each.source_type == DVC}
        foreign = {each.name for each in datasets if each.source_type != DVC and _model_source(each) is None}
        if foreign:
            walk.problems[f"it also learned from {len(foreign)} datasets that are not under DVC"] = None
        return bool(foreign) or any(each.source_type == DVC for each in datasets)

    def _hints(
        self, run: RunRow | None, logged: LoggedModelRow | None, location: str, tags: Iterable[Mapping[str, str]], walk: _Walk
    ) -> list[Reference]:
        """Params and files; where a tag states the origin, a hint that leads nowhere is answered, and one that leads somewhere is followed still."""
        stated = any(key in each for each in tags for key in (PARENT_TAG, BASE_MODEL_TAG, BASE_TAG))
        files = self.files.get(location, FileHints())
        if files.problem and not stated:
            walk.problems[files.problem] = None
        found = [*_params(run.params if run else {}), *_params(logged.params if logged else {}), *map(_hinted, files.hints)]
        return [replace(each, certain=False) for each in found] if stated else found

    def _weights(self, run: RunRow | None, walk: _Walk) -> None:
        """A version trained from a local model descends from the registered version of these weights; of another, nobody knows what it saw."""
        digest = run.tags.get(BASE_TAG) if run else None
        if digest is None or any(each.relation is Relation.UNLEARNED for each in walk.descents.values()):
            return
        parent = self.by_weights(digest, walk.model)
        if parent is None:
            walk.problems[UNKNOWN_BASE] = None
        else:
            walk.descend((parent,), Relation.FINE_TUNED, "equal weights")

    def _lineage(self, row: VersionRow, walk: _Walk, aliases: tuple[str, ...]) -> VersionLineage:
        relations = {descent.relation for descent in walk.descents.values()}
        if relations and relations <= _WITHOUT_DATA and not walk.states:
            walk.problems = {each: None for each in walk.problems if each != NO_RUN and not each.startswith(UNREADABLE)}
        if ADOPTED_TAG in row.tags and BASE_MODEL_TAG in row.tags:
            walk.problems = {each: None for each in walk.problems if not _ANSWERED.match(each)}
        return VersionLineage(
            model=walk.model,
            datasets=by_name(walk.states),
            ancestors=tuple(walk.descents.values()),
            requests=tuple(filter(None, row.tags.get("unlearn.request", "").split(","))),
            verdict={key.removeprefix(VERDICT_TAG): value for key, value in row.tags.items() if key.startswith(VERDICT_TAG)},
            tensor_digest=row.tags.get("unlearn.tensor_digest"),
            aliases=aliases,
            run_id=row.run_id,
            problem="; ".join(walk.problems) or None,
            adopted=ADOPTED_TAG in row.tags,
            certificate=row.tags.get(CERTIFICATE_TAG),
            statement=row.tags.get(LINEAGE_TAG),
        )


def by_name(states: Iterable[tuple[str, str]]) -> dict[str, str]:
    """(dataset name, md5) pairs as a mapping in which no state hides another: where a name has several, `name/first digits of the md5`."""
    known = sorted(set(states))
    names = [name for name, _ in known]
    return {name if names.count(name) == 1 else f"{name}/{md5[:8]}": md5 for name, md5 in known}


def _logged_models(versions: Registered, rows: Iterable[VersionRow]) -> set[str]:
    return {logged for row in rows if (logged := versions.logged_model(row)) is not None}


def _stated(parts: Iterable[Mapping[str, str]], walk: _Walk) -> list[Reference]:
    """What `unlearn.base_model` says, wherever it was written."""
    found: list[Reference] = []
    for tags in parts:
        if BASE_MODEL_TAG not in tags:
            continue
        listed = [base.strip() for base in tags[BASE_MODEL_TAG].split(",") if base.strip()]
        bases = [f"models:/{base}" if _SHORT.fullmatch(base) else base for base in listed]
        said = tags.get(RELATION_TAG) or (Relation.MERGED if len(bases) > 1 else Relation.FINE_TUNED)
        relation = next((each for each in _STATED if each == said), None)
        if bases and relation is None:
            walk.problems[f"tag {RELATION_TAG}: expected one of {', '.join(sorted(_STATED))}"] = None
        found += [Reference(text=base, relation=relation or Relation.FINE_TUNED, evidence=f"tag {BASE_MODEL_TAG}") for base in bases]
    return found


def _inputs(run: RunRow | None, logged: LoggedModelRow | None) -> list[Reference]:
    """Models that the run read; its metrics about a model it made are inputs too, and no origin."""
    if run is None:
        return []
    own = {*run.made, *((logged.model_id,) if logged else ())}
    read = [Reference(text=each, relation=Relation.FINE_TUNED, evidence="model input of its run") for each in run.read if each not in own]
    sources = [source for each in run.datasets if (source := _model_source(each)) is not None]
    return read + [Reference(text=each, relation=Relation.FINE_TUNED, evidence="dataset input whose source is a model") for each in sources]


def _model_source(dataset: DatasetRow) -> str | None:
    """The model that a dataset input says it comes from."""
    if "models:/" not in dataset.source and LOGGED.search(dataset.source) is None:
        return None
    try:
        document = json.loads(dataset.source)
    except ValueError:
        return None
    values = [value for value in document.values() if isinstance(value, str)] if isinstance(document, dict) else []
    return next((value for value in values if value.startswith("models:/") or LOGGED.search(value)), None)


def _params(params: Mapping[str, str]) -> list[Reference]:
    found: list[Reference] = []
    for key, value in sorted(params.items()):
        checkpoint = key.endswith("resume_from_checkpoint") and value.lower() not in ("", "none", "true", "false") and ":" not in value
        text = f"./{value}" if checkpoint and not value.startswith(("/", ".")) else value
        found.append(Reference(text=text, relation=Relation.FINE_TUNED, evidence=f"param {key}"))
    return found


def _hinted(hint: Hint) -> Reference:
    relation = Relation.ADAPTER if hint.adapter else Relation.FINE_TUNED
    return Reference(text=hint.text, relation=relation, evidence=hint.evidence, certain=hint.certain)


def _version(text: str) -> ModelVersion:
    name, _, version = text.rpartition("/")
    return ModelVersion(name=name, version=version)
