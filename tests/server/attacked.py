"""A gated server with good and bad versions in it, and the hands of whoever wants to get round it: HTTP, MLflow's client, SQL, the file system."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import requests
import sqlalchemy as sql
from gated_server import ServedWorld, Server
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput
from mlflow.exceptions import MlflowException
from simulated import KNOWN, evaluated, model

from mlflow_unlearn.commands.gate_log import Asked, gate_log
from mlflow_unlearn.lineage import ModelVersion

AFFECTED, GOOD, OVERDUE, FAILED, UNKNOWN, LEGACY = (ModelVersion(name="m", version=str(number)) for number in range(1, 7))
"""Reached by a request that is not due; with a certificate, and champion; blocked, since the request is overdue; with a certificate of FAIL;
without any evidence; blocked too, its files are those of its run."""
OTHER = ModelVersion(name="other", version="1")
"""Of another model, without evidence."""
FREE = tuple(ModelVersion(name="free", version=str(number)) for number in (1, 2, 3))
"""Without evidence, and of a model of which every decision is only observed."""
_API = {"api": "/api/2.0/mlflow/", "ajax": "/ajax-api/2.0/mlflow/"}
_FILES = "/api/2.0/mlflow-artifacts/artifacts/"
_FORBIDDEN = re.compile(r"PERMISSION_DENIED|403 Client Error: Forbidden")
"""What MLflow's client passes on of a refusal in an error of its own."""
_TABLES = ("registered_models", "registered_model_tags", "registered_model_aliases", "model_versions", "model_version_tags")


@dataclass(frozen=True)
class Reply:
    """What somebody is told."""

    status: int
    text: str


