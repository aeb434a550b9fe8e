"""A repository whose registry holds a trained version with signed lineage and an unlearned one with a certificate: what the gate decides about."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from asked_repository import ENVIRONMENT, SETTINGS, asked_template  # noqa: F401 - a fixture
from certified import COMMITMENT_KEY as KEY
from certified import RETAINED, SETS, SPLIT, certificate
from mlflow.entities import Dataset, DatasetInput
from safetensors.numpy import save_file

from mlflow_unlearn import dsse, verifier
from mlflow_unlearn.adapters.statements import Statements
from mlflow_unlearn.commands.requests import Requested, Terms, add_request
from mlflow_unlearn.commands.scaffolding import scaffold
from mlflow_unlearn.commands.signing_keys import Owner, Wanted, new_key
from mlflow_unlearn.commitments import CommittedRevision, committed
from mlflow_unlearn.digests import tensor_digest
from mlflow_unlearn.lineage import DatasetRevision, ModelVersion, Parent
from mlflow_unlearn.records import Claim, Effect, Split
from mlflow_unlearn.stages.attesting import attest
from mlflow_unlearn.stages.signing import signer_for
from mlflow_unlearn.stages.workbench import Workbench
from mlflow_unlearn.statements import CERTIFICATE, Certificate, LedgerHead, Role
from mlflow_unlearn.trust import read_trust
from mlflow_unlearn.verifier.envelopes import IN_TOTO

PASSPHRASE = "correct horse battery staple"
PEOPLE = {"owner": (Role.OWNER,), "ci": (Role.TRAINER, Role.EVALUATOR), "rae": (Role.REVIEWER,), "sol": (Role.REVIEWER,)}
TRAINED, FORGOT = ModelVersion(name="m", version="1"), ModelVersion(name="m", version="2")


@dataclass(frozen=True)
class World:
    """One such repository; its pipeline folder is the current one."""

    root: Path

    @property
    def bench(self) -> Workbench:
        return Workbench(self.root / "unlearn")

    def state(self, revision: str = "v1") -> DatasetRevision:
        """The training data at a git tag."""
        return next(each for each in self.bench.project.dataset_states("train", "data/train") if revision in each.revisions)

    def version(
        self, weights: float, *states: DatasetRevision, read: Any = (), tags: Mapping[str, str] | None = None, name: str = "m"
    ) -> ModelVersion:
        """A registered version whose run read these states; its file is named after its weights."""
        client = self.bench.registry.client
        experiment = client.get_experiment_by_name("m").experiment_id
        run_id = client.create_run(experiment).info.run_id
        inputs = [Dataset(name=each.name, digest=each.md5, source_type="dvc", source="{}") for each in states]
        client.log_inputs(run_id, [DatasetInput(dataset=each, tags=[]) for each in inputs], list(read))
        folder = self.root / f"models/{name}-{run_id}"
        folder.mkdir(parents=True)
        save_file({"w": np.full(8, weights, np.float32)}, folder / "model.safetensors")
        (folder / "MLmodel").write_text("flavors:\n  python_function:\n    loader_module: deployed_flavor\n")
        client.set_terminated(run_id)
        if name not in {each.name for each in client.search_registered_models()}:
            client.create_registered_model(name)
        made = client.create_model_version(name, folder.as_uri(), run_id, tags=dict(tags or {}))
        return ModelVersion(name=name, version=str(made.version))

    def signing(self, holder: str) -> Workbench:
        """The project as this person signs in it."""
        bench = self.bench
        bench.__dict__["settings"] = replace(bench.settings, signer=holder)
        return bench

    def attest(self, model: ModelVersion) -> None:
        """A trainer's word for what the run recorded."""
        attest(self.signing("ci"), model)

    def certify(self, model: ModelVersion, parent: ModelVersion, *requests: str, **changes: Any) -> Certificate:
        """Sign what an honest evaluation would say of an unlearned version."""
        said = replace(self.said(model, parent, *requests), **changes)
        self.keep(model, said)
        return said

    def keep(self, model: ModelVersion, said: Certificate, by: str = "ci") -> None:
        """A certificate beside a version, in the place of any other."""
        statements = Statements(self.bench.registry)
        signer = signer_for(Role.EVALUATOR, self.trust, self.signing(by).settings)
        payload = dsse.statement(CERTIFICATE, verifier.subject_of(statements.folder(model)), said)
        statements.keep_certificate(model, dsse.seal(payload, IN_TOTO, [signer]), replace=True)

    def said(self, model: ModelVersion, parent: ModelVersion, *requests: str, evaluation: Any = None) -> Certificate:
        statements, bench = Statements(self.bench.registry), self.bench
        subject = verifier.subject_of(statements.folder(model))
        lineages = {each.model: each for each in bench.registry.closure(parent)}
        known = {each.md5: each for each in bench.project.dataset_states("train", "data/train")}
        states = tuple(known[md5] for md5 in sorted({md5 for each in lineages.values() for md5 in each.datasets.values()}))
        made_of = Parent(model=parent, tensor_digest=tensor_digest(sorted(statements.folder(parent).glob("*.safetensors"))), datasets=states)
        asked = [bench.ledger.get(each) for each in sorted(requests)]
        plain = certificate(subject, Claim.APPROXIMATE, **({} if evaluation is None else {"evaluation": evaluation}))
        common = {"requests": tuple(sorted(requests)), "parent": made_of}
        head = bench.ledger.head()
        return replace(
            plain,
            registered=statements.registration(model),
            parent=statements.registration(parent),
            requests=tuple(
                replace(plain.requests[0], request_id=each.request_id, effect=each.effect, received_at=each.received_at, due_at=each.due_at)
                for each in asked
            ),
            commitments=replace(
                plain.commitments,
                revisions=tuple(CommittedRevision(name=each.name, md5=each.md5, commitment=committed(RETAINED.head, KEY)) for each in states),
            ),
            split=Split(**common, effects=(Effect.REMOVAL,), rows={"forget": 2}, files=SETS, digest=SPLIT),
            unlearned=replace(plain.unlearned, **common),
            evaluation=replace(plain.evaluation, **common),
            ledger=LedgerHead(number=head.number, digest=head.digest),
        )

    @property
    def trust(self) -> verifier.Trust:
        return read_trust(self.root / "trust.json")

    def ask(self, *people: str, **terms: str) -> str:
        """A request, by its id."""
        received = terms.pop("received", f"{datetime.now(UTC) - timedelta(days=1):%Y-%m-%dT%H:%M:%SZ}")
        return str(add_request(Requested(subjects=people), Terms(basis="gdpr_17", received=received, **terms))["request_id"])

    def forgotten(self, parent: ModelVersion, *requests: str, weights: float, **tags: str) -> ModelVersion:
        """An unlearned version, as `register` tags it."""
        states = {f"unlearn.dvc.{name}": md5 for name, md5 in self.bench.registry.closure(parent)[0].datasets.items()}
        verdict = {"unlearn.verdict.removal": "PASS", "unlearn.parent": str(parent), "unlearn.request": ",".join(sorted(requests))}
        return self.version(weights, tags={**states, **verdict, **tags})


