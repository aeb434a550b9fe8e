"""Deliveries of MLflow's webhooks over HTTP: MLflow's own signature is the oracle, and its own sender delivers."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import uuid
from contextlib import contextmanager

import pytest
import requests
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.entities.webhook import VALID_ENTITY_ACTIONS, WebhookEvent
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore
from mlflow.webhooks import delivery as mlflow_delivery
from mlflow.webhooks.types import get_example_payload_for_event

from mlflow_unlearn.cli import main
from mlflow_unlearn.commands import webhooks as commands
from mlflow_unlearn.errors import ConfigError, StoreError
from mlflow_unlearn.server import webhooks
from mlflow_unlearn.server.webhooks import EVENTS, STOPS_NOTHING, Receiver, RefusedDeliveryError, SeenIds, checked

SECRET, NEXT = "s" * 32, "n" * 32
ALL_EVENTS = [WebhookEvent(entity, action) for entity, actions in VALID_ENTITY_ACTIONS.items() for action in sorted(actions)]
ALIAS_SET = WebhookEvent.from_str("model_version_alias.created")


def body(event=ALIAS_SET, **changes):
    document = {"entity": event.entity.value, "action": event.action.value, "timestamp": "2026-11-27T08:00:00+00:00"}
    return json.dumps({**document, "data": dict(get_example_payload_for_event(event)), **changes})


def headers(text, secret=SECRET, at=None, delivery_id=None):
    """As MLflow's `_send_webhook_request` makes them."""
    delivery_id, at = delivery_id or str(uuid.uuid4()), str(int(time.time() if at is None else at))
    signed = {"X-MLflow-Delivery-Id": delivery_id, "X-MLflow-Timestamp": at}
    signature = mlflow_delivery._generate_hmac_signature(secret, delivery_id, at, text)
    return {"Content-Type": "application/json", **signed, "X-MLflow-Signature": signature}