@dataclass(frozen=True)
class Target(ServedWorld):
    """The server's repository and database."""

    server: Server
    softer: dict[str, bytes] = field(default_factory=dict, repr=False)
    """Trust file and policy as an owner signed them first."""
    ledgers: list[bytes] = field(default_factory=list, repr=False)
    """The ledger before the last request."""

    # Asking

    def ask_for(
        self, method: str, path: str, body: object = None, *, through: str = "api", headers: Mapping[str, str] | None = None, raw: bytes | None = None
    ) -> Reply:
        """A request as it is spelled: nothing is encoded or made normal. A path that does not begin with a slash is one of MLflow's API."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        data = raw if raw is not None else None if body is None else json.dumps(body).encode()
        try:
            connection.request(
                method, path if path.startswith("/") else _API[through] + path, data, {"Content-Type": "application/json", **(headers or {})}
            )
            answer = connection.getresponse()
            return Reply(answer.status, answer.read().decode(errors="replace"))
        finally:
            connection.close()

    def point(self, model: ModelVersion, alias: str = "champion", **how: Any) -> Reply:
        return self.ask_for("POST", "registered-models/alias", {"name": model.name, "alias": alias, "version": model.version}, **how)

    def delete_alias(self, alias: str, name: str = "m") -> Reply:
        return self.ask_for("DELETE", "registered-models/alias", {"name": name, "alias": alias})

    def follow(self, alias: str = "champion", name: str = "m", **how: Any) -> Reply:
        return self.ask_for("GET", f"registered-models/alias?name={name}&alias={alias}", **how)

    def tag(self, model: ModelVersion, key: str, value: str) -> Reply:
        return self.ask_for("POST", "model-versions/set-tag", {"name": model.name, "version": model.version, "key": key, "value": value})

    def create(self, name: str, source: str, **more: Any) -> Reply:
        return self.ask_for("POST", "model-versions/create", {"name": name, "source": source, **more})

    def put(self, path: str, content: bytes = b"other") -> Reply:
        return self.ask_for("PUT", _FILES + path, raw=content)

    def get(self, path: str) -> Reply:
        return self.ask_for("GET", _FILES + path)

    def drop(self, path: str) -> Reply:
        return self.ask_for("DELETE", _FILES + path)

    # Making what an attack needs

    def fresh(self, name: str = "m", *, weights: float | None = None, **how: Any) -> ModelVersion:
        """A version like UNKNOWN, registered by a request of its own; removed by `remove`."""
        run_id = self.client.create_run(self.client.get_experiment_by_name("m").experiment_id).info.run_id
        source = how.pop("source", None) or (self.row(UNKNOWN)["source"] if weights is None else f"models:/{self.logged(weights, run_id)}")
        made = self.create(name, source, **{"run_id": run_id, "model_id": source.removeprefix("models:/"), **how})
        return ModelVersion(name=name, version=json.loads(made.text)["model_version"]["version"])

    def nonsense(self) -> ModelVersion:
        """The same, with more digits in a tag than make a number and deeper JSON in a dataset than is read."""
        made = self.fresh()
        of = {"run_id": self.row(made)["run_id"]}
        dataset = {"name": "d", "digest": "1", "source_type": "http", "source": '{"models:/": ' * 4000 + "1" + "}" * 4000}
        self.ask_for("POST", "runs/log-inputs", {**of, "datasets": [{"dataset": dataset}]})
        self.ask_for("POST", "runs/set-tag", {**of, "key": "unlearn.base_model", "value": "m/" + "9" * 4400})
        return made

    def numbered(self, version: object) -> ModelVersion:
        return ModelVersion(name="m", version=str(version))

    def remove(self, model: ModelVersion) -> None:
        self.client.delete_model_version(model.name, model.version)

    def run_at(self, place: str) -> str:
        """A run whose experiment lies there."""
        begun = self.ask_for("POST", "runs/create", {"experiment_id": self._experiment_at(place)})
        return str(json.loads(begun.text)["run"]["info"]["run_id"])

    def model_at(self, place: str) -> str:
        """A logged model whose experiment lies there."""
        made = self.ask_for("POST", "logged-models", {"experiment_id": self._experiment_at(place), "name": "x"})
        return str(json.loads(made.text)["model"]["info"]["model_id"])

    def trace_at(self, place: str) -> str:
        """A trace that is said to lie there."""
        trace_id, where = f"tr-{time.monotonic_ns()}", {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "0"}}
        said = {"trace_id": trace_id, "trace_location": where, "request_time": "2026-01-01T00:00:00Z", "state": "OK"}
        made = self.ask_for("POST", "/api/3.0/mlflow/traces", {"trace": {"trace_info": said}})
        moved = self.ask_for("PATCH", f"traces/{trace_id}/tags", {"key": "mlflow.artifactLocation", "value": place})
        assert made.status == moved.status == 200, (made, moved)
        return trace_id

    def _experiment_at(self, place: str) -> str:
        made = self.ask_for("POST", "experiments/create", {"name": f"at {time.monotonic_ns()}", "artifact_location": place})
        return str(json.loads(made.text)["experiment_id"])

    def artifact(self, path: str) -> bytes:
        return (self.root / "mlartifacts" / path).read_bytes()

    @cached_property
    def client(self) -> MlflowClient:
        return MlflowClient(self.server.uri)

    # Knowing

    def row(self, model: ModelVersion) -> Mapping[str, Any]:
        return self.rows("model_versions", name=model.name, version=int(model.version))[0]

    def below(self, model: ModelVersion) -> str:
        """The path of a version's files below the destination."""
        row = self.row(model)
        return str(row["storage_location"] or row["source"]).removeprefix("mlflow-artifacts:/")

    def folder(self, model: ModelVersion) -> Path:
        return self.root / "mlartifacts" / self.below(model)

    def model_id(self, model: ModelVersion) -> str:
        return str(self.row(model)["source"]).removeprefix("models:/")

    def surveyed(self) -> None:
        """Returns when the server has looked at everything anew: what it had blocked, and somebody deleted, is blocked again."""
        rows = self._table("unlearn_gate_rows")
        self.write(rows.delete().where(rows.c.kind == "block"))
        wait(lambda: self.point(OVERDUE).status == 403 and self.rows("unlearn_gate_rows", kind="block"), every=1.0)

    def tags(self, model: ModelVersion) -> dict[str, str]:
        return {row["key"]: row["value"] for row in self.rows("model_version_tags", name=model.name, version=int(model.version))}

    def everything(self) -> object:
        """Everything that no refused request may change: what the registry holds and the files of models."""
        tables = [sorted(map(repr, self.rows(table))) for table in _TABLES]
        files = [(str(path), *_stamp(path)) for path in sorted((self.root / "mlartifacts").rglob("*"))]
        return tables, files

    def verified(self) -> Reply:
        """What `gate-log --verify` says."""
        problems = gate_log(Asked(database=self.database, verify=True))["problems"]
        return Reply(1 if problems else 0, "\n".join(problems))

    # The database, for whoever has its password

    @property
    def database(self) -> str:
        return self.server.stores[0]

    @cached_property
    def engine(self) -> sql.Engine:
        return sql.create_engine(self.database, poolclass=sql.pool.NullPool)

    def rows(self, table: str, **where: Any) -> list[dict[str, Any]]:
        with self.engine.connect() as connection:
            found = sql.select(self._table(table)).filter_by(**where)
            return [dict(row) for row in connection.execute(found).mappings()]

    @contextmanager
    def altered(self, table: str, where: Mapping[str, Any], **values: Any) -> Iterator[None]:
        """Rows with other values for a while; without values they are gone."""
        own, held = self._table(table), self.rows(table, **where)
        chosen = sql.and_(*(own.c[name] == value for name, value in where.items()))
        self.write((own.update().values(**values) if values else own.delete()).where(chosen))
        try:
            yield
        finally:
            for row in held:
                key = sql.and_(*(column == row[column.name] for column in own.primary_key))
                self.write(
                    own.update().where(key).values(**row) if values else own.delete().where(key), *([] if values else [own.insert().values(**row)])
                )

    @contextmanager
    def inserted(self, table: str, **values: Any) -> Iterator[None]:
        own = self._table(table)
        self.write(own.insert().values(**values))
        try:
            yield
        finally:
            self.write(own.delete().where(sql.and_(*(own.c[column.name] == values[column.name] for column in own.primary_key))))

    def write(self, *statements: Any) -> None:
        with self.engine.begin() as connection:
            for statement in statements:
                connection.execute(statement)

    def _table(self, name: str) -> sql.Table:
        return sql.Table(name, self._meta, autoload_with=self.engine)

    @cached_property
    def _meta(self) -> sql.MetaData:
        return sql.MetaData()

    # The server's disk

    @contextmanager
    def changed(self, path: Path, change: Callable[[Path], object]) -> Iterator[None]:
        """A file or folder that is something else for a while, and back where it was in the end."""
        aside = self.root.parent / f"aside-{time.monotonic_ns()}"
        (shutil.copytree if path.is_dir() else shutil.copy2)(path, aside)
        try:
            change(path)
            yield
        finally:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
            aside.replace(path)


