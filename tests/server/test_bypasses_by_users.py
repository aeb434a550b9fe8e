"""With MLflow's basic-auth before the gate: nobody asks under another name, the log names who asked, and an administrator needs evidence too."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from asked_repository import asked_template  # noqa: F401 - a fixture
from attacked import AFFECTED, GOOD, Target
from gated_server import ADMIN, Server, client_of, served_template  # noqa: F401 - a fixture

from mlflow_unlearn.commands.gate_log import Asked, gate_log

ANA, BO = ("ana", "a-long-password-of-ana"), ("bo", "a-long-password-of-bo")
SPOOFED = {"X-Forwarded-User": "ana", "X-Remote-User": "ana", "Remote-User": "ana", "X-Forwarded-For": "127.0.0.1", "X-Mlflow-User": "ana"}


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


@pytest.fixture(scope="module")
def at(served_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:  # noqa: F811 - the fixture
    root = tmp_path_factory.mktemp("users") / "project"
    shutil.copytree(served_template, root, symlinks=True)
    with Server(root=root, app="basic-auth") as server, client_of(root, server.uri):
        made = Target(root, server)
        made.policy(enforcement={"default": "enforce"})
        for user, password in (ANA, BO):
            made.ask_for("POST", "users/create", {"username": user, "password": password}, headers=basic(*ADMIN))
        made.follow(headers=basic(*ADMIN))  # MLflow opens its registry when somebody first asks for it
        yield made


def last(at: Target) -> dict[str, Any]:
    with client_of(at.root, at.server.uri):
        return dict(gate_log(Asked(database=at.database))["entries"][-1])


@pytest.mark.parametrize("headers", [{}, SPOOFED, basic("ana", BO[1]), basic("ana", ""), {"Authorization": "Bearer x"}], ids=repr)
def test_who_is_not_known_promotes_nothing(at: Target, headers: dict[str, str]) -> None:
    before = at.everything(), len(at.rows("unlearn_gate_log"))
    assert at.point(GOOD, headers=headers).status == 401
    assert (at.everything(), len(at.rows("unlearn_gate_log"))) == before


def test_the_log_names_who_asked_whatever_the_headers_say(at: Target) -> None:
    assert at.point(GOOD, headers={**SPOOFED, **basic(*BO)}).status == 200
    found = last(at)
    assert (found["actor"], found["method"], found["path"], found["moves"]) == ("bo", "POST", "/api/2.0/mlflow/registered-models/alias", True)


@pytest.mark.parametrize("who", [ANA, ADMIN], ids=["a user", "the administrator"])
def test_nobody_promotes_without_evidence(at: Target, who: tuple[str, str]) -> None:
    before, reply = at.everything(), at.point(AFFECTED, headers=basic(*who))
    assert (reply.status, "refused by mlflow-unlearn: m/1 for 'champion'" in reply.text, at.everything() == before) == (403, True, True)
    found = last(at)
    assert (found["actor"], found["outcome"], found["version"]) == (who[0], "refused", "1")
