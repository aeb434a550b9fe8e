"""The deep audit: every probe sees a model that forgot nothing, says by name what it lacks, and is not run twice."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from audit_workshop import PARAMS, AuditWorkshop, Counted, retraining, workshop

from mlflow_unlearn.audit import Origin
from mlflow_unlearn.deep import DeepAudited, deep_audit, wanted
from mlflow_unlearn.deep_probes import PROBES
from mlflow_unlearn.errors import ConfigError
from mlflow_unlearn.params import EvaluateParams

DEEP = replace(PARAMS, audit="deep")
TOLD = ("two versions", "activation patching", "closer to", "swap")
"""What a perfect retrain would show too, or what needs a second model: told, and no evidence by itself."""
LACKING = {"cued", "adjacent", "multi_hop"}
"""What the workshop's data cannot give: answers of one word, and nobody of whom something stays."""


@pytest.fixture(scope="module")
def shop() -> AuditWorkshop:
    return workshop()


@pytest.fixture(scope="module")
def remembering(shop: AuditWorkshop, tmp_path_factory: pytest.TempPathFactory) -> DeepAudited:
    """A model that forgot nothing, with all that can be compared."""
    params = replace(DEEP, shadows=2)
    reference = Origin(load=Counted(shop.retrained, shop.words), digest="reference")
    making = retraining(shop, forgets=False)
    return deep_audit(shop.job(shop.parent, tmp_path_factory.mktemp("deep"), params, reference=reference, retraining=making))


def test_every_probe_ran_or_is_absent_by_name(remembering: DeepAudited) -> None:
    after = remembering.audited.after
    assert set(after.probes) | (after.absent.keys() & PROBES.keys()) == set(PROBES)
    assert after.absent.keys() & PROBES.keys() == LACKING


def test_a_model_that_forgot_nothing_betrays_itself_in_every_probe_that_is_evidence(remembering: DeepAudited) -> None:
    probes = {name: probe for name, probe in remembering.audited.after.probes.items() if name not in (*TOLD, "u-lira")}
    best = {name: max(test.auc.value for test in probe.tests) for name, probe in probes.items()}
    assert min(best.values()) > 0.6, best


def test_what_says_nothing_about_the_new_version_alone_has_no_p(remembering: DeepAudited) -> None:
    assert all(not remembering.audited.after.probes[name].tests for name in TOLD)
    notes = {name: remembering.audited.after.probes[name].note for name in TOLD}
    assert "purge the old version" in notes["two versions"]
    assert "unlearning depth 0.000" in notes["activation patching"]
    assert notes["closer to"].startswith("closer to original")
    assert "unlearning quality Q" in notes["swap"]


def test_a_curve_begins_with_the_model_itself(remembering: DeepAudited) -> None:
    curve = remembering.curves["relearned half"]
    assert curve.steps[0] == 0
    assert len(curve.steps) == len(curve.included) == len(curve.excluded) == len(curve.auc)
    assert curve.auc[0].value > 0.9


def test_without_a_reference_or_training_settings_what_needs_them_is_absent(shop: AuditWorkshop) -> None:
    names = ("activation patching", "closer to", "u-lira", "swap")
    found = deep_audit(shop.job(params=replace(DEEP, probes=names))).audited.after
    assert found.probes == {}
    assert all("params.yaml" in found.absent[name] for name in names)


def test_a_probe_that_was_run_is_not_run_again_and_other_settings_are(shop: AuditWorkshop, tmp_path: Path) -> None:
    names = ("sampled", "relearned half")
    first, again = (deep_audit(shop.job(folder=tmp_path, params=replace(DEEP, probes=names))) for _ in range(2))
    kept = list(tmp_path.glob("*.sampled.json"))
    assert again.audited.after.probes == first.audited.after.probes
    assert again.curves == first.curves
    assert len(kept) == 1
    deep_audit(shop.job(folder=tmp_path, params=replace(DEEP, probes=names, draws=21)))
    assert len(list(tmp_path.glob("*.sampled.json"))) == 2


def test_a_probe_cut_short_on_disk_is_run_again(shop: AuditWorkshop, tmp_path: Path) -> None:
    params = replace(DEEP, probes=("combined",))
    first = deep_audit(shop.job(folder=tmp_path, params=params))
    (path,) = tmp_path.glob("*.combined.json")
    path.write_text(path.read_text()[:50])
    assert deep_audit(shop.job(folder=tmp_path, params=params)).audited.after.probes == first.audited.after.probes
    assert json.loads(path.read_text())


def test_a_quick_audit_has_no_probes(shop: AuditWorkshop) -> None:
    assert wanted(PARAMS) == ()
    assert deep_audit(shop.job()).audited.after.probes == {}


def test_a_misspelt_probe_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="'sampeld' is not known; did you mean 'sampled'"):
        wanted(EvaluateParams(audit="deep", probes=("sampeld",)))
