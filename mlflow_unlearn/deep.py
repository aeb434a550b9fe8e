"""The deep audit: the quick one, and then every probe that is asked for on the unlearned model; what is done is kept and not done again."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass, field, replace
from pathlib import Path

from .audit import Audited, AuditJob, State, audit
from .deep_probes import PROBES
from .deep_subjects import Deep
from .digests import sha256_json, write_atomically
from .documents import decode, encode
from .errors import ConfigError, UnmeasurableError
from .measurements import Curve, Probe
from .params import EvaluateParams
from .protocols import Progress

FORM = 2
"""Of what is kept. Probes of form 1 lack the order of canaries behind their figures, which would still be read: they are run again."""


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What a probe found, as it is kept on disk."""

    probe: Probe
    curves: dict[str, Curve] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class DeepAudited:
    """What the deep audit found."""

    audited: Audited
    curves: dict[str, Curve]


def wanted(params: EvaluateParams) -> tuple[str, ...]:
    """Names of the probes to run; none in a quick audit.

    Raises:
        ConfigError: a probe that is not known.
    """
    if params.audit == "quick":
        return ()
    names = tuple(PROBES) if params.probes is None else params.probes
    unknown = [name for name in names if name not in PROBES]
    if unknown:
        near = difflib.get_close_matches(unknown[0], PROBES, n=1)
        hint = f"did you mean '{near[0]}'? " if near else ""
        raise ConfigError(f"params.yaml: evaluate.probes: '{unknown[0]}' is not known; {hint}known are {', '.join(PROBES)}")
    return names


def deep_audit(job: AuditJob) -> DeepAudited:
    """The quick audit and the probes that `job.params` asks for; ensembles, whose claim is exact, are not probed further.

    Raises:
        ConfigError: a probe or precision that is not known.
        UnlearnError: a model answers with what are not numbers.
    """
    names = wanted(job.params)
    seen = audit(job)
    if not names or job.model.many:
        why = "an ensemble's claim is exact: what was never learned needs no probe"
        return DeepAudited(audited=replace(seen, after=replace(seen.after, absent={**seen.after.absent, **dict.fromkeys(names, why)})), curves={})
    deep = Deep(
        job=job,
        parent=State(name="before", origin=job.parent),
        state=State(name="after", origin=job.model),
        before=seen.subjects["before"],
        after=seen.subjects["after"],
    )
    found: dict[str, Probe] = {}
    absent = dict(seen.after.absent)
    for number, name in enumerate(names, start=1):
        try:
            found[name] = _kept_or_run(deep, name)
        except UnmeasurableError as error:
            absent[name] = str(error)
        job.tell(f"probe {name}", Progress(step=number, steps=len(names)))
    deep.state.release()
    return DeepAudited(audited=replace(seen, after=replace(seen.after, probes=found, absent=absent)), curves=dict(deep.curves))


def _kept_or_run(deep: Deep, name: str) -> Probe:
    path = _path(deep, name)
    if path is not None and path.is_file():
        try:
            kept = decode(Kept, json.loads(path.read_bytes()), str(path))
        except (ValueError, ConfigError):
            path.unlink()  # cut short, or of an earlier version: run again
        else:
            deep.curves.update(kept.curves)
            return kept.probe
    before = set(deep.curves)
    probe = PROBES[name](deep)
    if path is not None:
        curves = {key: curve for key, curve in deep.curves.items() if key not in before}
        write_atomically(path, json.dumps(encode(Kept(probe=probe, curves=curves))).encode())
    return probe


def _path(deep: Deep, name: str) -> Path | None:
    """Where what a probe found is kept, under a digest of all that decides it."""
    job = deep.job
    if job.folder is None:
        return None
    asked = {each: [[r.prompt, r.answer] for r in records] for each, records in job.sets.records.items()}
    retained = [[r.tag, r.prompt, r.answer] for r in job.sets.retained]
    models = [each.digest if each else None for each in (job.parent, job.model, job.reference)]
    made = job.retraining.settings if job.retraining else None
    key = sha256_json([FORM, models, made, encode(job.params), sorted(job.measures.attacks), asked, retained, job.sets.template])
    return job.folder / f"{key[:40]}.{name.replace(' ', '_')}.json"
