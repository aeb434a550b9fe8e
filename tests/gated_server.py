"""MLflow's real server with the gate in it, and the deployed repository of deployed.py with that server's registry."""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from asked_repository import ENVIRONMENT, SETTINGS
from deployed import FORGOT, PASSPHRASE, PEOPLE, TRAINED, World
from filelock import FileLock
from mlflow.entities import Dataset, DatasetInput
from ruamel.yaml import YAML
from safetensors.numpy import save_file

from mlflow_unlearn.commands.scaffolding import scaffold
from mlflow_unlearn.commands.signing_keys import Owner, Wanted, new_key, trust_policy
from mlflow_unlearn.lineage import DatasetRevision, ModelVersion

ADMIN = ("admin", "of-the-tests-alone")
"""User and password of the one whom MLflow's basic-auth lets do everything."""
_APPS = {"": ("mlflow.server.fastapi_app:app",), "basic-auth": ("--factory", "mlflow.server.auth:create_app")}
_SECONDS = 60.0
"""In which a server has to answer, and in which it has to end."""
_CLIENTS = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
"""What tells a client where its server is; a server that read them would ask itself."""


@dataclass(kw_only=True)
class Server:
    """A server of one worker on a free port of 127.0.0.1, for as long as the `with` lasts; it can be stopped and started in between.

    The worker is started as `mlflow server` starts it. That command itself opens both stores first, which costs as much again: `whole`.
    """

    root: Path
    """The git root: mlflow.db, mlartifacts/ and unlearn/ lie there."""
    database: str = ""
    """URI of another database than mlflow.db."""
    gate: str = "unlearn-"
    """What precedes the schemes of the registry's store and of the artifacts; empty: MLflow as it is."""
    app: str = ""
    """`basic-auth`, or nothing."""
    whole: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    port: int = field(default_factory=lambda: free_port())
    process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        """Everything the server said."""
        return self.root.parent / f"server-{self.port}.log"

    @property
    def stores(self) -> tuple[str, str, str]:
        """URIs of the tracking store, of the registry's and of the artifacts."""
        database = self.database or f"sqlite:///{self.root / 'mlflow.db'}"
        return database, self.gate + database, self.gate + (self.root / "mlartifacts").as_uri()

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Returns when it answers."""
        with self.log.open("ab") as log:
            quiet = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
            self.process = subprocess.Popen(self._command(), env=self._environment(), cwd=self.root.parent, start_new_session=True, **quiet)
        end = time.monotonic() + _SECONDS
        while not answers(self.port):
            if self.process.poll() is not None or time.monotonic() > end:
                self.stop()
                raise AssertionError(f"the server does not answer; it said:\n{self.log.read_text()}")
            time.sleep(0.05)

    def stop(self, by: signal.Signals = signal.SIGTERM) -> None:
        """Returns when no process of it is left."""
        if self.process is None:
            return
        _signal(self.process.pid, by)
        try:
            self.process.wait(_SECONDS)
        except subprocess.TimeoutExpired:
            _signal(self.process.pid, signal.SIGKILL)
            self.process.wait()
        end = time.monotonic() + _SECONDS
        while _signal(self.process.pid, None):
            assert time.monotonic() < end, f"processes of group {self.process.pid} are left"
            time.sleep(0.05)
        self.process = None

    def _command(self) -> list[str]:
        place = ["--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        if not self.whole:
            return [sys.executable, "-m", "uvicorn", "--log-level", "warning", *place, *_APPS[self.app]]
        names = ("--backend-store-uri", "--registry-store-uri", "--artifacts-destination")
        stores = [word for pair in zip(names, self.stores, strict=True) for word in pair]
        return [sys.executable, "-m", "mlflow", "server", *place, *stores, *(["--app-name", self.app] if self.app else [])]

    def _environment(self) -> dict[str, str]:
        tracking, registry, artifacts = self.stores
        worker = {
            "_MLFLOW_SERVER_FILE_STORE": tracking,
            "_MLFLOW_SERVER_REGISTRY_STORE": registry,
            "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
            "_MLFLOW_SERVER_ARTIFACT_DESTINATION": artifacts,
            "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
            "_MLFLOW_SGI_NAME": "uvicorn",
        }
        kept = {name: value for name, value in os.environ.items() if name not in _CLIENTS}
        project = {"MLFLOW_UNLEARN_PROJECT": str(self.root / "unlearn")}
        return {**kept, **ENVIRONMENT, **project, **({} if self.whole else worker), **(self._people() if self.app else {}), **self.environment}

    def _people(self) -> dict[str, str]:
        settings = self.root.parent / "basic_auth.ini"
        database = f"sqlite:///{self.root.parent / 'basic_auth.db'}"
        decides = "mlflow.server.auth:authenticate_request_basic_auth"
        settings.write_text(f"[mlflow]\ndefault_permission = EDIT\ndatabase_uri = {database}\nadmin_username = {ADMIN[0]}\n")
        settings.write_text(settings.read_text() + f"authorization_function = {decides}\n")
        return {"MLFLOW_AUTH_CONFIG_PATH": str(settings), "MLFLOW_AUTH_ADMIN_PASSWORD": ADMIN[1], "MLFLOW_FLASK_SERVER_SECRET_KEY": "of the tests"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    """Whether a server of MLflow's is there and well."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _signal(group: int, number: signal.Signals | None) -> bool:
    """Whether there was anybody to get it."""
    try:
        os.killpg(group, number or 0)
    except ProcessLookupError:
        return False
    return True


