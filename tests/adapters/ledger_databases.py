"""An empty database a test, of each kind the ledger runs on; Postgres is a real server of this process's own."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

_NAMES = count()


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """URI of a server on a free port of 127.0.0.1, without a database name."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    found = shutil.which("initdb")
    home = Path(found).parent if found else programs[-1] if programs else None
    if home is None or not (home / "initdb").exists():
        pytest.skip("no initdb on this machine; .ci/run installs Debian's postgresql")
    folder = Path(tempfile.mkdtemp(prefix="ledger-postgres-"))
    run = _as_ordinary_user(folder)
    try:
        run(str(home / "initdb"), "-D", str(folder / "data"), "-U", "ledger", "-A", "trust", "-E", "UTF8", "--no-sync", "--locale", "C")
        port = _free_port()
        options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        run(str(home / "pg_ctl"), "-D", str(folder / "data"), "-o", options, "-l", str(folder / "log"), "-w", "start")
        yield f"postgresql+psycopg://ledger@127.0.0.1:{port}"
        run(str(home / "pg_ctl"), "-D", str(folder / "data"), "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger_uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URI of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'state/ledger.db'}"
    server = request.getfixturevalue("postgres")
    return _new_database(server)


def _new_database(server: str) -> str:
    import psycopg

    name = f"ledger_{next(_NAMES)}"
    with psycopg.connect(f"{server.replace('+psycopg', '')}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return f"{server}/{name}"


def _as_ordinary_user(folder: Path) -> Callable[..., None]:
    """Runs commands; Postgres refuses root, so that root runs them as `postgres` or `nobody`."""
    options: dict[str, object] = {}
    if os.geteuid() == 0:
        names = {entry.pw_name for entry in pwd.getpwall()}
        user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
        os.chown(folder, user.pw_uid, user.pw_gid)
        options = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}

    def run(*command: str) -> None:
        with (folder / "said").open("wb") as said:  # a pipe would stay open as long as the server runs
            done = subprocess.run(command, cwd=folder, stdout=said, stderr=said, check=False, **options)
        assert done.returncode == 0, (folder / "said").read_text()

    return run


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
