"""What the gate stands on: an owner's trust file, policy, data and ledger, none of which can be exchanged or set back without a no or undecided."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from deployed import FORGOT, TRAINED, World, _built, asked_template, world  # noqa: F401 - fixtures

from mlflow_unlearn.adapters import registry_aliases
from mlflow_unlearn.adapters.ledger import Ledger
from mlflow_unlearn.adapters.statements import Statements
from mlflow_unlearn.commands.gating import gate_version
from mlflow_unlearn.commands.ledger import rotate_key
from mlflow_unlearn.commands.promoting import promote
from mlflow_unlearn.commands.signing_keys import Owner, Wanted, new_key, revoke_key, trust_policy
from mlflow_unlearn.digests import key_id, keyed_tag
from mlflow_unlearn.errors import UnlearnError
from mlflow_unlearn.gate import Reason
from mlflow_unlearn.policy import GatePolicy, Policy
from mlflow_unlearn.records import Tombstones
from mlflow_unlearn.stages.gating import answer, asked
from mlflow_unlearn.stages.grounding import Ground
from mlflow_unlearn.statements import Role

BY_OWNER = Owner(reference="owner")
Damage = Callable[[World, pytest.MonkeyPatch], None]


def answered(version=FORGOT, **given):
    found = gate_version(f"models:/{version}", **given)
    return found["answer"], found["codes"]


def edit(path: Path, old: str, new: str) -> None:
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def enforced(world: World) -> None:  # noqa: F811
    edit(world.root / "unlearn/policy.yaml", "{default: observe}", "{default: enforce}")
    trust_policy(BY_OWNER)


def _ledger_files(world: World) -> Iterator[Path]:  # noqa: F811
    yield from (world.root / ".unlearn").glob("ledger.*")


def ledger_deleted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    for path in _ledger_files(world):
        path.unlink()


def ledger_set_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """To before the request, as it was when the first key was made; the witness is gone with it."""
    ledger_deleted(world, monkeypatch)
    Ledger(world.bench.settings.ledger_uri, key_id(world.bench.key)).anchor()


def another_ledger(world: World, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setenv("MLFLOW_UNLEARN_LEDGER_URI", f"sqlite:///{world.root / 'other.db'}")
    world.bench.ledger.enter_trust(1, "0" * 64, datetime.now(UTC))


def empty_setting(world: World, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """As a secret of a CI that nobody set."""
    ledger_deleted(world, monkeypatch)
    monkeypatch.setenv("MLFLOW_UNLEARN_LEDGER_URI", "")


def older_trust(world: World, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    before = (world.root / "trust.json").read_bytes()
    new_key(Wanted(holder="dan", roles=(Role.REVIEWER,)), BY_OWNER)
    (world.root / "trust.json").write_bytes(before)


def older_policy(world: World, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """An older policy.yaml together with the trust file of its time."""
    files = (world.root / "trust.json", world.root / "unlearn/policy.yaml")
    before = {path: path.read_bytes() for path in files}
    edit(files[1], "n_min: 400", "n_min: 100000")
    trust_policy(BY_OWNER)
    for path, raw in before.items():
        path.write_bytes(raw)


def own_trust(world: World, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """A trust file of somebody else's own, as whoever can write here makes one; begun anew it has a number that the ledger knows."""
    monkeypatch.setenv("MLFLOW_UNLEARN_TRUST", str(world.root / "own.json"))
    monkeypatch.setenv("MLFLOW_UNLEARN_KEYS", str(world.root / "own-keys"))
    key = world.root / ".unlearn/tag.key"
    key.rename(key.with_suffix(".aside"))
    new_key(Wanted(holder="eve", roles=tuple(Role)), Owner())
    key.with_suffix(".aside").rename(key)


def policy_to_observe(world: World, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    edit(world.root / "unlearn/policy.yaml", "enforce}", "observe}")


def policy_deleted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    (world.root / "unlearn/policy.yaml").unlink()


def trust_deleted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    (world.root / "trust.json").unlink()


def other_columns(world: World, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    edit(world.root / "unlearn/params.yaml", "subject: subject_id", "subject: question")


DAMAGES = [
    ledger_deleted,
    ledger_set_back,
    another_ledger,
    empty_setting,
    older_trust,
    older_policy,
    own_trust,
    policy_to_observe,
    policy_deleted,
    trust_deleted,
    other_columns,
]


@contextmanager
def undone(world: World) -> Iterator[pytest.MonkeyPatch]:  # noqa: F811
    """Files and settings as they were, afterwards."""
    files = [*_ledger_files(world), *(world.root / name for name in ("trust.json", "unlearn/policy.yaml", "unlearn/params.yaml"))]
    before = {path: path.read_bytes() for path in files}
    with pytest.MonkeyPatch.context() as patch:
        yield patch
    for path, raw in before.items():
        path.write_bytes(raw)


def moved(version: object) -> bool:
    """Whether a promotion moved the alias to the version; an error in words moves nothing."""
    try:
        return bool(promote(f"models:/{version}", "champion")["promoted"])
    except UnlearnError:
        return False


def test_what_is_taken_away_exchanged_or_set_back_lets_nothing_through(world):  # noqa: F811
    enforced(world)
    for damage in DAMAGES:
        with undone(world) as patch:
            damage(world, patch)
            assert not moved(FORGOT), damage.__name__
    assert registry_aliases.holder(world.bench.registry, "m", "champion") is None
    assert (moved(TRAINED), moved(FORGOT)) == (False, True)


def test_a_parent_that_was_deleted_and_made_anew_clears_nothing(world):  # noqa: F811
    client = world.bench.registry.client
    parent = world.version(3.0, world.state("v1"), name="p")
    child = world.version(4.0, world.state("v2"), name="c", tags={"unlearn.base_model": f"models:/{parent}"})
    for each in (parent, child):
        world.attest(each)
    assert answered(child) == ("no", ["affected", "due"])
    client.delete_registered_model("p")
    world.attest(world.version(3.0, world.state("v2"), name="p"))
    assert answered(child) == ("no", ["registry_differs"])


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (ledger_deleted, "other_ledger"),
        (older_trust, "older_trust"),
        (other_columns, "data_changed"),
        (policy_deleted, "policy_changed"),
        (trust_deleted, "no_trust"),
    ],
)
def test_the_answer_says_what_was_exchanged(world, monkeypatch, damage, code):  # noqa: F811
    damage(world, monkeypatch)
    assert [answered(version)[1][0] for version in (FORGOT, TRAINED)] == [code, code]


