"""Every known way round the gate, tried on a real server: refused or found out, in words, for the right reason, and without a trace."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.client import HTTPException
from pathlib import Path
from threading import Barrier

import attacks_on_files  # noqa: F401 - enters its attacks
import attacks_on_storage  # noqa: F401 - enters its attacks
import pytest
from asked_repository import asked_template  # noqa: F401 - a fixture
from attacked import FREE, GOOD, OVERDUE, Reply, Target, settle, wait
from attacks import ATTACKS, Attack, tried
from gated_server import Server, client_of, served_template  # noqa: F401 - a fixture
from mlflow.store.artifact import artifact_repository_registry as repositories

from mlflow_unlearn.adapters.statements import Statements
from mlflow_unlearn.commands.gate_log import Asked, gate_log
from mlflow_unlearn.errors import UnlearnError
from mlflow_unlearn.stages.workbench import Workbench

POINT = "registered-models/alias"
OURS = "refused by mlflow-unlearn"


@pytest.fixture(scope="module")
def attacked(served_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:  # noqa: F811 - the fixture
    root = tmp_path_factory.mktemp("attacked") / "project"
    shutil.copytree(served_template, root, symlinks=True)
    with Server(root=root) as server, client_of(root, server.uri):
        settle(at := Target(root, server))
        yield at


@pytest.fixture
def target(attacked: Target, monkeypatch: pytest.MonkeyPatch) -> Iterator[Target]:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with client_of(attacked.root, attacked.server.uri):
        yield attacked


def test_who_may_read_the_artifact_store_still_makes_a_blocked_version_forget(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    known = repositories._artifact_repository_registry._registry
    monkeypatch.setitem(known, "mlflow-artifacts", known["mlflow-artifacts"])  # what is registered here ends with the test
    with pytest.raises(UnlearnError, match="is blocked"), Statements(Workbench(target.root / "unlearn").registry).files(OVERDUE):
        pass
    monkeypatch.setenv("MLFLOW_UNLEARN_ARTIFACTS", f"file://{target.root}/mlartifacts")
    with Statements(Workbench(target.root / "unlearn").registry).files(OVERDUE) as folder:
        assert {"MLmodel", "model.safetensors"} <= {each.name for each in folder.iterdir()}


@pytest.mark.parametrize("attack", [pytest.param(each, id=each.name) for each in ATTACKS])
def test_no_attack_succeeds(target: Target, attack: Attack) -> None:
    tried(target, attack)


def test_the_threat_model_has_every_attack() -> None:
    told = (Path(__file__).parents[2] / "docs/threat-model.md").read_text()
    assert [each.name for each in ATTACKS if f"| {each.name} |" not in told] == []


@pytest.mark.parametrize(
    "changes",
    [{"version": each} for each in ("9" * 20, "1e9", "-1", "2.0", "", None, 2, True, ["2"], {"a": 1})]
    + [{"alias": each} for each in ("a" * 300, "a'\"\n", "x\0y", "'; DROP TABLE registered_model_aliases;--", 5, None, "v1", "latest")]
    + [{"name": each} for each in ("", "m/1", "no such model", "m\0", "x" * 300, "../m", None)],
    ids=lambda changes: ascii(changes)[:40],
)
def test_a_nonsensical_promotion_is_told_so(target: Target, changes: dict[str, object]) -> None:
    before = target.everything()
    reply = target.ask_for("POST", POINT, {"name": "m", "alias": "champion", "version": "2", **changes})
    assert 400 <= reply.status < 500, reply
    assert target.everything() == before


@pytest.mark.parametrize("version", ["\u0661", "1 ", "01"])
def test_a_number_in_other_letters_is_that_version(target: Target, version: str) -> None:
    reply = target.ask_for("POST", POINT, {"name": "m", "alias": "champion", "version": version})
    assert (reply.status, f"{OURS}: m/1 for" in reply.text) == (403, True)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("unlearn.certificate", each) for each in ("../../etc", "0" * 64, "", "%00", "y" * 100_001)),
        *(("unlearn." + each, "PASS") for each in ("x" * 300, "\0", "'; --", "verdict.\n")),
        ("unlearn.x", "y" * 100_001),
        ("unlearn.x", "\ud800"),
    ],
    ids=lambda part: ascii(part)[:30],
)
def test_a_nonsensical_tag_is_told_so(target: Target, key: str, value: str) -> None:
    before, reply = target.everything(), target.tag(GOOD, key, value)
    assert (reply.status, OURS in reply.text) == (403, True)
    assert target.everything() == before


@pytest.mark.parametrize("path", ["x%00y", "a%0Ab", "%252525252E", "../../x", "%2e%2e/x"])
def test_a_nonsensical_path_is_told_so(target: Target, path: str) -> None:
    assert [400 <= ask(path).status < 500 for ask in (target.get, target.put, target.drop)] == [True] * 3


def moves(at: Target) -> list[tuple[str, str]]:
    """Replaced and new version of every promotion of free@champion, in the order of the log, which holds."""
    document = gate_log(Asked(database=at.database, model="free", verify=True))
    assert document["problems"] == []
    return [(each["replaced"], each["version"]) for each in document["entries"] if each["alias"] == "champion" and each["moves"]]


def race(at: Target, *doors: Target) -> list[Reply]:
    barrier = Barrier(16)

    def promote(number: int) -> Reply:
        barrier.wait()
        return doors[number % len(doors)].point(FREE[number % 3])

    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(promote, range(16)))


def test_sixteen_clients_at_two_servers_get_one_order_and_words(target: Target) -> None:
    with Server(root=target.root) as second:
        replies = race(target, target, replace(target, server=second))
    assert {each.status for each in replies} <= {200, 409}, replies
    assert all(f"{OURS}: free/" in each.text and "was to replace" in each.text for each in replies if each.status == 409)
    seen = moves(target)
    assert len(seen) == sum(each.status == 200 for each in replies) > 0
    assert [before for before, _ in seen] == ["", *(after for _, after in seen[:-1])]
    assert f'"version": "{seen[-1][1]}"' in target.follow(name="free").text


def test_a_server_that_is_killed_while_it_promotes_leaves_alias_and_log_agreeing(target: Target) -> None:
    def promote() -> int:
        for number in range(1000):
            try:
                target.point(FREE[number % 3])
            except (OSError, HTTPException):
                return number
        return 0

    with ThreadPoolExecutor(1) as pool:
        enough = len(target.rows("unlearn_gate_log", model="free")) + 8
        promoting = pool.submit(promote)
        wait(lambda: len(target.rows("unlearn_gate_log", model="free")) > enough, every=0.001)
        target.server.stop(signal.SIGKILL)
        assert promoting.result() > 0
    target.server.start()
    (row,) = target.rows("registered_model_aliases", name="free", alias="champion")
    assert str(row["version"]) == moves(target)[-1][1]
    assert target.follow(name="free").status == target.point(FREE[0]).status == 200


def test_under_another_key_nobody_is_served_and_nothing_is_written(target: Target, tmp_path: Path) -> None:
    (tmp_path / "gate.key").write_bytes(b"k" * 32)
    (tmp_path / "gate.key").chmod(0o600)
    with Server(root=target.root, environment={"MLFLOW_UNLEARN_GATE_KEY_FILE": str(tmp_path / "gate.key")}) as other:
        replies = [replace(target, server=other).follow(), replace(target, server=other).point(GOOD)]
    assert all(each.status == 500 and "written under another key than this server's" in each.text for each in replies), replies
    assert target.verified() == Reply(0, "")
