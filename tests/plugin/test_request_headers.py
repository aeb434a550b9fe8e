"""The header that names the version a promotion replaces: in requests of a promotion alone, and read by the server as it was meant."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from flask import Flask, g
from mlflow.tracking.request_header.registry import resolve_request_headers

from mlflow_unlearn.adapters.alias_header import REPLACES, replaced, replacing
from mlflow_unlearn.plugin.request_headers import ReplacedVersion
from mlflow_unlearn.server.callers import Caller, caller, lost_race


def headers() -> dict[str, str]:
    """As MLflow asks a provider."""
    provider = ReplacedVersion()
    return provider.request_headers() if provider.in_context() else {}


@pytest.mark.parametrize(("version", "said"), [("2", "2"), (None, "none"), ("", "none")])
def test_a_promotion_names_the_version_that_it_replaces_and_nobody_else_names_any(version, said):
    assert headers() == {}
    with replacing(version):
        assert headers() == {REPLACES: said}
    assert headers() == {}


def test_one_promotion_within_another_names_its_own_and_a_failed_one_leaves_nothing():
    with replacing("1"):
        with pytest.raises(RuntimeError, match="stop"), replacing("2"):
            raise RuntimeError("stop")
        assert headers() == {REPLACES: "1"}
    assert replaced.get() is None


def test_another_thread_names_nothing():
    found: list[dict[str, str]] = []
    with replacing("1"):
        thread = threading.Thread(target=lambda: found.append(headers()))
        thread.start()
        thread.join()
    assert found == [{}]


def test_mlflow_finds_the_provider_by_its_entry_point():
    with replacing("7"):
        assert resolve_request_headers().get(REPLACES) == "7"
    assert REPLACES not in resolve_request_headers()


def asked(user: object = None, **sent: str) -> Caller:
    """What a server makes of a request."""
    app = Flask("asked", root_path=str(Path(__file__).parent))  # it looks for no folder of that name then
    with app.test_request_context("/api/2.0/mlflow/registered-models/alias?x=1", method="POST", headers=sent):
        if user is not None:
            g.mlflow_authenticated_user = user
        return caller()


def test_the_server_reads_it_as_it_was_sent():
    assert [asked(**({} if sent is None else {REPLACES: sent})).replaces for sent in (None, "none", "2", "x" * 50)] == [None, "", "2", "x" * 20]


def test_who_asks_is_whom_mlflow_found_out_and_never_what_the_client_says():
    assert asked(Authorization="Basic YWRtaW46eA==", **{"X-User": "admin"}) == Caller(
        user="anonymous", method="POST", path="/api/2.0/mlflow/registered-models/alias"
    )
    assert asked("ana").user == "ana"
    assert len(asked("a" * 500).user) == 128


def test_outside_a_request_it_is_the_user_of_this_machine(monkeypatch):
    monkeypatch.setenv("LOGNAME", "somebody")
    assert caller() == Caller(user="somebody", path="python")


@pytest.mark.parametrize(
    ("replaces", "before", "now", "version", "late"),
    [
        (None, "1", "1", "2", False),
        (None, "1", "3", "2", True),
        (None, "", "", "2", False),
        (None, "1", "2", "2", False),
        ("1", "3", "3", "2", True),
        ("1", "3", "1", "2", False),
        ("", "1", "1", "2", True),
        ("", "", "", "2", False),
        ("9", "1", "2", "2", False),
    ],
)
def test_a_promotion_is_late_when_the_alias_points_neither_where_it_was_thought_to_nor_where_it_shall(replaces, before, now, version, late):
    words = lost_race(Caller(user="ana", replaces=replaces), before, now, version)
    assert (words is not None) is late
    if words:
        assert words.startswith(f"it points at version {now or 'none'} now, and was to replace ")
