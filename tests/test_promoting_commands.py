"""Promotions, refusals, approvals, overrides and their history, loading, and the deployment jobs of docs/ci, on a real registry."""

from __future__ import annotations

import base64
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from deployed import FORGOT, TRAINED, World, _built, asked_template, world  # noqa: F401 - fixtures
from ruamel.yaml import YAML
from simulated import evaluated, model

import mlflow_unlearn
from mlflow_unlearn import signing_keys
from mlflow_unlearn.adapters import registry_aliases
from mlflow_unlearn.adapters.statements import Statements
from mlflow_unlearn.commands.gating import gate_version
from mlflow_unlearn.commands.promoting import history, promote, review, who
from mlflow_unlearn.commands.signing_keys import Owner, Wanted, add_key, new_key, revoke_key, trust_policy
from mlflow_unlearn.dsse import countersign
from mlflow_unlearn.errors import ConfigError, GateError, LedgerError, LineageError
from mlflow_unlearn.lineage import ModelVersion
from mlflow_unlearn.stages import gating
from mlflow_unlearn.statements import ReviewKind, Role

CI = Path(__file__).parents[1] / "docs/ci"


def policy(world: World, old: str, new: str) -> None:  # noqa: F811
    """Change policy.yaml, and have the owner stand for it."""
    path = world.root / "unlearn/policy.yaml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    trust_policy(Owner(reference="owner"))


def enforced(world: World, how: str) -> None:  # noqa: F811
    policy(world, "{default: observe}", f"{{default: observe, m: {how}}}")


def champion(world: World) -> ModelVersion | None:  # noqa: F811
    return registry_aliases.holder(world.bench.registry, "m", "champion")


def sign(holder: str, kind: ReviewKind, reason: str, monkeypatch: pytest.MonkeyPatch, version: str = "m/2") -> dict[str, Any]:
    monkeypatch.setenv("MLFLOW_UNLEARN_SIGNER", holder)
    return review(f"models:/{version}", "champion", kind, reason)


def test_what_is_enforced_decides_what_a_no_does_and_the_ledger_says_all(world, monkeypatch):  # noqa: F811
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ci-bot")
    assert [promote(f"models:/{each}", "champion")["promoted"] for each in (FORGOT, TRAINED)] == [True, True]
    assert champion(world) == TRAINED
    enforced(world, "enforce")
    assert promote("models:/m/2", "champion")["replaced"] == "1"
    refused = promote("models:/m/1", "champion")
    assert (refused["promoted"], refused["answer"], champion(world)) == (False, "no", FORGOT)
    told = [(each["version"], each["replaced"], each["granted"], each["answer"], each["enforcement"]) for each in history("models:/m")["promotions"]]
    assert told == [
        ("m/2", None, True, "yes", "observe"),
        ("m/1", "2", True, "no", "observe"),
        ("m/2", "1", True, "yes", "enforce"),
        ("m/1", "2", False, "no", "enforce"),
    ]
    assert {each["by"] for each in history()["promotions"]} == {"ci-bot"}
    assert all(set(each["evidence"]) and each["codes"] for each in history()["promotions"])
    assert world.bench.ledger.verify() == ()


def test_the_same_promotion_again_changes_nothing(world):  # noqa: F811
    assert [promote("models:/m/2", "champion")["already"] for _ in range(2)] == [False, True]
    assert len(history()["promotions"]) == 1


@pytest.mark.parametrize("named", ["foo", "models:/foo", "models:/foo/1", "models:/foo@champion"])
def test_the_history_of_no_model_is_refused_as_the_gate_refuses_it(world, named):  # noqa: F811
    with pytest.raises(LineageError, match="no registered model called foo; there are: m"):
        history(named)


def test_a_model_without_promotions_has_an_empty_history_and_one_that_is_gone_keeps_its_own(world):  # noqa: F811
    assert [history(each)["promotions"] for each in ("m", "models:/m", "models:/m@champion")] == [[], [], []]
    promote("models:/m/2", "champion")
    world.bench.registry.client.delete_registered_model("m")
    assert [each["version"] for each in history("models:/m/2")["promotions"]] == ["m/2"]


def test_of_two_at_once_one_is_refused_in_words(world, monkeypatch):  # noqa: F811
    def slow(bench, question, now=None):
        registry_aliases.point(bench.registry, TRAINED, "champion", None)
        return gating.answer(bench, question, now)

    monkeypatch.setattr("mlflow_unlearn.commands.promoting.answer", slow)
    with pytest.raises(ConfigError, match="m@champion was moved from nothing to 1 meanwhile; look, and ask again"):
        promote("models:/m/2", "champion")
    assert (champion(world), history()["promotions"]) == (TRAINED, [])


