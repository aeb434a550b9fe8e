"""Stage `register`: the unlearned model as a new version beside its lineage and evidence; looks first, so that repeating it changes nothing.

On the exact route training is part of the pipeline: without an open request its ensemble is registered as an ordinary trained version.
"""

from __future__ import annotations

from dataclasses import replace

from ..adapters import registration
from ..documents import decode, encode
from ..records import Evaluation, Unlearned
from ..review import describe
from .certifying import certify
from .committing import commitments
from .family_registration import of_ensemble, register_family
from .workbench import NO_REQUEST, Workbench, body

_KEPT = ("split", "validation", "unlearned", "evaluation", "verdict")


def run(bench: Workbench) -> str:
    """Write build/registered.json."""
    if bench.no_request("registered", "verdict"):
        return NO_REQUEST if bench.params.unlearn.strategy == "approximate" else register_family(bench)
    name, evidence = bench.params.model.name, _evidence(bench)
    found = registration.find(bench.registry, name, evidence)
    registered = found or registration.register(bench.registry, name, replace(evidence, commitments=commitments(bench)), bench.route / "model")
    certified = certify(bench, registered, evidence.verdicts)
    bench.write("registered", body(replace(registered, certificate=certified.digest)))
    verdicts = ", ".join(f"{effect} {outcome}" for effect, outcome in encode(registered.verdicts).items())
    return f"{registered.model} {'is registered already' if found else 'registered'}: {verdicts}; {certified.words}"


def _evidence(bench: Workbench) -> registration.Evidence:
    unlearned, evaluation = bench.value(Unlearned, "unlearned"), bench.value(Evaluation, "evaluation")
    document = decode(registration.Verdicts, {"verdicts": bench.read("verdict")["verdicts"]}, str(bench.path("verdict")))
    return registration.Evidence(
        unlearned=unlearned,
        evaluation=evaluation,
        verdicts=document.verdicts,
        description=describe(unlearned, evaluation, document.verdicts),
        documents=tuple(bench.path(kept) for kept in _KEPT),
        docs=bench.folder / "build/validation",
        **(of_ensemble(bench) if unlearned.exactness else {}),
    )