@contextmanager
def receiving(ask, tell, secrets=(SECRET, NEXT)):
    """A receiver that listens on a free port; its address."""
    receiver = Receiver(secrets, ask, tell)
    listener = commands.opened("127.0.0.1", 0)
    serving = commands.server(receiver)
    thread = threading.Thread(target=serving.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    finally:
        serving.should_exit = True
        thread.join()
        receiver.close()


def answered(uri, alias):
    if "broken" in uri:
        raise StoreError("registry: no answer\nledger: no answer")
    return {"version": uri, "alias": alias, "answer": "no"}


TOLD: queue.Queue = queue.Queue()


@pytest.fixture(scope="module")
def address():
    with receiving(answered, TOLD.put) as where:
        yield where


def post(address, text, **how):
    made = {name: how.pop(name) for name in ("secret", "at", "delivery_id") if name in how}
    return requests.post(address, data=text.encode(), headers={**headers(text, **made), **how}, timeout=5)


def refused(address, text, **how):
    found = post(address, text, **how)
    assert TOLD.empty()
    return found.status_code, found.json()["error"]


def told():
    return TOLD.get(timeout=10)


@pytest.mark.parametrize("secret", [SECRET, NEXT])
def test_a_delivery_signed_with_any_of_the_secrets_is_taken_at_once_and_told_with_the_gates_answer(address, secret):
    found = post(address, body(), secret=secret)
    assert (found.status_code, found.json()) == (202, {"note": STOPS_NOTHING})
    line = told()
    assert (line["event"], line["model"], line["version"], line["alias"]) == ("model_version_alias.created", "example_model", "1", "example_alias")
    assert line["gate"] == {"version": "models:/example_model/1", "alias": "example_alias", "answer": "no"}
    assert line["note"] == STOPS_NOTHING


def test_every_event_of_mlflow_is_known_and_no_other():
    assert {str(event) for event in ALL_EVENTS} == EVENTS.keys()


@pytest.mark.parametrize("event", ALL_EVENTS, ids=str)
def test_mlflows_own_example_of_every_event_is_understood_and_the_gate_asked_where_a_version_is_named(address, event):
    assert post(address, body(event)).status_code == 202
    line, data = told(), get_example_payload_for_event(event)
    assert (line["gate"] is not None) == (str(event).startswith("model_version") and "version" in data)


def test_values_of_tags_and_descriptions_are_not_told(address):
    event = WebhookEvent.from_str("model_version_tag.set")
    post(address, body(event, data={"name": "m", "version": "1", "key": "note", "value": "about Ana"}))
    assert "Ana" not in json.dumps(told())


def test_a_wrong_secret_is_refused(address):
    status, words = refused(address, body(), secret="w" * 32)
    assert (status, words.split(":")[0]) == (401, "X-MLflow-Signature")
    assert SECRET not in words


def test_a_changed_body_id_or_time_is_refused(address):
    signed = headers(body(), delivery_id="one")
    later = str(int(signed["X-MLflow-Timestamp"]) + 1)
    for text, change in ((body().replace('"1"', '"2"'), {}), (body(), {"X-MLflow-Delivery-Id": "two"}), (body(), {"X-MLflow-Timestamp": later})):
        assert requests.post(address, data=text, headers={**signed, **change}, timeout=5).status_code == 401
    assert TOLD.empty()


def test_an_unsigned_delivery_is_refused_with_what_is_missing(address):
    found = requests.post(address, data=body(), headers={"Content-Type": "application/json"}, timeout=5)
    assert (found.status_code, found.json()["error"].split(":")[0]) == (401, "X-MLflow-Delivery-Id, X-MLflow-Timestamp, X-MLflow-Signature")


def test_a_delivery_that_came_before_is_refused(address):
    signed = headers(body())
    assert [requests.post(address, data=body(), headers=signed, timeout=5).status_code for _ in range(3)] == [202, 409, 409]
    told()
    assert TOLD.empty()


@pytest.mark.parametrize("away", [-301, 302])
def test_a_delivery_of_another_time_is_refused(address, away):
    status, words = refused(address, body(), at=time.time() + away)
    assert (status, "more than 300 s from the clock here" in words) == (401, True)


def test_a_huge_body_is_refused_before_it_is_read_as_anything(address):
    status, words = refused(address, body() + " " * webhooks.MOST_BYTES)
    assert (status, words) == (413, "body: longer than 1048576 bytes")


def test_another_content_type_is_refused(address):
    assert refused(address, body(), **{"Content-Type": "text/plain"})[0] == 415


@pytest.mark.parametrize("text", ["{", "", "\ufffe", "[" * 100_000, "NaN,"])
def test_what_is_not_json_is_refused(address, text):
    assert refused(address, text) == (400, "body: not JSON")


WRONG = {
    "a list": "[]",
    "no data": '{"entity": "model_version", "action": "created"}',
    "unknown event": body(action="renamed"),
    "an event that is a list": body(entity=["model_version"]),
    "no version": body(data={"name": "m", "alias": "champion"}),
    "a version that is a number": body(data={"name": "m", "alias": "champion", "version": 1}),
    "a version that is none": body(data={"name": "m", "alias": "champion", "version": "1/../2"}),
    "a model that is a path": body(data={"name": "m/../k", "alias": "champion", "version": "1"}),
    "a model without name": body(data={"name": "", "alias": "champion", "version": "1"}),
    "an endless alias": body(data={"name": "m", "alias": "a" * 501, "version": "1"}),
}


@pytest.mark.parametrize("text", WRONG.values(), ids=WRONG)
def test_what_mlflow_does_not_send_is_refused_without_being_repeated(address, text):
    status, words = refused(address, text)
    assert (status, words.startswith("body: ")) == (422, True)
    assert not {"renamed", "champion", "m/../k", "1/../2"} & set(words.replace(",", " ").split())


def test_only_post_to_the_root_is_answered(address):
    assert [requests.get(address + path, timeout=5).status_code for path in ("", "docs", "openapi.json")] == [405, 404, 404]


def test_a_gate_that_cannot_be_asked_is_told_as_undecided_with_the_reasons(address):
    post(address, body(data={"name": "broken", "alias": "champion", "version": "1"}))
    gate = told()["gate"]
    assert (gate["answer"], gate["reasons"]) == ("undecided", ["registry: no answer", "ledger: no answer"])


@settings(max_examples=30)
@given(st.text(), st.text(), st.text(), st.binary(max_size=200))
def test_nothing_that_is_unsigned_gets_through(delivery_id, at, signature, content):
    made = {"content-type": "application/json", "x-mlflow-delivery-id": delivery_id, "x-mlflow-timestamp": at, "x-mlflow-signature": signature}
    with pytest.raises(RefusedDeliveryError, match="X-MLflow"):
        checked(made, content, [SECRET], 1_700_000_000.0)


def delivered(number, now):
    text = body()
    made = {name.lower(): value for name, value in headers(text, at=now, delivery_id=f"d{number}").items()}
    return checked(made, text.encode(), [SECRET], now)


def test_ids_are_remembered_for_as_long_as_their_time_may_be_valid_and_memory_is_bounded():
    seen = SeenIds(most=2)
    for number in (1, 2):
        seen.check(delivered(number, 1000), 1000)
        seen.add(delivered(number, 1000), 1000)
    with pytest.raises(RefusedDeliveryError, match="came before"):
        seen.check(delivered(1, 1000), 1600)
    with pytest.raises(RefusedDeliveryError, match="too many") as full:
        seen.check(delivered(3, 1000), 1600)
    assert full.value.status == 503
    seen.check(delivered(3, 1000), 1601)


def test_a_full_line_answers_503_and_the_delivery_may_come_again(monkeypatch):
    monkeypatch.setattr(webhooks, "MOST_WAITING", 1)
    go, lines, text = threading.Event(), queue.Queue(), body()
    with receiving(lambda *_: {"waited": go.wait(10)}, lines.put) as where:
        assert post(where, text).status_code == 202
        again = headers(text)
        assert requests.post(where, data=text, headers=again, timeout=5).status_code == 503
        go.set()
        lines.get(timeout=10)
        time.sleep(0.05)  # until the worker has said that it is free
        assert requests.post(where, data=text, headers=again, timeout=5).status_code == 202
        lines.get(timeout=10)


def test_who_cannot_be_told_stops_no_later_delivery_and_the_reason_is_logged_without_names(caplog):
    heard = queue.Queue()

    def tell(line):
        heard.put(line)
        if line["version"] == "1":
            raise ValueError("about Ana")

    with receiving(answered, tell) as where:
        post(where, body())
        post(where, body(data={"name": "m", "alias": "a", "version": "2"}))
        assert [heard.get(timeout=10)["version"] for _ in range(2)] == ["1", "2"]
    assert "nobody was told: ValueError" in caplog.text
    assert "Ana" not in caplog.text


@pytest.fixture
def sends(monkeypatch):
    """MLflow may send to this machine without TLS, and knows no webhook yet."""
    monkeypatch.setenv("MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS", "true")
    monkeypatch.setenv("MLFLOW_WEBHOOK_ALLOWED_SCHEMES", "http")
    monkeypatch.setattr(mlflow_delivery, "_webhook_cache", None)


@pytest.mark.e2e
def test_mlflows_own_sender_is_heard(mlflow_store, sends):
    store, lines = SqlAlchemyStore(mlflow_store), queue.Queue()
    with receiving(answered, lines.put, [NEXT, SECRET]) as where:
        store.create_webhook("told", where, [ALIAS_SET], secret=SECRET)
        mlflow_delivery.deliver_webhook(event=ALIAS_SET, payload={"name": "m", "alias": "champion", "version": "7"}, store=store)
        line = lines.get(timeout=20)
    assert (line["model"], line["version"], line["gate"]["version"]) == ("m", "7", "models:/m/7")


def secrets_in(tmp_path, text=f"{SECRET}\n\n{NEXT}\n", mode=0o600):
    path = tmp_path / "secrets"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_the_secrets_of_a_file_are_one_a_line(tmp_path):
    assert commands.read_secrets(secrets_in(tmp_path)) == (SECRET, NEXT)


@pytest.mark.parametrize(
    ("text", "mode", "words"),
    [
        (SECRET, 0o640, "others may read the secrets; run `chmod 600"),
        ("\n", 0o600, "holds no secret"),
        (f"{SECRET}\nshort", 0o600, "secret 2: shorter"),
    ],
)
def test_bad_secret_files_are_refused_in_words_without_the_secret(tmp_path, text, mode, words):
    with pytest.raises(ConfigError, match=words) as error:
        commands.read_secrets(secrets_in(tmp_path, text, mode))
    assert SECRET not in str(error.value)


def test_bad_settings_end_with_2_and_say_what_to_do(tmp_path, monkeypatch):
    def said(*arguments):
        done = CliRunner().invoke(main, ["webhook", *arguments])
        assert done.exit_code == 2
        return done.output

    monkeypatch.chdir(tmp_path)
    file = str(secrets_in(tmp_path))
    assert "no secrets can be read (No such file or directory); write one a line" in said("--secret-file", "none")
    assert "params.yaml: not there" in said("--secret-file", file)
    assert "--run nothing: no such program" in said("--secret-file", file, "--run", "nothing")


def test_a_port_in_use_is_refused_in_words():
    with (
        commands.opened("127.0.0.1", 0) as listener,
        pytest.raises(ConfigError, match=r"cannot listen there \(Address already in use\); give another --port"),
    ):
        commands.opened("127.0.0.1", listener.getsockname()[1])


def program(tmp_path, script):
    path = tmp_path / "program"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o700)
    return commands.program_teller(str(path))


