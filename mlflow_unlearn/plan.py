"""The verb `plan`: from a trace to one job for each model that saw the requested records, over all projects that share the ledger."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from .lineage import ModelVersion, Trace, TracedVersion
from .records import Project

CHAMPION = "champion"


@dataclass(frozen=True, kw_only=True)
class Undecided:
    """A version of which nobody can say whether it saw the records."""

    model: ModelVersion
    why: str


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is to be done about one model."""

    model: str
    """Name in the registry."""
    requests: tuple[str, ...]
    version: ModelVersion | None = None
    """The version to unlearn; None when no version is affected, and only undecided ones are left."""
    because: str
    """Why this version."""
    others: tuple[ModelVersion, ...] = ()
    """Affected versions that stay affected when this one is unlearned: retire them, or plan again for those that are still needed."""
    forgotten_by: tuple[ModelVersion, ...] = ()
    """Clear versions that were made to forget all of these requests."""
    undecided: tuple[Undecided, ...] = ()
    repository: str = ""
    folder: str = ""
    """Where the project that unlearns this model is; both empty when no project has enrolled for it."""
    parent: str = ""
    """What `model.parent` in that project's params.yaml has to name."""
    command: str = ""
    """To be run at the root of the repository, or of the one with the training data; empty when there is nothing to run."""


def plan(traced: Trace, projects: Iterable[Project]) -> tuple[Job, ...]:
    """One job for each model with an affected or undecided version, by name.

    The version to unlearn is the affected one with the alias `champion`; else the newest that any alias points at; else the newest that was not
    itself made to forget one of these requests; else the newest. Where a clear version already forgot all of them, the job has no command.

    Args:
        traced: the trace of the requests; its versions are in the order of their numbers.
        projects: who shares the ledger; the first for a model does its job.
    """
    homes: dict[str, Project] = {}
    for project in projects:
        homes.setdefault(project.model, project)
    models = sorted({line.model.name for line in (*traced.affected, *traced.unknown)})
    affected, unknown, clear = (_by_model(lines) for lines in (traced.affected, traced.unknown, traced.clear))
    jobs = []
    for model in models:
        undecided = tuple(Undecided(model=line.model, why=line.why) for line in unknown.get(model, ()))
        job = Job(model=model, requests=traced.requests, because="no version is affected; say what the undecided learned from", undecided=undecided)
        if model in affected:
            job = _with_version(job, affected[model], clear.get(model, []), homes.get(model))
        jobs.append(job)
    return tuple(jobs)


def _by_model(lines: Iterable[TracedVersion]) -> dict[str, list[TracedVersion]]:
    found: dict[str, list[TracedVersion]] = {}
    for line in lines:
        found.setdefault(line.model.name, []).append(line)
    return found


def _with_version(job: Job, affected: Sequence[TracedVersion], clear: Sequence[TracedVersion], home: Project | None) -> Job:
    line, because = _chosen(affected, job.requests)
    forgotten_by = tuple(each.model for each in clear if set(job.requests) <= set(each.requests))
    job = replace(
        job,
        version=line.model,
        because=because,
        others=tuple(each.model for each in affected if each.model != line.model),
        forgotten_by=forgotten_by,
        parent=f"models:/{line.model}",
        repository=home.repository if home else "",
        folder=home.folder if home else "",
    )
    return job if forgotten_by else replace(job, command=_command(job.model, home))


def _chosen(affected: Sequence[TracedVersion], requests: Sequence[str]) -> tuple[TracedVersion, str]:
    for line in affected:
        if CHAMPION in line.aliases:
            return line, f"alias {CHAMPION}"
    pointed = [line for line in affected if line.aliases]
    if pointed:
        return pointed[-1], f"newest with an alias ({', '.join(pointed[-1].aliases)})"
    originals = [line for line in affected if not set(line.requests) & set(requests)]
    return (originals[-1], "newest affected") if originals else (affected[-1], "newest affected; every one was made to forget these requests")


def _command(model: str, home: Project | None) -> str:
    """What to run; a model without a project gets its pipeline first."""
    if home is None:
        return shlex.join(["mlflow-unlearn", "init", f"unlearn-{re.sub(r'[^A-Za-z0-9_.-]+', '-', model)}", "--model", model])
    return "dvc repro" if home.folder in ("", ".") else f"cd {shlex.quote(home.folder)} && dvc repro"
