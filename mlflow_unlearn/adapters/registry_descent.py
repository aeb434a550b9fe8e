"""From MLflow's rows to lineages: which data a version learned from, and every version it was made from.

In the order of trust: our tags (`unlearn.parent`, `unlearn.base_model`, `unlearn.base`), copies, inputs of the source run, params and the model's own
files. A logged model or run in between that is no version hands on its data and its own origins.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from sqlalchemy.exc import SQLAlchemyError

from ..errors import StoreError
from ..lineage import Descent, ModelVersion, Relation, VersionLineage
from .registry_apart import apart
from .registry_files import KeptAnswers, Repositories, file_hints
from .registry_hints import hinted, inputs, model_source, params_of, stated
from .registry_references import LOGGED, Reference, Registered, copied_from, registered
from .registry_rows import (
    ADOPTED_TAG,
    BASE_MODEL_TAG,
    BASE_TAG,
    CERTIFICATE_TAG,
    DVC,
    LINEAGE_TAG,
    PROBLEM_TAG,
    LoggedModelRow,
    Rows,
    RunRow,
    VersionRow,
)
from .registry_texts import FileHints

DATASET_TAG, VERDICT_TAG = "unlearn.dvc.", "unlearn.verdict."
PARENT_TAG = "unlearn.parent"
UNREADABLE = "no DVC dataset was logged with it: add mlflow.log_input(mlflow.data.from_dvc(PATH)) to its training"
UNKNOWN_BASE = "it was trained from a local model that is no registered version, and nobody knows what that one saw"
GONE = "it was made from a logged model or run that no longer exists, and nobody knows what that one saw"
NO_RUN = "its source run no longer exists"
UNFORESEEN = "its lineage cannot be worked out: look at its tags, at its run's params and dataset inputs, and at its own files"
_REFERENCES = 100
"""Origins that are followed for a version, whoever named them: a client may write any number."""
TOO_MANY = (
    f"more than {_REFERENCES} models, runs or paths are named as its origin, and the rest is not followed: "
    "register it from a run whose params and inputs name only what it was made from"
)
_BARE = "with which no DVC dataset was logged"
_ANSWERED = re.compile(f"{GONE}$|{UNKNOWN_BASE}$|.* {_BARE}$")
"""Origins that nobody recorded, and that a person who was there may state (`adopt`)."""
_WITHOUT_DATA = frozenset({Relation.MERGED, Relation.QUANTISED, Relation.COPIED})
"""What is made without learning from anything new."""
_OF_THE_STORE = (StoreError, SQLAlchemyError)
_NAMED = 10
"""As many problems of a version are put into words: a client may write any number."""

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
    repositories: Repositories | None = None
    """Where files are read; None for wherever they are."""
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
        self.files |= file_hints({location for location in locations if location and location not in self.files}, self.kept, self.repositories)

    def _location(self, versions: Registered, row: VersionRow) -> str:
        """Where a version's files are; empty for a copy of files that lie elsewhere."""
        logged = self.logged.get(versions.logged_model(row) or "")
        return logged.location if logged else ("" if row.source.startswith("models:") else row.source)

    def _walk(self, versions: Registered, model: ModelVersion) -> _Walk:
        """What goes wrong on the way is a problem of this version, and what was found until then stands."""
        walk = _Walk(model)
        with apart(f"{model}: its lineage cannot be worked out", _OF_THE_STORE) as tried:
            self._walk_back(versions, versions.rows[model], walk)
        if tried.error is not None:
            walk.problems[UNFORESEEN] = None
        return walk

    def _walk_back(self, versions: Registered, row: VersionRow, walk: _Walk) -> None:
        logged, run = self.logged.get(versions.logged_model(row) or ""), self.runs.get(row.run_id or "")
        self._data(row, run, walk)
        if parent := row.tags.get(PARENT_TAG):
            made = Descent(parent=_version(parent), relation=Relation.UNLEARNED, evidence=f"tag {PARENT_TAG}")
            walk.descents[made.parent] = made
        tags = (row.tags, logged.tags if logged else {}, run.tags if run else {})
        references = deque(stated(tags, walk.problems))
        if (copied := copied_from(row)) is not None:
            references.append(Reference(text=f"models:/{copied}", relation=Relation.COPIED, evidence="source of the copy", certain=False))
        references += inputs(run, logged)
        references += self._hints(run, logged, self._location(versions, row), tags, walk)
        self._weights(run, walk)
        self._follow(references, versions, walk, {row.run_id, logged.model_id if logged else None})

    def _follow(self, references: deque[Reference], versions: Registered, walk: _Walk, seen: set[str | None]) -> None:
        """Each reference to its versions; through what is no version, on to what that was made from."""
        followed: set[tuple[str, bool]] = set()
        while references:
            reference = references.popleft()
            if (reference.text, reference.certain) in followed:
                continue
            if len(followed) == _REFERENCES:
                walk.problems = {TOO_MANY: None, **walk.problems}  # first, since not all are put into words
                return
            followed.add((reference.text, reference.certain))
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
        found = [*stated(tags, walk.problems), *inputs(run, logged), *self._hints(run, logged, location, tags, walk)]
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
        foreign = {each.name for each in datasets if each.source_type != DVC and model_source(each) is None}
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
        found = [*params_of(run.params if run else {}), *params_of(logged.params if logged else {}), *map(hinted, files.hints)]
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
            problem=_in_words(walk.problems),
            adopted=ADOPTED_TAG in row.tags,
            certificate=row.tags.get(CERTIFICATE_TAG),
            statement=row.tags.get(LINEAGE_TAG),
        )


def by_name(states: Iterable[tuple[str, str]]) -> dict[str, str]:
    """(dataset name, md5) pairs as a mapping in which no state hides another: where a name has several, `name/first digits of the md5`."""
    known = sorted(set(states))
    states_of = Counter(name for name, _ in known)
    found: dict[str, str] = {}
    for name, md5 in known:
        key = name if states_of[name] == 1 else f"{name}/{md5[:8]}"
        while found.get(key, md5) != md5:  # whoever logs a dataset chooses its name and its digest
            key = f"{key}/{md5}"
        found[key] = md5
    return found


def _in_words(problems: Iterable[str]) -> str | None:
    """Problems as one line that any database takes; a client may have written half a letter."""
    every = list(problems)
    more = [f"and {len(every) - _NAMED} more"] if len(every) > _NAMED else []
    return "; ".join([*every[:_NAMED], *more]).encode(errors="replace").decode() or None


def _logged_models(versions: Registered, rows: Iterable[VersionRow]) -> set[str]:
    return {logged for row in rows if (logged := versions.logged_model(row)) is not None}


def _version(text: str) -> ModelVersion:
    name, _, version = text.rpartition("/")
    return ModelVersion(name=name, version=version)