def test_a_request_that_comes_in_while_the_gate_looks_is_heeded(world, monkeypatch):  # noqa: F811
    asked: list[str] = []

    def slow(bench, question, now=None):
        found = gating.answer(bench, question, now)
        asked.append(asked[0] if asked else world.ask("cy"))
        return found

    enforced(world, "enforce")
    monkeypatch.setattr("mlflow_unlearn.commands.promoting.answer", slow)
    done = promote("models:/m/2", "champion")
    assert (done["promoted"], done["codes"], len(asked), champion(world)) == (False, ["affected", "due"], 2, None)


def test_the_evidence_names_the_head_that_was_looked_at_and_a_ledger_that_never_rests_is_said(world, monkeypatch):  # noqa: F811
    head = world.bench.ledger.head()
    assert head.digest in promote("models:/m/2", "champion")["evidence"]

    def slow(bench, question, now=None):
        found = gating.answer(bench, question, now)
        bench.ledger.spend_pool(f"pool-{bench.ledger.head().number}", "er-1", found.evidence.now)
        return found

    monkeypatch.setattr("mlflow_unlearn.commands.promoting.answer", slow)
    with pytest.raises(LedgerError, match="others wrote in the ledger each of 5 times while the gate looked; nothing was changed"):
        promote("models:/m/1", "champion")
    assert champion(world) == FORGOT


@pytest.mark.parametrize(
    ("uri", "alias", "said"), [("models:/m@champion", "a", "name the version"), ("models:/m/2", "v1", "takes no alias of this name")]
)
def test_what_is_no_version_or_no_alias_is_refused(world, uri, alias, said):  # noqa: F811
    with pytest.raises(ConfigError, match=said):
        promote(uri, alias)