def test_a_revoked_key_stays_revoked_when_the_older_trust_file_is_put_back(world):  # noqa: F811
    before = (world.root / "trust.json").read_bytes()
    revoke_key("ci", "compromised", BY_OWNER)
    (world.root / "trust.json").write_bytes(before)
    assert answered() == ("no", ["older_trust"])


def test_an_owner_signs_other_columns_as_another_policy(world):  # noqa: F811
    edit(world.root / "unlearn/params.yaml", "subject: subject_id", "subject: subject_id  # whom it is about")
    assert answered()[0] == "yes"
    edit(world.root / "unlearn/params.yaml", "holdout: null", "holdout: ../data/holdout")
    assert answered() == ("no", ["data_changed"])
    trust_policy(BY_OWNER)
    assert answered()[0] == "yes"


def test_what_no_owner_stands_for_is_undecided_and_the_answer_says_what_to_type(world, monkeypatch):  # noqa: F811
    own_trust(world, monkeypatch)
    monkeypatch.setattr("mlflow_unlearn.adapters.ledger.Ledger.trusted", lambda ledger: None)
    found = gate_version("models:/m/2")
    assert "trust file: no owner says which ledger holds the requests; run `mlflow-unlearn key trust-policy`, by an owner" in found["reasons"]


def test_a_clock_that_was_set_back_decides_nothing(world):  # noqa: F811
    bench = world.bench
    now = bench.ledger.written_at()
    said = {minutes: answer(bench, asked(bench, "models:/m/2"), now - timedelta(minutes=minutes)).decision.codes for minutes in (4, 6)}
    assert ("clock" in said[4], "clock" in said[6]) == (False, True)


@pytest.mark.parametrize(
    ("entered", "signed", "reasons", "expected"),
    [
        (False, False, ("no_trust",), "observe"),
        (True, False, ("no_trust",), "enforce"),
        (False, True, ("no_trust",), "enforce"),
        (True, True, (), "observe"),
    ],
)
def test_only_what_an_owner_stands_for_may_ask_for_less_once_anybody_signed(entered, signed, reasons, expected):
    wrong = tuple(Reason(answer="undecided", code=each, text=each) for each in reasons)
    found = Ground(trust=None, reasons=wrong, files=(), entered=entered)
    assert found.enforcement(Policy(), "m", signed=signed) == expected
    assert found.enforcement(Policy(gate=GatePolicy(enforcement={"m": "enforce"})), "m", signed=signed) == "enforce"


def buried(world: World):  # noqa: F811
    """A version made of the one that forgot, on later data that hold dee, whom an earlier request erased."""
    model = world.version(4.0, world.state("v2"), tags={"unlearn.base_model": "models:/m/2"})
    world.attest(model)
    request = world.bench.registry.closure(FORGOT)[0].requests[0]
    tag = keyed_tag(world.bench.key, "subject", "dee")
    world.bench.ledger.bury(request, Tombstones(subjects=frozenset({tag})), datetime.now(UTC))
    return model


def test_what_was_erased_is_recognised_under_a_retired_key(world):  # noqa: F811
    model = buried(world)
    assert answered(model) == ("no", ["returned"])
    rotate_key()
    assert answered(model) == ("no", ["returned"])
    next((world.root / ".unlearn").glob("tag.key.retired-*")).unlink()
    assert answered(model) == ("undecided", ["not_compared"])


def test_a_model_that_brings_code_is_loaded_without_a_trace(world, monkeypatch):  # noqa: F811
    import sys

    import mlflow_unlearn

    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    model = world.version(8.0, world.state("v2"))
    folder = Statements(world.bench.registry).folder(model)
    (folder / "code").mkdir()
    shutil.copy(Path(__file__).with_name("deployed_flavor.py"), folder / "code/brought_flavor.py")
    (folder / "MLmodel").write_text("flavors:\n  python_function:\n    loader_module: brought_flavor\n    code: code\n")
    world.attest(model)
    for _ in range(2):
        assert mlflow_unlearn.load_model(f"models:/{model}", enforcement="enforce").predict([0]) == [8.0]
    assert (answered(model)[0], sys.dont_write_bytecode) == ("yes", False)
