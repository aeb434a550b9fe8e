"""Our commands in processes forked from one that has imported everything: a `dvc repro` starts ten, and each would import for seconds.

A command is the same code in a process of its own, with its own arguments, folder, environment and streams. How it starts cold is seen where it is
killed, and in `make demo`. `WarmProcesses.path` is a folder of commands (`mlflow-unlearn`, `dvc`, `python`) to put first on PATH.
"""

from __future__ import annotations

import array
import atexit
import contextlib
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

BIN = Path(sys.executable).parent
COMMANDS = ("mlflow-unlearn", "dvc", "python")
_IMPORTED = (
    "torch",
    "transformers",
    "transformers.models.llama.modeling_llama",
    "transformers.trainer_utils",
    "peft",
    "scipy.stats",
    "great_expectations",
    "duckdb",
    "ibis.backends.duckdb",
    "mlflow.pyfunc",
    "mlflow.transformers",
    "mlflow.store.tracking.sqlalchemy_store",
    "dvc.repo",
    "dvc.commands.repro",
)
_CLIENT = """\
import array, json, os, socket, sys
name, real, address = {name!r}, {real!r}, {address!r}
if name == "python" and not (len(sys.argv) > 1 and sys.argv[1].endswith(".py")):
    os.execv(real, [real, *sys.argv[1:]])
asked = json.dumps({{"command": real, "arguments": sys.argv[1:], "folder": os.getcwd(), "environment": dict(os.environ)}}).encode()
with socket.socket(socket.AF_UNIX) as server:
    server.connect(address)
    server.sendmsg([len(asked).to_bytes(8, "big")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))])
    server.sendall(asked)
    said = server.recv(16)
sys.exit(int(said or 70))
"""


class WarmProcesses:
    """One process that imports, then forks for whoever asks; it ends with `close` or with the process that made it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._place = tempfile.TemporaryDirectory(prefix="warm-")
        self.path = Path(self._place.name) / "bin"
        self.path.mkdir()
        address = f"{self._place.name}/socket"
        for name in COMMANDS:
            client = self.path / name
            client.write_text(f"#!{sys.executable} -IS\n" + _CLIENT.format(name=name, real=str(BIN / name), address=address))
            client.chmod(0o755)
        self._server = subprocess.Popen([sys.executable, __file__, address], env=dict(environment), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._server.stdout is not None
        assert self._server.stdout.readline() == b"ready\n", "the process that forks the others did not start"

    def close(self) -> None:
        self._server.kill()
        self._server.wait()
        for stream in (self._server.stdin, self._server.stdout):
            assert stream is not None
            stream.close()
        self._place.cleanup()


def _serve(address: str) -> None:
    for name in _IMPORTED:
        importlib.import_module(name)
    for path in sorted((Path(importlib.import_module("mlflow_unlearn").__file__ or "").parent / "stages").glob("[a-z]*.py")):
        importlib.import_module(f"mlflow_unlearn.stages.{path.stem}")
    assert threading.enumerate() == [threading.main_thread()], "a thread is not forked"
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who answer
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen()
        os.write(1, b"ready\n")
        while True:
            ready, _, _ = select.select([listening, 0], [], [])
            if 0 in ready:  # the tests are over, or were killed
                return
            asking, _ = listening.accept()
            if os.fork() == 0:
                listening.close()
                _answer(asking)
            asking.close()


def _answer(asking: socket.socket) -> None:
    """Run what is asked for in a process of its own, and kill it when whoever asked is gone."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    asked, streams = _question(asking)
    worker = os.fork()
    if worker == 0:
        asking.close()
        _run(asked, streams)
    os.setpgid(worker, worker)  # with whatever it starts
    for stream in streams:
        os.close(stream)
    ready, _, _ = select.select([asking, os.pidfd_open(worker)], [], [])
    if asking in ready:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(worker, signal.SIGKILL)
    _, status = os.waitpid(worker, 0)
    code = os.waitstatus_to_exitcode(status)
    with contextlib.suppress(OSError):  # whoever asked is gone
        asking.sendall(str(code if code >= 0 else 128 - code).encode())
    os._exit(0)


def _question(asking: socket.socket) -> tuple[dict[str, Any], list[int]]:
    streams = array.array("i")
    size, extra, _, _ = asking.recvmsg(8, socket.CMSG_SPACE(3 * streams.itemsize))
    for _, _, data in extra:
        streams.frombytes(data)
    with os.fdopen(os.dup(asking.fileno()), "rb") as said:
        return json.loads(said.read(int.from_bytes(size, "big"))), list(streams)


def _run(asked: dict[str, Any], streams: list[int]) -> None:
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    command = Path(asked["command"])
    script = asked["arguments"][0] if command.name == "python" else str(command)
    sys.argv = [script, *asked["arguments"][command.name == "python" :]]
    sys.path[0] = str(Path(script).resolve().parent)
    code: object = 0
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        code = end.code
    except BaseException:  # noqa: BLE001 - as the interpreter does
        traceback.print_exc()
        code = 1
    if isinstance(code, str):
        sys.stderr.write(f"{code}\n")
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


if __name__ == "__main__":
    _serve(sys.argv[1])