def test_who_asks_is_what_they_call_themselves(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_USERNAME", raising=False)
    monkeypatch.setenv("LOGNAME", "somebody")
    assert who() == "somebody"
    monkeypatch.setattr("getpass.getuser", lambda: {}["no such user"])
    assert who() == f"uid-{os.getuid()}"


def test_two_people_have_to_approve_and_a_signer_is_none_of_them(world, monkeypatch):  # noqa: F811
    policy(world, "approvals: 0", "approvals: 2")
    enforced(world, "enforce")
    assert promote("models:/m/2", "champion")["answer"] == "undecided"
    for holder in ("rae", "rae", "sol"):
        assert sign(holder, ReviewKind.APPROVAL, "reviewed", monkeypatch)["by"] == holder
    done = promote("models:/m/2", "champion")
    assert (done["promoted"], done["codes"]) == (True, ["signed", "passed", "clear", "approved"])
    assert gate_version("models:/m/2", alias="staging")["codes"] == ["approvals"]
    with pytest.raises(ConfigError, match=r"signer ci: key .* is not trusted as reviewer"):
        sign("ci", ReviewKind.APPROVAL, "reviewed", monkeypatch)


def test_whose_evaluator_key_ended_still_reviews_nothing_that_it_signed(world, monkeypatch):  # noqa: F811
    policy(world, "approvals: 0", "approvals: 1")
    keys = world.bench.settings.key_folder
    new_key(Wanted(holder="eva", roles=(Role.EVALUATOR,)), Owner(reference="owner"))
    kept = Statements(world.bench.registry)
    kept.keep_certificate(FORGOT, countersign(kept.certificate(FORGOT), signing_keys.signer("eva", keys)))
    revoke_key("eva", "superseded", Owner(reference="owner"))
    second = signing_keys.create(keys, "eva2", signing_keys.from_environment)
    add_key(second.public.hex(), Wanted(holder="eva", roles=(Role.REVIEWER,)), Owner(reference="owner"))
    with pytest.raises(LineageError, match="eva signed its certificate, and nobody reviews what he or she signed"):
        sign("eva2", ReviewKind.APPROVAL, "reviewed", monkeypatch)
    sign("rae", ReviewKind.APPROVAL, "reviewed", monkeypatch)
    assert gate_version("models:/m/2", alias="champion")["answer"] == "yes"


def inconclusive(world: World) -> ModelVersion:  # noqa: F811
    """A version about which the evaluation could not decide: a parent that knew nothing is no control."""
    request = world.bench.registry.closure(FORGOT)[0].requests[0]
    made = world.forgotten(TRAINED, request, weights=5.0)
    ignorant = model(forgotten=0.0, seed=1)
    said = world.said(made, TRAINED, request, evaluation=evaluated(ignorant, model(forgotten=0.0, seed=2), model(forgotten=0.0, seed=3)))
    world.keep(made, said)
    return made


def test_an_override_is_signed_for_a_reason_and_for_what_could_not_be_decided_alone(world, monkeypatch):  # noqa: F811
    made = inconclusive(world)
    assert gate_version(f"models:/{made}", alias="champion")["codes"] == ["inconclusive"]
    with pytest.raises(ConfigError, match=r"policy.yaml allows none \(gate.override\)"):
        sign("rae", ReviewKind.OVERRIDE, "safety", monkeypatch, str(made))
    policy(world, "override: false", "override: true")
    sign("rae", ReviewKind.OVERRIDE, "safety", monkeypatch, str(made))
    found = gate_version(f"models:/{made}", alias="champion")
    assert (found["answer"], "removal INCONCLUSIVE, overridden for champion by rae: safety" in found["notes"]) == ("yes", True)
    with pytest.raises(LineageError, match=r"only an INCONCLUSIVE verdict can be overridden \(removal PASS"):
        sign("rae", ReviewKind.OVERRIDE, "safety", monkeypatch)
    with pytest.raises(LedgerError, match="expected one of legal_obligation"):
        sign("rae", ReviewKind.OVERRIDE, "because", monkeypatch)


def test_nothing_signed_is_nothing_to_review(world, monkeypatch):  # noqa: F811
    bare = world.version(6.0, world.state())
    with pytest.raises(LineageError, match=f"{bare}: nothing is signed that could be reviewed"):
        sign("rae", ReviewKind.APPROVAL, "reviewed", monkeypatch, str(bare))


def test_a_verified_model_is_loaded_and_a_refused_one_as_enforced(world, recwarn, monkeypatch):  # noqa: F811
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    registry_aliases.point(world.bench.registry, FORGOT, "champion", None)
    assert mlflow_unlearn.load_model("models:/m@champion", enforcement="enforce").predict([0, 0]) == [2.0, 2.0]
    assert mlflow_unlearn.load_model("models:/m/1").predict([0]) == [1.0]
    with pytest.warns(UserWarning, match="m/1 must not be deployed\n- affected by"):
        mlflow_unlearn.load_model("models:/m/1", enforcement="warn")
    with pytest.raises(GateError, match="m/1 must not be deployed\n- affected by"):
        mlflow_unlearn.load_model("models:/m/1", enforcement="enforce")
    with pytest.raises(ConfigError, match="expected enforcement of observe, warn or enforce"):
        mlflow_unlearn.load_model("models:/m/1", enforcement="strict")  # type: ignore[arg-type]


def test_to_import_the_package_imports_neither_mlflow_nor_torch():
    code = "import mlflow_unlearn, sys; dir(mlflow_unlearn); print({'mlflow', 'torch', 'click'} & sys.modules.keys())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
    with pytest.raises(AttributeError, match="has no attribute 'lod_model'"):
        mlflow_unlearn.lod_model  # noqa: B018


def steps(system: str) -> tuple[dict[str, str], list[str]]:
    """Variables and shell steps of a deployment job, without those that install."""
    read = YAML(typ="safe").load(CI / f"{system}.yml")
    if system == "github-actions":
        job = read["jobs"]["deploy"]
        assert job["defaults"]["run"]["working-directory"] == "unlearn"
        return read["env"], [step["run"] for step in job["steps"] if "run" in step and "pip install" not in step["run"]]
    job = read["deploy-model"]
    return job["variables"], [step for step in (*job["before_script"], *job["script"]) if "pip install" not in step and step != "cd unlearn"]


def in_shell(commands: list[str], environment: dict[str, str], world: World) -> subprocess.CompletedProcess[str]:  # noqa: F811
    shell = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", "\n".join(f"({command})" for command in commands)]
    return subprocess.run(shell, env=environment, cwd=world.root / "unlearn", capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("system", "asked"), [("github-actions", {FORGOT: 0, TRAINED: 1}), ("gitlab-ci", {FORGOT: 0, None: 2})])
def test_the_deployment_jobs_go_on_after_a_yes_alone(world, system, asked, tmp_path):  # noqa: F811
    variables, commands = steps(system)
    assert {"MODEL", "ALIAS"} <= variables.keys()
    key, unsigned = base64.b64encode((world.root / ".unlearn/tag.key").read_bytes()).decode(), world.version(7.0, world.state("v2"))
    (tmp_path / "key").write_text(key)
    for version, code in asked.items():
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
        environment |= {
            "MODEL": "m",
            "ALIAS": "champion",
            "VERSION": (version or unsigned).version,
            "MLFLOW_UNLEARN_TAG_KEY_FILE": str(tmp_path / "unlearn/tag.key"),
            "MLFLOW_UNLEARN_LEDGER_URI": world.bench.settings.ledger_uri,
        }
        environment |= {"TAG_KEY": key, "UNLEARN_TAG_KEY": str(tmp_path / "key")}
        done = in_shell(commands, environment, world)
        assert done.returncode == code, done.stdout + done.stderr
    nowhere = in_shell(commands, environment | {"MLFLOW_UNLEARN_LEDGER_URI": ""}, world)
    assert (nowhere.returncode, nowhere.stdout) == (2, "")
    assert re.fullmatch(r"the (secret|variable) MLFLOW_UNLEARN_LEDGER_URI is not set\n", nowhere.stderr)
    assert champion(world) == FORGOT
    assert [each["version"] for each in history()["promotions"]] == ["m/2"]
