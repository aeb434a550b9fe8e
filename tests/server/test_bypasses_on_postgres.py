"""The same attacks on a server whose database is a real Postgres."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import attacks_on_files  # noqa: F401 - enters its attacks
import attacks_on_storage  # noqa: F401 - enters its attacks
import pytest
import sqlalchemy as sql
from asked_repository import asked_template  # noqa: F401 - a fixture
from attacked import Target, settle
from attacks import ATTACKS, Attack, tried
from gated_server import Server, client_of, served_template  # noqa: F401 - a fixture

sys.path.insert(0, str(Path(__file__).parents[1] / "adapters"))
from ledger_databases import _new_database, postgres  # noqa: F401 - a fixture


def carried_over(store: Path, uri: str) -> None:
    """Everything of a migrated sqlite store into an empty Postgres, which MLflow migrates first."""
    code = "import sys; from mlflow import MlflowClient; MlflowClient(sys.argv[1]).search_experiments()"
    subprocess.run([sys.executable, "-c", code, uri], check=True, capture_output=True)
    target, tables = sql.create_engine(uri), sql.MetaData()
    tables.reflect(target)
    with target.begin() as connection, sqlite3.connect(store) as source:
        source.row_factory = sqlite3.Row
        connection.exec_driver_sql("SET session_replication_role = replica")  # rows refer to rows that come later
        for table in tables.sorted_tables:
            connection.execute(table.delete())
            if rows := [_as_there(table, row) for row in source.execute(f'SELECT * FROM "{table.name}"')]:
                connection.execute(table.insert(), rows)
            for column in table.c:
                if "nextval" in str(getattr(column.server_default, "arg", "")):
                    sequence = f"pg_get_serial_sequence('{table.name}', '{column.name}')"
                    connection.exec_driver_sql(f"SELECT setval({sequence}, coalesce(max({column.name}), 0) + 1) FROM {table.name}")
    source.close()
    target.dispose()


def _as_there(table: sql.Table, row: sqlite3.Row) -> dict[str, object]:
    """Sqlite has no booleans."""
    wanted = {name: row[name] for name in row.keys()}  # noqa: SIM118 - a Row iterates over its values
    return {name: bool(value) if value is not None and isinstance(table.c[name].type, sql.Boolean) else value for name, value in wanted.items()}


@pytest.fixture(scope="module")
def attacked(served_template: Path, postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:  # noqa: F811 - the fixtures
    root, uri = tmp_path_factory.mktemp("attacked") / "project", _new_database(postgres)
    shutil.copytree(served_template, root, symlinks=True)
    carried_over(root / "mlflow.db", uri)
    (root / "mlflow.db").unlink()
    with Server(root=root, database=uri) as server, client_of(root, server.uri):
        settle(at := Target(root, server))
        yield at
        at.engine.dispose()


@pytest.fixture
def target(attacked: Target, monkeypatch: pytest.MonkeyPatch) -> Iterator[Target]:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with client_of(attacked.root, attacked.server.uri):
        yield attacked


@pytest.mark.parametrize("attack", [pytest.param(each, id=each.name) for each in ATTACKS])
def test_no_attack_succeeds_on_postgres(target: Target, attack: Attack) -> None:
    tried(target, attack)
