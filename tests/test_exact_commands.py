"""`plan`, `replay` and `switch-off` on a real repository: what will be repeated is what is repeated, and a plan leaves everything as it was."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from asked_repository import ENVIRONMENT, asked, asked_template, people  # noqa: F401 - fixtures
from click.testing import CliRunner
from ensemble_files import small_base
from ruamel.yaml import YAML

from mlflow_unlearn.cli import main
from mlflow_unlearn.commands.exact import switch_off
from mlflow_unlearn.commands.forecasting import plan_deletion
from mlflow_unlearn.commands.requests import Requested, Terms, add_request, refuse_request
from mlflow_unlearn.commands.scaffolding import scaffold
from mlflow_unlearn.commands.signing_keys import Owner, Wanted, new_key
from mlflow_unlearn.digests import keyed_tag
from mlflow_unlearn.errors import ConfigError, LedgerError, LineageError
from mlflow_unlearn.lineage import ModelVersion, Parent
from mlflow_unlearn.sisa import shard_of
from mlflow_unlearn.stages.cutting import _data, cut_shards
from mlflow_unlearn.stages.families import shard_log
from mlflow_unlearn.stages.workbench import Workbench
from mlflow_unlearn.statements import Role

pytestmark = pytest.mark.e2e
NAMES = [f"{first}{last}" for first in ("ana", "bo", "cy", "dee", "eve", "fox") for last in ("k", "l", "m", "n")]
EXACT = {
    "shards": [0, 1, 2, 3],
    "slices": 2,
    "base": "base",
    "lora": None,
    "optimiser": {"epochs": 3, "learning_rate": 1e-3, "batch_size": 4},
    "cost_per_hour": 36.0,
}


def edit_params(folder: Path, **sections: Any) -> None:
    document = YAML().load(folder / "params.yaml")
    for name, content in sections.items():
        document.pop(name) if content is None else document.setdefault(name, {}).update(content)
    YAML().dump(document, folder / "params.yaml")


def run(root: Path, *command: str) -> None:
    subprocess.run(command, cwd=root, env=os.environ | ENVIRONMENT, check=True, capture_output=True)


def dvc(root: Path, *command: str) -> None:
    run(root, sys.executable, "-m", "dvc", *command)


def replace_data(root: Path, *names: str) -> None:
    (root / "data/train/a.csv").write_text(people(*names))
    (root / "data/train/b.csv").unlink(missing_ok=True)
    dvc(root, "add", "-q", "data/train")
    run(root, "git", "add", "-A")
    run(root, "git", "commit", "-q", "-m", "data")


def tracked_base(root: Path) -> None:
    """A base that DVC's graph leads back to a text without people."""
    small_base(root / "unlearn/base")
    dvc(root, "stage", "add", "-q", "-n", "base", "-d", "unlearn/corpus.txt", "-o", "unlearn/base", "echo made by the test")
    dvc(root, "commit", "-q", "-f", "base")


def train_family(bench: Workbench) -> None:
    """The stages of the exact route without an open request."""
    from mlflow_unlearn.stages import ensemble
    from mlflow_unlearn.stages.shard_training import train_here

    bench.write("split", {"requests": []})
    cut_shards(bench)
    train_here(bench, range(4))
    ensemble.run(bench)