@dataclass(frozen=True)
class ServedWorld(World):
    """The same repository; its registry is the one that MLFLOW_TRACKING_URI names, and files go there through the server."""

    def version(
        self, weights: float, *states: DatasetRevision, read: Any = (), tags: Mapping[str, str] | None = None, name: str = "m"
    ) -> ModelVersion:
        client = self.bench.registry.client
        experiment = client.get_experiment_by_name("m").experiment_id
        run_id = client.create_run(experiment).info.run_id
        inputs = [DatasetInput(dataset=Dataset(name=each.name, digest=each.md5, source_type="dvc", source="{}"), tags=[]) for each in states]
        client.log_inputs(run_id, inputs, list(read))
        model_id = self.logged(weights, run_id)
        client.set_terminated(run_id)
        if name not in {each.name for each in client.search_registered_models()}:
            client.create_registered_model(name)
        made = client.create_model_version(name, f"models:/{model_id}", run_id, tags=dict(tags or {}), model_id=model_id, await_creation_for=0)
        return ModelVersion(name=name, version=str(made.version))

    def logged(self, weights: float, run_id: str | None = None) -> str:
        """Id of a logged model with these weights, uploaded."""
        client = self.bench.registry.client
        model = client.create_logged_model(client.get_experiment_by_name("m").experiment_id, source_run_id=run_id)
        with tempfile.TemporaryDirectory() as folder:
            save_file({"w": np.full(8, weights, np.float32)}, Path(folder, "model.safetensors"))
            Path(folder, "MLmodel").write_text("flavors:\n  python_function:\n    loader_module: deployed_flavor\n")
            client.log_model_artifacts(model.model_id, folder)
        client.finalize_logged_model(model.model_id, "READY")
        return str(model.model_id)

    def files(self, model: ModelVersion) -> Path:
        """Where the server keeps a version's files."""
        source = self.bench.registry.client.get_model_version(model.name, model.version).source
        return next(self.root.glob(f"mlartifacts/*/models/{source.removeprefix('models:/')}/artifacts"))

    def policy(self, **gate: Any) -> None:
        """Change keys of policy.yaml's section `gate`, and have the owner stand for it."""
        yaml, path = YAML(), self.root / "unlearn/policy.yaml"
        document = yaml.load(path)
        document["gate"].update(gate)
        yaml.dump(document, path)
        trust_policy(Owner(reference="owner"))


def build(root: Path, server: Server) -> None:
    """What deployed.build does, through a server; the policy enforces its decisions about m."""
    os.chdir(root)
    scaffold(Path("unlearn"), model="m", data="data/train")
    os.chdir(root / "unlearn")
    for holder, roles in PEOPLE.items():
        new_key(Wanted(holder=holder, roles=roles), Owner(reference="" if holder == "owner" else "owner"))
    world = ServedWorld(root)
    world.policy(enforcement={"default": "observe", "m": "enforce"})
    request = world.ask("bo")
    with server:
        os.environ["MLFLOW_TRACKING_URI"] = server.uri
        world.version(1.0, world.state())
        world.attest(TRAINED)
        world.forgotten(TRAINED, request, weights=2.0)
        world.certify(FORGOT, TRAINED, request)


@contextmanager
def client_of(root: Path, uri: str = "") -> Iterator[None]:
    """Our environment for somebody who works in unlearn/ and whose MLflow is the server's; afterwards MLflow has forgotten it."""
    with pytest.MonkeyPatch.context() as patch:
        for name in (*SETTINGS, *_CLIENTS, "MLFLOW_UNLEARN_TRUST", "MLFLOW_UNLEARN_KEYS", "MLFLOW_UNLEARN_SIGNER"):
            patch.setenv(name, "")  # so that whatever is set in between is taken back
            patch.delenv(name)
        for name, value in {**ENVIRONMENT, "MLFLOW_UNLEARN_PASSPHRASE": PASSPHRASE, **({"MLFLOW_TRACKING_URI": uri} if uri else {})}.items():
            patch.setenv(name, value)
        patch.chdir(root / "unlearn" if uri else root)
        yield
        mlflow.set_tracking_uri(None)
        mlflow.set_registry_uri(None)
        mlflow.tracking.fluent._active_experiment_id = None


@pytest.fixture(scope="session")
def served_template(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """Such a repository with the server's database and artifacts, built once by whichever test process comes first."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    root, done = shared / "served/project", shared / "served/done"
    with FileLock(shared / "served.lock"):
        if not done.exists():
            shutil.copytree(request.getfixturevalue("asked_template"), root, symlinks=True)
            shutil.copy(request.getfixturevalue("mlflow_template"), root / "mlflow.db")
            with client_of(root):
                build(root, Server(root=root, gate=""))
            done.touch()
    return root


@pytest.fixture(scope="module")
def gated_server(served_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with the gate for this module, on a copy of its own."""
    root = tmp_path_factory.mktemp("served") / "project"
    shutil.copytree(served_template, root, symlinks=True)
    with Server(root=root) as server:
        yield server


@pytest.fixture
def served(gated_server: Server) -> Iterator[ServedWorld]:
    """The repository of the module's server, with the pipeline's folder as the current folder and the server as MLflow."""
    with client_of(gated_server.root, gated_server.uri):
        yield ServedWorld(gated_server.root)
