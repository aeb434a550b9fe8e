"""What `ui` does: MLflow's own server on the project's database, with the gate in the registry's store and before the model files."""

from __future__ import annotations

import errno
import http.client
import ipaddress
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from ..config import Settings
from ..errors import ConfigError, StoreError
from ..stages.workbench import Workbench

FIRST_PORT = 5000
"""MLflow's own."""
_PORTS = 100
_GATE = "unlearn-"
"""What MLflow knows a database or a folder by when the gate stands before it."""
_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SECONDS_TO_END = 10


@dataclass(frozen=True, kw_only=True)
class Site:
    """A server that is to be started."""

    host: str
    port: int
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)
    """Beside what this process has; the database's password may be in it, which an argument would show to everybody on the machine."""

    @property
    def address(self) -> str:
        """What to open in a browser."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


def serve(host: str, port: int | None, ready: Callable[[dict[str, Any]], None]) -> None:
    """Run MLflow's server with the gate until Ctrl-C or a signal ends it; no process of it is left then.

    Args:
        host: where it listens: an address of this machine that no other one reaches.
        port: likewise; None: the first free one from 5000.
        ready: gets `address`, `project` and `artifacts` as soon as the server answers.

    Raises:
        ConfigError: no params.yaml here, a host that other machines reach, a port that is taken, or a database that the gate does not know.
        StoreError: the server ended by itself.
    """
    bench = Workbench()
    _ = bench.params  # complains here, and not in the log of a server
    site = planned(bench, host, port)
    with _until_asked_to_end(), _running(site) as process:
        while not _answers(site):
            _still(process)
            time.sleep(0.1)
        ready({"address": site.address, "project": str(bench.folder), "artifacts": str(_artifacts(bench.settings))})
        process.wait()
        _still(process)


def planned(bench: Workbench, host: str, port: int | None) -> Site:
    """The server of a project: one worker, MLflow's job runner off.

    Raises:
        ConfigError: a host that other machines reach, a port that is taken, or a database that the gate does not know.
    """
    _refuse_others(host)
    database, destination = _database(bench.settings), _GATE + _artifacts(bench.settings).as_uri()
    found = _port(host, port)
    place = ("--host", host, "--port", str(found), "--workers", "1", "--serve-artifacts", "--artifacts-destination", destination)
    environment = {
        "MLFLOW_BACKEND_STORE_URI": database,
        "MLFLOW_REGISTRY_STORE_URI": _GATE + database,
        "MLFLOW_UNLEARN_PROJECT": str(bench.folder),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    return Site(host=host, port=found, command=(sys.executable, "-m", "mlflow", "server", *place), environment=environment)


def _refuse_others(host: str) -> None:
    """Nobody is asked who he or she is here, so that nobody else may reach it."""
    try:
        found = {str(place[0]).partition("%")[0] for *_, place in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except OSError as error:
        raise ConfigError(f"{host}: no host of this name ({error.strerror}); leave --host out for 127.0.0.1") from None
    if not all(ipaddress.ip_address(each).is_loopback for each in found):
        raise ConfigError(
            f"{host}: `ui` has no users, and listens on this machine alone (127.0.0.1, ::1, localhost); for other machines see "
            "docs/how-to/gated-server.md"
        )


def _artifacts(settings: Settings) -> Path:
    """Where the adapters put the artifacts of a local project, so that the gate stands before those as well."""
    return settings.root / "mlartifacts"


def _database(settings: Settings) -> str:
    scheme = urlparse(settings.tracking_uri).scheme
    if scheme in ("http", "https"):
        raise ConfigError(
            f"MLFLOW_TRACKING_URI: {scheme}: is a server already, and whoever runs it turns the gate on there; open it in a browser, or unset the "
            "variable to serve this project's own database"
        )
    stores = entry_points(group="mlflow.model_registry_store")
    guarded = {each.name.removeprefix(_GATE) for each in stores if each.name.startswith(_GATE)}
    if not guarded:
        raise ConfigError("MLflow does not find the gate among its plugins: install mlflow-unlearn again in this environment")
    if scheme not in guarded:
        raise ConfigError(f"MLFLOW_TRACKING_URI: the gate knows databases of {', '.join(sorted(guarded))}, found '{scheme or 'a path'}'")
    return settings.tracking_uri


def _port(host: str, wanted: int | None) -> int:
    for port in range(FIRST_PORT, FIRST_PORT + _PORTS) if wanted is None else (wanted,):
        if _is_free(host, port):
            return port
    if wanted is None:
        raise ConfigError(f"{host}: ports {FIRST_PORT} to {FIRST_PORT + _PORTS - 1} are taken; name one with --port")
    raise ConfigError(f"{host}: port {wanted} is taken; name another one, or none for the first that is free")


def _is_free(host: str, port: int) -> bool:
    try:
        family, kind, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return False
        raise ConfigError(f"{host}: cannot listen on port {port} ({error.strerror}); name a host of this machine, and a port from 1024") from None
    return True


@contextmanager
def _until_asked_to_end() -> Iterator[None]:
    """Being asked to end is no error. Further signals wait until everything is cleared away; who was started to ignore one goes on ignoring it."""

    def ask(*_: object) -> None:
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {each: signal.getsignal(each) for each in _ENDS if signal.getsignal(each) is not signal.SIG_IGN}
    try:
        for each in before:
            signal.signal(each, ask)
        with suppress(KeyboardInterrupt):
            yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@contextmanager
def _running(site: Site) -> Iterator[subprocess.Popen[bytes]]:
    """In a group of its own: a terminal's Ctrl-C would reach its worker twice, once from the terminal and once from its parent."""
    process = subprocess.Popen(
        site.command, env={**os.environ, **site.environment}, stdin=subprocess.DEVNULL, stdout=sys.__stderr__, start_new_session=True
    )
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(process.pid, number)
            process.wait(_SECONDS_TO_END)


def _still(process: subprocess.Popen[bytes]) -> None:
    if (code := process.poll()) is not None:
        raise StoreError(f"MLflow's server ended by itself with {code}; what it printed above says why")


def _answers(site: Site) -> bool:
    connection = http.client.HTTPConnection(site.host, site.port, timeout=5)
    try:
        connection.request("GET", "/health")
        connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return True
