"""`mlflow-unlearn ui`: the real command, the real `mlflow server`; and what it refuses before it starts anything."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from asked_repository import asked, asked_template  # noqa: F401 - fixtures
from click.testing import CliRunner
from gated_server import answers, client_of, free_port
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from mlflow_unlearn.cli import main
from mlflow_unlearn.commands.serving import planned
from mlflow_unlearn.stages.workbench import Workbench


def refused(*options: str) -> str:
    done = CliRunner().invoke(main, ["ui", *options])
    assert (done.exit_code, done.stdout) == (2, "")
    return done.stderr


@contextmanager
def started(*options: str) -> Iterator[tuple[subprocess.Popen[bytes], dict[str, str]]]:
    """The command in unlearn/ and what it says once its server answers; ended by Ctrl-C at the latest."""
    words = [sys.executable, "-m", "mlflow_unlearn.cli", "ui", "--json", *options]
    with subprocess.Popen(words, cwd="unlearn", stdout=subprocess.PIPE) as command:
        try:
            yield command, json.loads(command.stdout.readline())
        finally:
            command.send_signal(signal.SIGINT)


def local_run(root: Path) -> str:
    """A run in an experiment whose artifacts are files of this machine, as pipelines without a server make them."""
    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    run = client.create_run(client.create_experiment("local", (root / "mlartifacts/local").as_uri())).info.run_id
    client.log_text(run, "seen", "report.txt")
    client.set_terminated(run)
    client.create_registered_model("m")
    client.create_model_version("m", (root / f"mlartifacts/local/{run}/artifacts").as_uri(), run)
    return run


def test_it_serves_the_project_with_the_gate_until_ctrl_c_and_leaves_nothing_behind(
    asked: Path,  # noqa: F811
    mlflow_template: Path,
) -> None:
    (asked / "mlflow.db").write_bytes(mlflow_template.read_bytes())
    policy, run, port = asked / "unlearn/policy.yaml", local_run(asked), free_port()
    policy.write_text(policy.read_text().replace("{default: observe}", "{default: enforce}"))
    with client_of(asked), started("--port", str(port)) as (command, said):
        assert said == {"address": f"http://127.0.0.1:{port}", "project": str(asked / "unlearn"), "artifacts": str(asked / "mlartifacts")}
        with urllib.request.urlopen(f"{said['address']}/get-artifact?run_uuid={run}&path=report.txt") as file:
            assert file.read() == b"seen"
        with pytest.raises(MlflowException, match="PERMISSION_DENIED"):
            MlflowClient(said["address"]).set_registered_model_alias("m", "champion", "1")
        everybody = psutil.Process(command.pid).children(recursive=True)
        command.send_signal(signal.SIGINT)
        assert command.wait(30) == 0
    assert len(everybody) >= 2
    assert not any(each.is_running() for each in everybody)
    assert not answers(port)


def test_a_folder_without_params_yaml_is_no_project(asked: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.chdir(asked)
    assert "params.yaml: not there; run `mlflow-unlearn init`" in refused()


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("http://rae:secret@127.0.0.1:5000", "MLFLOW_TRACKING_URI: http: is a server already"),
        ("mysql://rae:secret@127.0.0.1/mlflow", "databases of postgresql, postgresql+psycopg, postgresql+psycopg2, sqlite, found 'mysql'"),
        ("mlruns", "found 'a path'"),
    ],
)
def test_what_the_gate_cannot_serve_is_refused_without_its_password(
    asked: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    uri: str,
    words: str,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert words in (said := refused())
    assert "secret" not in said


def test_a_port_that_is_taken_is_refused_and_the_first_free_one_is_found(asked: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        assert f"127.0.0.1: port {taken} is taken; name another one" in refused("--port", str(taken))
        monkeypatch.setattr("mlflow_unlearn.commands.serving.FIRST_PORT", taken)
        assert planned(Workbench(asked / "unlearn"), "127.0.0.1", None).port > taken


@pytest.mark.parametrize("host", ["192.0.2.1", "0.0.0.0", "::", "::ffff:192.0.2.1"])
def test_a_host_that_others_reach_is_refused_since_there_are_no_users(asked: Path, host: str) -> None:  # noqa: F811
    assert f"{host}: `ui` has no users" in (said := refused("--host", host))
    assert "docs/how-to/gated-server.md" in said


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost"])
def test_a_host_that_is_this_machine_alone_is_served(asked: Path, host: str) -> None:  # noqa: F811
    assert planned(Workbench(asked / "unlearn"), host, None).address.startswith(f"http://{host}:")


def test_a_host_that_nobody_knows_is_refused(asked: Path) -> None:  # noqa: F811
    assert "no.such.host.invalid: " in refused("--host", "no.such.host.invalid")


def test_the_password_of_a_database_is_no_argument(asked: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql+psycopg://rae:secret@127.0.0.1/mlflow")
    site = planned(Workbench(asked / "unlearn"), "127.0.0.1", free_port())
    assert "secret" not in f"{site} {site.command}"
    assert site.environment["MLFLOW_REGISTRY_STORE_URI"] == "unlearn-postgresql+psycopg://rae:secret@127.0.0.1/mlflow"


def test_a_server_that_ends_by_itself_is_an_error(asked: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setenv("PYTHONHASHSEED", "odd")  # with which no Python starts
    assert "MLflow's server ended by itself" in refused("--port", str(free_port()))
