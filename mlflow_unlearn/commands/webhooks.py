"""What `webhook` does: its secrets, its socket, whom it tells, and the server that ends on Ctrl-C."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, UnlearnError
from ..stages.workbench import Workbench
from .gating import gate_version

if TYPE_CHECKING:
    import uvicorn

    from ..server.webhooks import Receiver, Tell

PROGRAM_S = 60.0
SHORTEST_SECRET = 16
_MOST_CONNECTIONS = 64
_MOST_HEADER_BYTES = 16_384


class ProgramError(UnlearnError):
    """The program of `--run` did not do its work."""


@dataclass(frozen=True, kw_only=True)
class Listening:
    """Where the receiver listens."""

    secret_file: Path
    host: str
    port: int
    """0: any that is free."""


def listen(where: Listening, tell: Tell, say: Callable[[str], None]) -> None:
    """Receive until Ctrl-C or SIGTERM.

    Args:
        where: address and secrets.
        tell: what is done with a notification.
        say: what the person who started it reads.

    Raises:
        ConfigError: no project here, or an address or secrets that cannot be used.
    """
    secrets = read_secrets(where.secret_file)
    _ = Workbench().params  # complains now, and not at the first delivery
    with opened(where.host, where.port) as listener:
        from ..server.webhooks import STOPS_NOTHING, Receiver

        receiver = Receiver(secrets, lambda uri, alias: gate_version(uri, alias=alias), tell)
        serving = server(receiver)
        say(f"listening for MLflow's webhooks on {_address(listener)}, {len(secrets)} secret{'s' * (len(secrets) > 1)}; {STOPS_NOTHING}")
        with _ends_by_signal():
            serving.run(sockets=[listener])
            receiver.close()


def read_secrets(path: Path) -> tuple[str, ...]:
    """The secrets of a file, one a line: while one is exchanged for another, both count.

    Raises:
        ConfigError: no such file, none in it, one too short, or a file that others may read.
    """
    another = f"write one a line, e.g. `(umask 077; openssl rand -hex 32 > {path})`, and give MLflow's webhook the same"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        mode = path.stat().st_mode
    except OSError as error:
        raise ConfigError(f"{path}: no secrets can be read ({error.strerror}); {another}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8 text; {another}") from None
    secrets = tuple(line.strip() for line in lines if line.strip())
    if mode & 0o077:
        raise ConfigError(f"{path}: others may read the secrets; run `chmod 600 {path}`")
    if not secrets:
        raise ConfigError(f"{path}: holds no secret; {another}")
    if short := [str(number) for number, secret in enumerate(secrets, 1) if len(secret) < SHORTEST_SECRET]:
        raise ConfigError(f"{path}: secret {', '.join(short)}: shorter than {SHORTEST_SECRET} characters; {another}")
    return secrets


def opened(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        ConfigError: the address is not of this machine, or in use.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError, UnicodeError) as error:
        number = getattr(error, "errno", None) or 0
        words = os.strerror(number) if number > 0 else getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"{host}:{port}: cannot listen there ({words}); give another --port or --host, or end what uses it") from None


def server(receiver: Receiver) -> uvicorn.Server:
    """The web server around a receiver."""
    import uvicorn

    config = uvicorn.Config(
        receiver.app,
        http="h11",
        ws="none",
        lifespan="off",
        log_level="error",
        access_log=False,
        limit_concurrency=_MOST_CONNECTIONS,
        h11_max_incomplete_event_size=_MOST_HEADER_BYTES,
    )
    return uvicorn.Server(config)


def program_teller(name: str) -> Tell:
    """Give each notification to a program on its stdin.

    Raises:
        ConfigError: there is no such program.
    """
    if (path := shutil.which(name)) is None:
        raise ConfigError(f"--run {name}: no such program; give the path of a file that may be run, without arguments")

    def tell(notification: Mapping[str, Any]) -> None:
        _run(path, json.dumps(notification) + "\n")

    return tell


def _run(path: str, text: str) -> None:
    """Run it for one notification; what it started ends with it when its time is over."""
    with subprocess.Popen([path], stdin=subprocess.PIPE, start_new_session=True, text=True) as process:
        try:
            process.communicate(text, timeout=PROGRAM_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise ProgramError(f"{path}: not done within {PROGRAM_S:.0f} s, and ended") from None
    if process.returncode:
        raise ProgramError(f"{path}: ended with {process.returncode}")


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


@contextmanager
def _ends_by_signal() -> Iterator[None]:
    """Uvicorn stops on either signal and then sends it once more, which here ends nothing: what was begun is finished."""
    before = {each: signal.signal(each, lambda *_: None) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