def _stamp(path: Path) -> tuple[int, ...]:
    """Of a folder that it is there."""
    found = path.lstat()
    return () if path.is_dir() else (found.st_mtime_ns, found.st_ctime_ns, found.st_ino)


def wait(until: Callable[[], object], every: float = 0.1) -> None:
    end = time.monotonic() + 40
    while not until():
        assert time.monotonic() < end, "the server has not looked again"
        time.sleep(every)


def told(call: Callable[[], object]) -> Reply:
    """What MLflow's client makes of an answer."""
    try:
        return Reply(200, str(call()))
    except MlflowException as error:
        return Reply(403 if _FORBIDDEN.search(str(error)) else error.get_http_status_code(), str(error))
    except requests.HTTPError as error:
        return Reply(error.response.status_code, f"{error} {error.response.text}")


def settle(at: Target) -> None:
    """Fill a fresh copy: every decision is enforced, GOOD is champion, and each bad version is bad in its own way."""
    at.policy(enforcement={"default": "observe"})
    at.softer.update({name: (at.root / name).read_bytes() for name in ("trust.json", "unlearn/policy.yaml")})
    at.policy(enforcement={"default": "enforce", "free": "observe"})
    at.ledgers.append((at.root / ".unlearn/ledger.db").read_bytes())
    request = at.tags(GOOD)["unlearn.request"]
    trained = at.version(3.0, at.state("v2"))
    at.attest(trained)
    failed = at.forgotten(AFFECTED, request, weights=4.0)
    still = evaluated(model(forgotten=KNOWN, seed=1), model(forgotten=KNOWN, seed=2), model(forgotten=KNOWN, seed=3))
    at.keep(failed, at.said(failed, AFFECTED, request, evaluation=still))
    at.version(5.0)
    _of_a_run(at)
    at.version(6.0, name=OTHER.name)
    for weights in (7.0, 8.0, 9.0):
        at.version(weights, name="free")
    at.ask("dee", received=f"{datetime.now(UTC) - timedelta(days=90):%Y-%m-%dT%H:%M:%SZ}")
    at.client.set_registered_model_alias("m", "champion", GOOD.version)
    for each in (OVERDUE, FAILED, LEGACY):
        at.point(each)
    wait(lambda: all(at.get(f"{at.below(each)}/MLmodel").status == 403 for each in (OVERDUE, FAILED, LEGACY)))


def _of_a_run(at: Target) -> None:
    """A version of the old kind, logged below its run, of the data that a request reaches."""
    run_id, read = at.client.create_run(at.client.get_experiment_by_name("m").experiment_id).info.run_id, at.state("v2")
    at.client.log_inputs(run_id, [DatasetInput(dataset=Dataset(name=read.name, digest=read.md5, source_type="dvc", source="{}"), tags=[])])
    at.client.log_artifacts(run_id, str(at.folder(OVERDUE)), "model")
    at.client.set_terminated(run_id)
    at.client.create_model_version("m", f"{at.client.get_run(run_id).info.artifact_uri}/model", run_id, await_creation_for=0)