def test_a_program_gets_the_notification_on_stdin(tmp_path):
    program(tmp_path, f"cat > {tmp_path}/got")({"event": "model_version.created"})
    assert json.loads((tmp_path / "got").read_text()) == {"event": "model_version.created"}


def test_a_program_that_fails_or_never_ends_is_an_error_in_words(tmp_path, monkeypatch):
    monkeypatch.setattr(commands, "PROGRAM_S", 0.2)
    with pytest.raises(commands.ProgramError, match="ended with 3"):
        program(tmp_path, "exit 3")({})
    with pytest.raises(commands.ProgramError, match="not done within"):
        program(tmp_path, "sleep 60 & wait")({})


PARAMS = """
model: {name: m, parent: models:/m@champion}
data: {name: d, path: data.csv, columns: {subject: who, prompt: q, answer: a}}
unlearn: {method: {name: npo}, optimiser: {epochs: 1, learning_rate: 1.0e-4}}
evaluate: {attacks: [loss]}
"""


@contextmanager
def started(folder, store):
    """The command itself in a project without a ledger; its process and address."""
    (folder / ".git").mkdir()
    (folder / "params.yaml").write_text(PARAMS)
    command = [sys.executable, "-m", "mlflow_unlearn.cli", "webhook", "--secret-file", str(secrets_in(folder)), "--port", "0"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=folder, env=os.environ | {"MLFLOW_TRACKING_URI": store}, **pipes) as process:
        said = process.stderr.readline()
        assert said.rstrip().endswith(STOPS_NOTHING)
        try:
            yield process, said.split()[5].rstrip(",")
        finally:
            process.terminate()


@pytest.mark.e2e
def test_the_command_asks_the_real_gate_prints_a_line_a_delivery_and_ends_by_a_signal(tmp_path, mlflow_store):
    with started(tmp_path, mlflow_store) as (process, where):
        assert post(where, body()).status_code == 202
        line = json.loads(process.stdout.readline())
        assert (line["gate"]["answer"], line["note"]) == ("undecided", STOPS_NOTHING)
        assert line["gate"]["reasons"] == ["models:/example_model/1: no registered model called example_model; there are: none"]
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == ""
    assert process.returncode == 0
