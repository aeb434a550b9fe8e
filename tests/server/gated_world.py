"""The deployed repository of deployed.py behind the gated store, without a server: decisions are made and looked at in this process."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest
from deployed import FORGOT, TRAINED, World, _built, asked_template, world  # noqa: F401 - fixtures
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from ruamel.yaml import YAML

from mlflow_unlearn.adapters.gate_log import Entry
from mlflow_unlearn.commands.signing_keys import Owner, trust_policy
from mlflow_unlearn.lineage import ModelVersion
from mlflow_unlearn.server.opening import open_store
from mlflow_unlearn.server.registry_store import GatedStore
from mlflow_unlearn.server.warden import Warden

ALIAS = "champion"
_CLOCKS = ("decisions", "warden", "survey", "custody", "reserved_tags", "terms")


@dataclass(frozen=True)
class Gated:
    """Such a world with a client of its gated registry."""

    world: World
    client: MlflowClient

    @property
    def store(self) -> GatedStore:
        found: GatedStore = self.client._get_registry_client().store
        return found

    @property
    def warden(self) -> Warden:
        return self.store.warden

    @property
    def uri(self) -> str:
        return f"unlearn-sqlite:///{self.world.root}/mlflow.db"

    def restarted(self) -> GatedStore:
        """Another store on the same database."""
        return open_store(self.uri)

    def policy(self, *, signed: bool = True, **gate: Any) -> None:
        """Change keys of policy.yaml's section `gate`; the owner stands for it where not said otherwise."""
        yaml, path = YAML(), self.world.root / "unlearn/policy.yaml"
        document = yaml.load(path)
        document["gate"].update(gate)
        yaml.dump(document, path)
        if signed:
            trust_policy(Owner(reference="owner"))

    def enforce(self, how: str = "enforce", **gate: Any) -> None:
        self.policy(enforcement={"default": "observe", "m": how}, **gate)

    def point(self, model: ModelVersion | str, alias: str = ALIAS, name: str = "m") -> None:
        self.client.set_registered_model_alias(name, alias, str(model).rpartition("/")[2])

    def follow(self, alias: str = ALIAS) -> str:
        return str(self.client.get_model_version_by_alias("m", alias).version)

    def refused(self, *asked: Any) -> str:
        """The words of a refusal: of pointing, where a version is named first, else of following."""
        with pytest.raises(MlflowException, match="refused by mlflow-unlearn") as told:
            self.point(*asked) if asked and not isinstance(asked[0], str) else self.follow(*asked)
        assert told.value.error_code == "PERMISSION_DENIED"
        return str(told.value.message)

    def entries(self) -> list[Entry]:
        """The log, read as it is verified."""
        with self.store.engine.connect() as connection:
            return [each.entry for each in self.warden.clerk.log.entries(connection)]

    def told(self, *names: str) -> list[tuple[Any, ...]]:
        """These fields of every entry."""
        return [tuple(getattr(each, name) for name in names) for each in self.entries()]

    def look(self) -> None:
        """What the server does beside its requests."""
        self.warden.settle()
        self.warden.survey()

    def read(self, version: str) -> str:
        return str(self.client.get_model_version_download_uri("m", version))

    def sql(self, statement: str, values: Sequence[Any] = ()) -> None:
        """As somebody with the database's password would."""
        with sqlite3.connect(self.world.root / "mlflow.db") as tables:
            tables.execute(statement, values)
        tables.close()

    def clear(self, name: str = "m") -> ModelVersion:
        """A version that no request reaches, with signed lineage."""
        made = self.world.version(3.0, self.world.state("v2"), name=name)
        self.world.attest(made)
        return made


@pytest.fixture
def gated(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gated]:  # noqa: F811
    """Nothing is enforced yet."""
    monkeypatch.setenv("MLFLOW_UNLEARN_PROJECT", str(world.root / "unlearn"))
    with sqlite3.connect(world.root / "mlflow.db") as tables:
        tables.execute("update model_versions set storage_location = source")
    tables.close()
    database = f"sqlite:///{world.root}/mlflow.db"
    made = Gated(world, MlflowClient(database, f"unlearn-{database}"))
    yield made
    made.store.engine.dispose()


@pytest.fixture
def enforced(gated: Gated) -> Gated:
    """The gate's no about `m` holds."""
    gated.enforce()
    return gated


def unplug(gated: Gated) -> None:
    """Let the ledger answer nobody."""
    ledger = gated.world.root / ".unlearn/ledger.db"
    assert ledger.exists()
    ledger.rename(ledger.with_name("elsewhere"))
    ledger.mkdir()


def later(monkeypatch: pytest.MonkeyPatch, **passed: float) -> None:
    """Let so much time pass for the server."""

    class Later(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + timedelta(**passed)

    for name in _CLOCKS:
        monkeypatch.setattr(f"mlflow_unlearn.server.{name}.datetime", Later)
