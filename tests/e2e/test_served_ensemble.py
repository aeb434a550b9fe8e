"""A registered ensemble behind `mlflow models serve`: over HTTP it answers as the ensemble does, and refuses what it must in words."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import pandas
import pytest
from ensemble_files import PROMPTS, Cut, cut_shards, small_base
from small_project import clean_environment

from mlflow_unlearn.adapters import bases, ensembles, registration
from mlflow_unlearn.adapters.registration import Trained, Weights
from mlflow_unlearn.adapters.registry import connect
from mlflow_unlearn.adapters.serving import ServedEnsemble
from mlflow_unlearn.config import Settings
from mlflow_unlearn.lineage import DatasetRevision

pytestmark = pytest.mark.e2e
STATE = DatasetRevision(name="customers", path="data/customers/train", md5="a" * 32 + ".dir", revisions=("data-v1",))
TAGS = [f"{shard:016x}{'5' * 16}" for shard in range(4)]
PARAMS = {"max_new_tokens": 8}


@dataclass
class Server:
    """Of one model version, on this machine alone."""

    url: str
    log: Path

    def ask(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        request = urllib.request.Request(f"{self.url}/invocations", json.dumps(body).encode(), {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def is_up(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/ping", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


def free_port() -> int:
    with closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture(scope="module", params=["weights", "adapters"])
def cut(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Cut:
    if request.param == "adapters":
        pytest.importorskip("mlflow_unlearn.engine.adapter_bank")
    home = tmp_path_factory.mktemp(request.param)
    return cut_shards(small_base(home / "base"), home / "shards", adapters=request.param == "adapters", empty=(2,))


@pytest.fixture
def store(cut: Cut, mlflow_store: str, tmp_path: Path) -> str:
    registry = connect(Settings(root=tmp_path, tag_key_file=tmp_path, ledger_uri="", tracking_uri=mlflow_store), "customers")
    weights = Weights(folder=cut.assembled(tmp_path / "model"), base=cut.base, base_apart=True)
    registration.register_trained(registry, "customers", Trained(weights=weights, datasets=(STATE,), shard_logs={}, description=""))
    return mlflow_store


@pytest.fixture
def server(store: str, tmp_path: Path) -> Iterator[Server]:
    port, log = free_port(), tmp_path / "server.log"
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/customers/1", "--env-manager", "local", "-h", "127.0.0.1", "-p"]
    (tmp_path / "elsewhere").mkdir()
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [*command, str(port)],
            cwd=tmp_path / "elsewhere",
            env=clean_environment() | {"MLFLOW_TRACKING_URI": store},
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    try:
        yield started(Server(f"http://127.0.0.1:{port}", log), process)
    finally:
        os.killpg(process.pid, 15)  # the server and the worker that it started
        process.wait(30)


def started(server: Server, process: subprocess.Popen[bytes]) -> Server:
    until = time.monotonic() + 180
    while not server.is_up():
        assert process.poll() is None, server.log.read_text()
        assert time.monotonic() < until, server.log.read_text()
        time.sleep(0.5)
    return server


def test_a_served_ensemble_answers_as_the_ensemble_does(server: Server, store: str, cut: Cut, tmp_path: Path) -> None:
    records = [{"prompt": prompt, "subject_tag": tag} for prompt, tag in zip(PROMPTS, TAGS, strict=True)]
    expected = own(cut, tmp_path).predict(records, PARAMS)
    assert server.ask({"dataframe_records": records, "params": PARAMS}) == (200, {"predictions": expected.to_dict("records")})
    columns = {"columns": ["prompt", "subject_tag"], "data": [[prompt, None] for prompt in PROMPTS]}
    code, average = server.ask({"dataframe_split": columns, "params": {"aggregation": "average"}})
    assert (code, [each["shard"] for each in average["predictions"]]) == (200, [None] * 4)
    code, refused = server.ask({"dataframe_records": [{"prompt": "x", "subject_tag": "Ada"}]})
    assert (code, "expected 32 hex characters" in refused["message"]) == (400, True)
    assert "Ada" not in server.log.read_text()  # MLflow tells the client its own words again, and nobody else
    loaded = mlflow.pyfunc.load_model("models:/customers/1").predict(pandas.DataFrame(records), params=PARAMS)
    assert loaded.to_dict("records") == expected.to_dict("records")


def own(cut: Cut, tmp_path: Path) -> ServedEnsemble:
    """The ensemble as the pipeline leaves it, its base where `exact.base` says."""
    ensemble, tokenizer, manifest = ensembles.load(tmp_path / "model", "cpu", bases.fetch(str(cut.base)))
    return ServedEnsemble(ensemble=ensemble, tokenizer=tokenizer, manifest=manifest)
