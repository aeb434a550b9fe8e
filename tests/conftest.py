"""What every test starts from: MLflow forgets the last test, and a new tracking store costs a copy instead of its migrations."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from mlflow_unlearn.lineage import DatasetRevision, ModelVersion, Parent
from mlflow_unlearn.records import CanaryTest, Claim, Condition, Direction, Effect, Evaluation, ModelReport, Outcome, Score, Unlearned, Verdict

os.environ.update(
    MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false",
    MLFLOW_DISABLE_TELEMETRY="true",
    GIT_PYTHON_REFRESH="quiet",
    DVC_NO_ANALYTICS="1",
    HF_HUB_OFFLINE="1",
    OMP_NUM_THREADS="1",
)
hypothesis.settings.register_profile("no wall time", deadline=None)
hypothesis.settings.load_profile("no wall time")
_THIRD_PARTY = (
    r"ignore:fetch_arrow_table\(\) is deprecated",  # Ibis 12 with DuckDB 2
    r"ignore:The ``noload`` loader strategy is deprecated",  # MLflow 3.17's tables under SQLAlchemy 2.1
    r"ignore:.*Any type hint is inferred as AnyType",  # MLflow about a type of its own, when pyfunc is first imported
)
_OURS = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME")


def pytest_configure(config: pytest.Config) -> None:
    """Warnings are errors, except those that other libraries cause each other, by their exact words."""
    for words in _THIRD_PARTY:
        config.addinivalue_line("filterwarnings", words)


_REAL = re.compile(
    r"adapters/test_(dvc_|git_|registry|registration|ledger|record_index|index_|workspace_|training|trained|commitment|great_exp|models|tag_set|keyed|gate_|storage_loc|file_list|kept_sub)"
    r"|plugin/|server/|stages/|laws/test_(index|lineage|registry|trace)|test_(request|ledger|guard|commitment|gating|promoting)_commands|test_cli_ledger|test_(siphash|finger)"
)
"""Modules that work on real Git, DVC, MLflow and databases, or draw many examples: seconds each, so that `make check` leaves them to `make test`."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _REAL.search(item.path.relative_to(Path(__file__).parent).as_posix()):
            item.add_marker("e2e")


@pytest.fixture(autouse=True)
def mlflow_forgets(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """MLflow keeps URIs, the experiment and the active run in module globals and variables; a test must not hand them on."""
    for name in _OURS:  # for good: what a module's fixture left here would come back after each of its tests
        os.environ.pop(name, None)
    for name in ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    yield
    if "mlflow" in sys.modules:  # most tests never import it
        _reset_mlflow()
    for name in _OURS:
        os.environ.pop(name, None)


def _reset_mlflow() -> None:
    import mlflow

    while mlflow.active_run():
        mlflow.end_run()
    mlflow.set_tracking_uri(None)
    mlflow.set_registry_uri(None)
    mlflow.tracking.fluent._active_experiment_id = None


@pytest.fixture(scope="session")
def mlflow_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated sqlite store with nothing in it, made once."""
    path = tmp_path_factory.mktemp("mlflow") / "template.db"
    code = "import sys; from mlflow import MlflowClient; MlflowClient(sys.argv[1]).search_experiments()"
    subprocess.run([sys.executable, "-c", code, f"sqlite:///{path}"], check=True, capture_output=True)
    return path


@pytest.fixture
def mlflow_store(mlflow_template: Path, tmp_path: Path) -> str:
    """Tracking URI of an empty store of this test's own, at tmp_path/mlflow.db."""
    shutil.copy(mlflow_template, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.fixture
def unlearned() -> Unlearned:
    """A run that made two requests forgotten, with weights of any digest."""
    state = DatasetRevision(name="customers", path="data/customers/train", md5="a" * 32 + ".dir", revisions=("data-v1",))
    return Unlearned(
        requests=("er-1", "er-2"),
        parent=Parent(model=ModelVersion(name="customers", version="2"), tensor_digest="c" * 64, datasets=(state,)),
        tensor_digest="d" * 64,
        split_digest="e" * 64,
        method={"name": "npo", "beta": 0.1, "optimiser": {"epochs": 2}},
        claim=Claim.APPROXIMATE,
        steps=2,
        seconds=1.5,
        stopped="all epochs done",
        losses=({"loss": 2.0}, {"loss": 1.0}),
    )


@pytest.fixture
def evaluation(unlearned: Unlearned) -> Evaluation:
    """One probability of the request's records and one attack on canaries in each state."""
    score = Score(value=0.5, low=0.4, high=0.6, n=800, direction=Direction.NEAR_CENTRE)
    test = CanaryTest(attack="loss", auc=score, auc_upper={"0.95": 0.1}, p_member=0.4, p_non_member=0.6, epsilon=0.0, detectable_epsilon=4.0)
    report = ModelReport(scores={name: {"probability": score} for name in ("requested", "retain")}, canaries=(test,))
    return Evaluation(
        requests=unlearned.requests,
        parent=unlearned.parent,
        unlearned=unlearned.tensor_digest,
        split_digest=unlearned.split_digest,
        attempt=1,
        pool_spent_by=None,
        before=report,
        after=report,
        after_finetune=report,
        utility={"retain/exact_memorization": score},
    )


@pytest.fixture
def verdicts() -> tuple[Verdict, Verdict]:
    """Removal failed on one condition, suppression passed."""
    broken = Condition(name="canaries after the benign fine-tune", holds=False, detail="upper limit of |AUC - 0.5| is 0.300", failure=True)
    removal = Verdict(effect=Effect.REMOVAL, outcome=Outcome.FAIL, reasons=(f"{broken.name}: {broken.detail}",), conditions=(broken,))
    return removal, Verdict(effect=Effect.SUPPRESSION, outcome=Outcome.PASS, reasons=("every condition holds",), conditions=())
