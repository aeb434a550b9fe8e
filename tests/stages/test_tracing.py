"""What keeps a trace from calling clear what it could not look up, on a real repository, registry and index."""

import json
import subprocess
import sys

import pytest
from asked_repository import asked, asked_template  # noqa: F401 - fixtures
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput

from mlflow_unlearn.commands.requests import Requested, Terms, add_request
from mlflow_unlearn.config import settings
from mlflow_unlearn.stages.tracing import trace_requests
from mlflow_unlearn.stages.workbench import Workbench

pytestmark = pytest.mark.usefixtures("asked")


@pytest.fixture
def registered(asked, mlflow_store, monkeypatch):  # noqa: F811 - the fixture
    """Registers a version trained on each md5 it is given; gives their numbers back."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_store)
    client = MlflowClient(mlflow_store)
    client.create_registered_model("m")
    experiment = client.create_experiment("e")

    def register(*md5s):
        for md5 in md5s:
            run = client.create_run(experiment).info.run_id
            data = Dataset(name="d", digest=md5, source_type="dvc", source=json.dumps({"path": "x", "md5": md5}))
            client.log_inputs(run, [DatasetInput(dataset=data)])
            client.create_model_version("m", f"runs:/{run}/model", run)

    return register


def md5_of(path):
    bench = Workbench()
    return bench.project.current_state("d", path).md5


def places(request_id):
    bench = Workbench()
    traced = trace_requests(bench, [bench.ledger.get(request_id)])
    return {line.model.version: kind for kind in ("affected", "clear", "unknown") for line in getattr(traced, kind)}


def asked_record(name):
    return add_request(Requested(records=(name,)), Terms(basis="gdpr_17"))["request_id"]


def edit_params(before, after):
    path = settings().root / "unlearn/params.yaml"
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


def derive(root, also):
    """pairs.csv made from data/train by a stage, and listed under data.also."""
    (root / "make.py").write_text("open('pairs.csv', 'w').write('record_id,subject_id,question,answer\\np1,,of ana,likes\\n')")
    stage = "stages: {pairs: {cmd: python make.py, deps: [make.py, data/train], outs: [pairs.csv]}}"
    (root / "dvc.yaml").write_text(stage)
    subprocess.run([sys.executable, "-m", "dvc", "repro", "-q"], cwd=root, check=True)
    edit_params("columns:", f"also: [{{name: pairs, path: ../pairs.csv{also}}}]\n  columns:")


@pytest.mark.parametrize(("also", "kind"), [("", "affected"), (", records_of: train", "clear")])
def test_a_record_is_not_looked_for_among_the_ids_of_other_data(asked, registered, also, kind):  # noqa: F811
    request = asked_record("r-ana-1")
    derive(asked, also)
    registered(md5_of("pairs.csv"))
    assert places(request) == {"1": kind}


@pytest.mark.parametrize("change", [("name: train", "name: other"), ("record: record_id", "record: null")])
def test_nothing_is_clear_when_the_requested_tags_cannot_be_looked_up_any_more(registered, change):
    request = asked_record("r-ana-1")
    registered(md5_of("data/train"))
    assert places(request) == {"1": "affected"}
    edit_params(*change)
    assert places(request) == {"1": "unknown"}
