"""`gate` with 20,000 versions and 1,000 requests in the stores: CPU seconds of the whole command, Python and MLflow's import included."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import deployed
from asked_repository import build_repository, people
from registry_scale import VERSIONS, fill

from mlflow_unlearn.digests import keyed_tag
from mlflow_unlearn.records import Basis, Effect, ErasureRequest

REQUESTS, OTHERS = 1_000, 5_000
TARGET_S = 3.0
_ASK = """
import sys
from mlflow_unlearn.cli import main
try:
    main(["gate", "models:/m/2", "--json"])
except SystemExit as end:
    print(f"exit {end.code}, torch {'torch' in sys.modules}")
"""


def gate_row() -> tuple[str, float, str, float]:
    """(what, target, unit, measured): the best of three; it is no figure when the answer is not yes or torch was imported."""
    with tempfile.TemporaryDirectory() as home:
        root = store(Path(home))
        return (f"gate with {VERSIONS:,} versions, {REQUESTS:,} requests", TARGET_S, "CPU s", min(_cpu(root / "unlearn") for _ in range(3)))


def store(home: Path) -> Path:
    """The git root: a small repository with two signed versions, beside 20,000 others, and 999 requests about people whom these two never saw."""
    os.environ.update(deployed.ENVIRONMENT, MLFLOW_UNLEARN_PASSPHRASE=deployed.PASSPHRASE)
    root = home / "project"
    build_repository(root)
    _more_people(root)
    empty = home / "empty.db"
    migrate = "import sys; from mlflow import MlflowClient; MlflowClient(sys.argv[1]).search_experiments()"
    subprocess.run([sys.executable, "-c", migrate, f"sqlite:///{empty}"], check=True, capture_output=True)
    world = deployed.build(root, empty)
    fill(root / "mlflow.db")
    _ask(world)
    return root


def _more_people(root: Path) -> None:
    """A later revision of the data with five thousand others."""
    (root / "data/train/b.csv").write_text(people(*map(str, range(OTHERS))))
    for command in ([sys.executable, "-m", "dvc", "add", "-q", "data/train"], ["git", "add", "-A"], ["git", "commit", "-q", "-m", "v3"]):
        subprocess.run(command, cwd=root, check=True, capture_output=True)


def _ask(world: deployed.World) -> None:
    bench, now = world.bench, datetime.now(UTC).replace(microsecond=0)
    for number in range(REQUESTS - 1):
        tag = keyed_tag(bench.key, "subject", str(number))
        made = ErasureRequest(
            request_id=f"er-{now:%Y%m%d}-{number:08x}",
            basis=Basis.GDPR_17,
            effect=Effect.REMOVAL,
            received_at=now,
            due_at=now + timedelta(days=30),
            subjects=(tag,),
        )
        bench.ledger.add(made, now)


def _cpu(folder: Path) -> float:
    """User and system time of one process and of the git commands that it starts."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
    done = subprocess.run([sys.executable, "-c", _ASK], cwd=folder, env=environment, check=True, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if not done.stdout.endswith("exit 0, torch False\n"):
        raise SystemExit(f"gate: expected a yes without torch, found {done.stdout.strip()}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure() -> list[tuple[str, float, str, float]]:
    """(what, target, unit, measured) of each figure."""
    return [gate_row()]


if __name__ == "__main__":
    print(measure())
