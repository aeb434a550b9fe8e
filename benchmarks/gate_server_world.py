"""Projects whose registry stands behind the gate, in this process: a small one, and one with 20,000 other versions and 1,000 requests."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

sys.path.extend(str(Path(__file__).resolve().parents[1] / folder) for folder in ("tests", "tests/server", "tests/adapters"))

import deployed
import gate_scale
from asked_repository import SETTINGS, build_repository
from gated_world import Gated
from mlflow import MlflowClient

from mlflow_unlearn.lineage import ModelVersion

FEW, MANY = 12, 500
_FORGOTTEN = (*SETTINGS, "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_UNLEARN_TRUST", "MLFLOW_UNLEARN_KEYS", "MLFLOW_UNLEARN_SIGNER")


@dataclass(frozen=True, kw_only=True)
class Stand:
    """One project: its registry with the gate and without, on the same database, and versions that the gate says yes to."""

    gated: Gated
    plain: MlflowClient
    few: tuple[ModelVersion, ModelVersion]
    """Of 12 files each."""
    many: tuple[ModelVersion, ModelVersion]
    """Of 500 files each."""

    @property
    def root(self) -> Path:
        """The git root."""
        return self.gated.world.root


def small(home: Path) -> Stand:
    """A project with one request, and no versions but those that are measured."""
    _environment()
    root = build_repository(home / "project")
    return stand(deployed.build(root, _empty(home)))


def large(home: Path) -> Stand:
    """The same beside 20,000 other versions, with 1,000 requests."""
    _environment()
    return stand(deployed.World(gate_scale.store(home)))


def stand(world: deployed.World) -> Stand:
    """Register what is measured, sign it, and have the gate's no about it hold."""
    os.chdir(world.root / "unlearn")
    few, many = [(_clear(world, weights, files), _clear(world, weights + 1, files)) for weights, files in ((3.0, FEW), (5.0, MANY))]
    gated = behind(world, f"sqlite:///{world.root}/mlflow.db")
    gated.enforce()
    return Stand(gated=gated, plain=MlflowClient(*[f"sqlite:///{world.root}/mlflow.db"] * 2), few=few, many=many)


def behind(world: deployed.World, database: str) -> Gated:
    """A client of the registry in a database, with the gate in it."""
    os.environ["MLFLOW_UNLEARN_PROJECT"] = str(world.root / "unlearn")
    gated = Gated(world, MlflowClient(database, f"unlearn-{database}"))
    if gated.store.warden.terms() is None:
        raise SystemExit("the gate cannot read its settings")
    return gated


@contextmanager
def postgres() -> Iterator[str]:
    """URI of an empty database on a real Postgres of this process's own."""
    import ledger_databases

    with contextmanager(ledger_databases.postgres.__wrapped__)() as server:
        yield ledger_databases._new_database(server)


def filled(folder: Path, files: int) -> None:
    """So many files in a model's folder, in all."""
    for number in range(files - sum(path.is_file() for path in folder.iterdir())):
        (folder / f"part-{number:03d}.txt").write_text(f"part {number}\n")


def _clear(world: deployed.World, weights: float, files: int) -> ModelVersion:
    """A version that no request reaches, with signed lineage."""
    made = world.version(weights, world.state("v2"))
    source = world.bench.registry.client.get_model_version(made.name, made.version).source
    filled(Path(source.removeprefix("file://")), files)
    world.attest(made)
    return made


def _environment() -> None:
    for name in _FORGOTTEN:
        os.environ.pop(name, None)
    os.environ.update(deployed.ENVIRONMENT, MLFLOW_UNLEARN_PASSPHRASE=deployed.PASSPHRASE)


def _empty(home: Path) -> Path:
    """A database with MLflow's tables."""
    empty = home / "empty.db"
    migrate = "import sys; from mlflow import MlflowClient; MlflowClient(sys.argv[1]).search_experiments()"
    subprocess.run([sys.executable, "-c", migrate, f"sqlite:///{empty}"], check=True, capture_output=True)
    return empty
