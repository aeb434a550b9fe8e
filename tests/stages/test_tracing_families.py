"""A trace over a family of shards in a real repository and registry: what it was trained on decides, and the tag of a person leads to their shard."""

from __future__ import annotations

from pathlib import Path

import pytest
from asked_repository import asked, asked_template  # noqa: F401 - fixtures
from click.testing import CliRunner
from ensemble_files import cut_shards, small_base

from mlflow_unlearn import ensembles
from mlflow_unlearn.adapters import registration
from mlflow_unlearn.adapters.registration import SwitchedOff, Trained, Weights
from mlflow_unlearn.cli import main
from mlflow_unlearn.commands.requests import Requested, Terms, add_request
from mlflow_unlearn.commands.tracing import trace_request
from mlflow_unlearn.stages.tracing import resolve_parent
from mlflow_unlearn.stages.workbench import Workbench


@pytest.fixture
def bench(asked: Path, mlflow_store: str, monkeypatch: pytest.MonkeyPatch) -> Workbench:  # noqa: F811 - the fixture
    """Families trained on v1, which holds bo, and on v2, which does not."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_store)
    bench, home = Workbench(), asked.parent
    cut = cut_shards(small_base(home / "base"), home / "shards")
    states = {name: state for state in bench.project.dataset_states("customers", "data/train") for name in state.revisions}
    for revision in ("v1", "v2"):
        folder = cut.assembled(home / revision)
        if revision == "v2":
            ensembles.write(folder, cut.manifest.without((3,)))
            (folder / "shard-003.safetensors").unlink()
        weights = Weights(folder=folder, base=cut.base, base_apart=True)
        registration.register_trained(bench.registry, "m", Trained(weights=weights, datasets=(states[revision],), shard_logs={}, description=""))
    return bench


def lines(traced: dict[str, list[dict[str, object]]], kind: str) -> list[str]:
    return [line["model"]["version"] for line in traced[kind]]  # type: ignore[index]


def test_a_trace_tells_the_family_that_saw_a_person_from_the_one_that_did_not(bench: Workbench) -> None:
    request = add_request(Requested(subjects=("bo",)), Terms(basis="gdpr_17"))["request_id"]
    traced = trace_request(request)
    assert (lines(traced, "affected"), lines(traced, "clear"), lines(traced, "unknown")) == (["1"], ["2"], [])


def test_an_interim_version_stays_affected(bench: Workbench) -> None:
    request = add_request(Requested(subjects=("bo",)), Terms(basis="gdpr_17"))["request_id"]
    parent = resolve_parent(bench, bench.registry.resolve("models:/m/1"))
    registration.register_switched_off(bench.registry, "m", SwitchedOff(parent=parent, requests=(request,), shards=(0,)))
    assert lines(trace_request(request), "affected") == ["1", "3"]


def test_the_tag_command_gives_the_tags_of_the_index_line_by_line(bench: Workbench) -> None:
    done = CliRunner().invoke(main, ["tag", "--subjects", "-"], input="ana\n\nbo\nnobody\n")
    found = done.output.split("\n")
    assert (done.exit_code, found[1], len(found[3])) == (0, "", 32)
    _, subjects = add_and_show(bench)
    assert subjects == (found[0],)


def add_and_show(bench: Workbench) -> tuple[str, tuple[str, ...]]:
    request = add_request(Requested(subjects=("ana",)), Terms(basis="gdpr_17"))["request_id"]
    return request, bench.ledger.get(request).subjects