@pytest.fixture(scope="module")
def trained(asked_template: Path, mlflow_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:  # noqa: F811 - the fixture
    """A family of four shards and two slices on 24 people, registered and champion; its pipeline's folder."""
    from mlflow_unlearn.stages.family_registration import register_family

    root = tmp_path_factory.mktemp("family") / "project"
    shutil.copytree(asked_template, root, symlinks=True)
    shutil.copy(mlflow_template, root / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        patch.chdir(root)
        scaffold(Path("unlearn"), model="m", data="data/train")
        edit_params(root / "unlearn", exact=EXACT, unlearn={"strategy": "exact", "checkpoint_minutes": None})
        tracked_base(root)
        replace_data(root, *NAMES)
        bench = Workbench(root / "unlearn")
        train_family(bench)
        assert "registered as trained" in register_family(bench)
        bench.registry.client.set_registered_model_alias("m", "champion", "1")
        yield root / "unlearn"


@pytest.fixture
def family(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The same for all tests; each leaves it without an open request."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(trained)
    yield trained
    ledger = Workbench().ledger
    for request in ledger.open():
        ledger.refuse(request.request_id, "withdrawn", datetime.now(UTC))


@pytest.fixture
def scaffolded(asked: Path, mlflow_store: str, monkeypatch: pytest.MonkeyPatch) -> Path:  # noqa: F811 - the fixture
    """No version is registered and nothing was trained."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_store)
    return asked / "unlearn"


def ask(*subjects: str) -> str:
    return str(add_request(Requested(subjects=subjects), Terms(basis="gdpr_17"))["request_id"])


def shard(name: str, shards: int = 4) -> int:
    return shard_of(keyed_tag(Workbench().key, "subject", name), shards)


def everything(root: Path) -> dict[Path, bytes]:
    """All files, git's, DVC's and MLflow's among them, but the caches of this package and of DVC."""
    files = {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    return {path: content for path, content in files.items() if path.parts[0] != ".unlearn" and path.parts[:2] != (".dvc", "tmp")}


def test_before_any_training_a_plan_counts_characters_and_knows_no_time(scaffolded: Path) -> None:
    found = plan_deletion(ask("ana"))
    assert (found["data"]["version"], found["data"]["records"], found["tokens_counted"], found["trained"]) == (None, 6, False, False)
    assert (found["forecast"]["people"], found["forecast"]["requested"]) == (1, 2)
    assert [each["shard"] for each in found["forecast"]["touched"]] == [shard("ana", 8)]
    assert found["forecast"]["again"]["seconds"] is None
    assert "not trained yet with these settings: the first run trains every shard, whatever is asked" in found["notes"]
    assert "models:/m@champion is not registered: counted on the dataset as it is here" in found["notes"]


def test_without_a_section_exact_a_plan_says_which_to_write(scaffolded: Path) -> None:
    edit_params(scaffolded, exact=None)
    found = plan_deletion(ask("ana"))
    assert (found["configured"], found["shape"]["shards"], found["recommendation"]["shards"]) == (False, 1, 1)  # six records are one shard
    assert found["settings"]["exact"]["shards"] == [0]
    said = CliRunner().invoke(main, ["plan", found["request"]])
    assert (said.exit_code, 'exact: {"shards": [0]' in said.output) == (0, True)


def test_an_unknown_request_is_refused_in_words(scaffolded: Path) -> None:
    with pytest.raises(LedgerError, match="er-none: no such request"):
        plan_deletion("er-none")
    assert CliRunner().invoke(main, ["plan", "er-none"]).exit_code == 2


def test_data_that_nobody_tracks_cannot_be_planned(scaffolded: Path) -> None:
    request = ask("ana")
    edit_params(scaffolded, data={"path": "../data/elsewhere"})
    said = CliRunner().invoke(main, ["plan", request])
    assert (said.exit_code, "../data/elsewhere: DVC does not track it" in said.stderr) == (2, True)


def test_nobody_with_an_open_request_is_trained_on(family: Path) -> None:
    before = _data(Workbench())
    ask("anak")
    after = _data(Workbench())
    assert (len(before.forgotten), len(after.forgotten)) == (0, 2)
    assert {record.tag for record in after.kept} == {record.tag for record in before.kept} - {record.tag for record in after.forgotten}


def test_a_plan_imports_no_torch_and_leaves_every_file_as_it_was(family: Path) -> None:
    request = ask("anak")
    before, head = everything(family.parent), Workbench().ledger.head()
    code = "import sys; from mlflow_unlearn.cli import main; main(sys.argv[1:], standalone_mode=False); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, "plan", request, "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["data"]["version"] == "m/1"
    assert everything(family.parent) == before
    assert {"mlflow.db", "params.yaml", "weights.safetensors", "ensemble.json"} <= {path.name for path in before}
    assert Workbench().ledger.head() == head


def test_a_plan_says_what_the_training_then_repeats(family: Path) -> None:
    found = plan_deletion(ask("bok"))
    (touched,) = found["forecast"]["touched"]
    replace_data(family.parent, *(name for name in NAMES if name != "bok"))
    kept = shutil.copytree(family / "build", family.parent / "kept")
    train_family(Workbench())
    log = shard_log(Workbench(), touched["shard"])
    shutil.rmtree(family / "build")
    kept.rename(family / "build")
    replace_data(family.parent, *NAMES)
    assert log is not None
    assert (log.resumed_after, sum(len(each.tags) for each in log.slices)) == (touched["resumes_before"], touched["records"])
    assert sum(each.tokens for each in log.slices[log.resumed_after :]) == pytest.approx(touched["tokens"], rel=0.02)


def test_a_trained_family_gives_time_and_price_and_all_replays_are_due(family: Path) -> None:
    found = plan_deletion(ask("bol"))
    again, full = found["forecast"]["again"], found["forecast"]["full"]
    assert found["trained"]
    assert 0 < again["seconds"] < full["seconds"]
    assert again["cost"] == pytest.approx(again["seconds"] / 100)
    assert found["forecast"]["replay"]["shards"] == 4
    assert found["recommendation"]["stage_share"] > 0


def test_other_open_requests_are_in_the_same_run(family: Path) -> None:
    first, second = ask("cyk"), ask("cyl")
    found = plan_deletion(first)
    assert {first, second} <= set(found["batch"]["requests"])
    assert {shard("cyk"), shard("cyl")} <= {each["shard"] for each in found["batch"]["forecast"]["touched"]}
    assert found["forecast"]["people"] == 1
    assert "with the other open requests in one run" in CliRunner().invoke(main, ["plan", first]).output


def test_a_pinned_parent_goes_before_what_the_alias_says(family: Path) -> None:
    request, bench = ask("cyk"), Workbench()
    earlier = next(state for state in bench.project.dataset_states("train", "data/train") if "v1" in state.revisions)
    pinned = Parent(model=ModelVersion(name="m", version="1"), tensor_digest="d", datasets=(earlier,))
    bench.ledger.pin_parent("m", "models:/m@champion", pinned)
    found = plan_deletion(request)
    bench.ledger.release_parent("m")
    assert (found["data"]["records"], found["forecast"]["requested"]) == (6, 0)  # v1 knew ana, bo and cy alone


def test_another_setting_is_another_family_and_said(family: Path) -> None:
    request = ask("cym")
    kept = (family / "params.yaml").read_bytes()
    edit_params(family, exact={"slices": 3})
    found = plan_deletion(request)
    (family / "params.yaml").write_bytes(kept)
    assert (found["trained"], found["tokens_counted"]) == (False, True)  # tokens stay tokens
    assert "not trained yet with these settings: the first run trains every shard, whatever is asked" in found["notes"]


def test_a_person_whom_the_version_never_saw_costs_nothing(family: Path) -> None:
    found = plan_deletion(ask("ana"))
    assert found["forecast"]["touched"] == []
    assert "none of the records are in this data: nothing has to be trained" in found["notes"]


def test_the_history_is_people_by_batch_without_the_refused(family: Path) -> None:
    refuse_request(ask("deel"), "withdrawn")
    own = Requested(subjects=("deem",), records=("r-deem-1", "r-deen-1"))
    add_request(own, Terms(basis="gdpr_17", received="2026-01-05T10:00:00Z"))
    found = plan_deletion(ask("evek"))["recommendation"]
    assert (found["batches"], found["assumed"]) == ([2, 1], False)


def test_what_was_switched_off_stays_off_for_the_next_request(family: Path) -> None:
    one, other = "anak", next(name for name in NAMES if shard(name) != shard("anak"))
    first, second = ask(one), ask(other)
    found, both = switch_off(first), switch_off(second)
    assert (found["parent"], found["off"], both["requests"]) == ("m/1", [shard(one)], sorted([first, second]))
    assert both["off"] == sorted([shard(one), shard(other)])
    assert both["signed"].startswith("lineage not signed: ")  # nobody has keys here
    assert switch_off(second) == both
    said = CliRunner().invoke(main, ["switch-off", second, "--version", "models:/m/1"]).output
    assert said.startswith(f"{both['version']}: m/1 without shard")
    assert Workbench().registry.client.get_model_version("m", both["version"].split("/")[1]).tags["unlearn.interim"] == "switched-off"


def test_where_a_trainers_key_is_a_family_and_its_interim_measures_are_signed(family: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow_unlearn.stages.family_registration import register_family

    for name, value in {"KEYS": str(tmp_path), "TRUST": str(tmp_path / "trust.json"), "PASSPHRASE": "a long passphrase"}.items():
        monkeypatch.setenv(f"MLFLOW_UNLEARN_{name}", value)
    new_key(Wanted(holder="ci", roles=(Role.OWNER, Role.TRAINER)), Owner())
    assert register_family(Workbench()).endswith("m/1 has these weights already; lineage signed by ci")
    assert switch_off(ask("foxn"))["signed"] == "lineage signed by ci"


def test_a_switch_off_says_why_not(family: Path) -> None:
    stranger, gone = ask("bo"), ask("foxk")
    refuse_request(gone, "withdrawn")
    with pytest.raises(LineageError, match="m/1 was trained on none of the records of"):
        switch_off(stranger, "models:/m/1")
    with pytest.raises(LedgerError, match="is refused, not open"):
        switch_off(gone)
    with pytest.raises(ConfigError, match="no shard would be left"):
        switch_off(ask(*NAMES))


def test_a_replay_of_a_registered_version_is_equal_and_ends_with_0(family: Path) -> None:
    done = CliRunner().invoke(main, ["replay", "models:/m/1", "--shard", "1", "--json"])
    found = json.loads(done.stdout)
    assert (done.exit_code, found["equal"], [each["shard"] for each in found["shards"]]) == (0, True, [1])
    assert found["shards"][0]["logged"] == found["shards"][0]["found"]


def test_a_replay_that_cannot_be_done_ends_with_2(family: Path) -> None:
    for arguments in (["models:/m/1", "--shard", "9"], ["models:/m/77"]):
        done = CliRunner().invoke(main, ["replay", *arguments])
        assert (done.exit_code, done.stderr.startswith("error: ")) == (2, True)


def test_a_replay_of_other_settings_is_unequal_and_ends_with_1(family: Path) -> None:
    log = next((family.parent / "mlartifacts").rglob("unlearn/shards/002.json"))
    kept = log.read_text()
    document = json.loads(kept)
    document["settings"]["optimiser"]["learning_rate"] = 2e-3
    log.write_text(json.dumps(document))
    done = CliRunner().invoke(main, ["replay", "models:/m/1", "--shard", "2"])
    log.write_text(kept)
    assert (done.exit_code, "no" in done.stdout) == (1, True)