def build(root: Path, store: Path) -> World:
    """m/1 was trained on v1, and its lineage is signed; m/2 was made from it to forget bo, and its certificate gives PASS. Ends in unlearn/."""
    shutil.copy(store, root / "mlflow.db")
    os.chdir(root)
    scaffold(Path("unlearn"), model="m", data="data/train")
    os.chdir(root / "unlearn")
    for holder, roles in PEOPLE.items():
        new_key(Wanted(holder=holder, roles=roles), Owner(reference="" if holder == "owner" else "owner"))
    world = World(root)
    request = world.ask("bo")
    world.version(1.0, world.state())
    world.attest(TRAINED)
    world.forgotten(TRAINED, request, weights=2.0)
    world.certify(FORGOT, TRAINED, request)
    return world


@pytest.fixture(scope="session")
def _built(asked_template: Path, mlflow_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811 - the fixture
    root = tmp_path_factory.mktemp("deployed") / "project"
    shutil.copytree(asked_template, root, symlinks=True)
    with pytest.MonkeyPatch.context() as patch:
        _settle(patch)
        patch.chdir(root)
        build(root, mlflow_template)
    return root


@pytest.fixture
def world(_built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A copy of its own, with the pipeline's folder as the current folder."""
    root = tmp_path / "project"
    shutil.copytree(_built, root, symlinks=True)
    moved(root / "mlflow.db", str(_built), str(root))
    _settle(monkeypatch)
    monkeypatch.chdir(root / "unlearn")
    return World(root)


def moved(store: Path, old: str, new: str) -> None:
    """MLflow keeps whole paths of artifacts."""
    with sqlite3.connect(store) as tables:
        for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri"), ("model_versions", "source")):
            tables.execute(f"update {table} set {column} = replace({column}, ?, ?)", (old, new))
    tables.close()


def _settle(patch: pytest.MonkeyPatch) -> None:
    for name in (*SETTINGS, "MLFLOW_TRACKING_URI", "MLFLOW_UNLEARN_TRUST", "MLFLOW_UNLEARN_KEYS", "MLFLOW_UNLEARN_SIGNER"):
        patch.delenv(name, raising=False)
    for name, value in {**ENVIRONMENT, "MLFLOW_UNLEARN_PASSPHRASE": PASSPHRASE}.items():
        patch.setenv(name, value)
