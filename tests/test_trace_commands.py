"""Projects that share a ledger see one another's plans."""

import shutil

import pytest
from asked_repository import asked, asked_template  # noqa: F401 - fixtures

from mlflow_unlearn.commands.requests import Requested, Terms, add_request
from mlflow_unlearn.commands.tracing import plan_request, this_project, trace_request
from mlflow_unlearn.errors import ConfigError
from mlflow_unlearn.stages.workbench import Workbench

pytestmark = pytest.mark.usefixtures("asked")


@pytest.fixture
def request_id(mlflow_store, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_store)
    return add_request(Requested(subjects=("ana",)), Terms(basis="gdpr_17"))["request_id"]


def test_a_plan_names_the_projects_that_have_not_traced_the_request(request_id, asked, monkeypatch):  # noqa: F811 - the fixture
    first = plan_request(request_id)
    assert (len(first["projects"]), first["not_traced"]) == (1, [])
    shutil.copytree(asked / "unlearn", asked / "second")
    monkeypatch.chdir(asked / "second")
    other = this_project(Workbench())
    Workbench().ledger.enrol(other, Workbench().ledger.get(request_id).received_at)
    monkeypatch.chdir(asked / "unlearn")
    assert plan_request(request_id)["not_traced"] == [other.name]


def test_two_folders_of_one_repository_are_two_projects(asked, monkeypatch):  # noqa: F811 - the fixture
    shutil.copytree(asked / "unlearn", asked / "second")
    names = [this_project(Workbench(asked / folder)).name for folder in ("unlearn", "second")]
    assert len(set(names)) == 2
    assert all(name.startswith("git-root:") for name in names)


def test_a_graph_of_another_ending_is_refused(request_id, tmp_path):
    with pytest.raises(ConfigError, match=r"expected a file name that ends in \.dot, \.svg, \.html"):
        trace_request(request_id, tmp_path / "graph.png")
    trace_request(request_id, tmp_path / "graph.html")
    assert request_id in (tmp_path / "graph.html").read_text()
