import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest
from click.testing import CliRunner
from trusted_keys import ANA

from mlflow_unlearn import config, signing_keys, trust, verifier
from mlflow_unlearn.cli import main
from mlflow_unlearn.commands import signing_keys as commands
from mlflow_unlearn.commands.scaffolding import scaffold
from mlflow_unlearn.errors import ConfigError, UnlearnError
from mlflow_unlearn.policy import policy_digest
from mlflow_unlearn.stages import trusting
from mlflow_unlearn.stages.signing import signer_for
from mlflow_unlearn.stages.workbench import Workbench
from mlflow_unlearn.statements import Role

WORDS = "correct horse battery"


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / ".git").mkdir()
    (tmp_path / "policy.yaml").write_text("utility_margin: 0.01\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_UNLEARN_PASSPHRASE", WORDS)
    for name in ("KEYS", "TRUST", "SIGNER", "LEDGER_URI", "TAG_KEY_FILE"):
        monkeypatch.delenv(f"MLFLOW_UNLEARN_{name}", raising=False)
    return tmp_path


@pytest.fixture
def team(here):
    """An owner and a trainer."""
    run("new", "ana", "--role", "owner")
    run("new", "ci", "--role", "trainer")
    return here


def run(*arguments, code=0):
    done = CliRunner().invoke(main, ("key", *arguments))
    assert done.exit_code == code, done.output
    return done.output


def answer(*arguments, code=0):
    return json.loads(run(*arguments, "--json", code=code))


def states():
    return {(line["holder"], line["state"]) for line in answer("show", "--all")["keys"]}


def signer(role, **changes):
    found = config.settings()
    return signer_for(role, trust.read_trust(found.trust_file), found, **changes)


def test_the_first_key_is_an_owners_and_stands_for_the_policy_here(here):
    assert "the first key signs it" in run("new", "ci", "--role", "trainer", code=2)
    made = answer("new", "ana", "--role", "owner")
    assert made["policy"] == {"trusted": trust.policy_file(here / "policy.yaml"), "here": trust.policy_file(here / "policy.yaml"), "same": True}
    assert "by another way than this repository" in made["next"][0]
    assert trust.read_trust(here / "trust.json").owners == (made["key"]["key_id"],)


def test_a_refused_first_key_leaves_nothing(here):
    (here / "policy.yaml").write_text("utilty_margin: 0.01\n")
    assert "did you mean 'utility_margin'" in run("new", "ana", "--role", "owner", code=2)
    assert not list((here / ".unlearn").glob("keys/*"))
    assert not (here / "trust.json").exists()


def test_show_says_who_may_sign_what_and_which_key_is_here(team):
    said = run("show")
    assert all(word in said for word in ("ana", "owner", "ci", "trainer", "valid", "here", "change 2", "is trusted"))
    assert {line["holder"]: line["private_key"] for line in answer("show")["keys"]} == {name: f".unlearn/keys/{name}.pem" for name in ("ana", "ci")}


def test_a_key_is_made_once(team):
    assert "ci has a key here already; `mlflow-unlearn key rotate ci` makes the next one" in run("new", "ci", "--role", "trainer", code=2)


def test_a_rotated_key_goes_on_beside_its_successor(team):
    old = signer(Role.TRAINER).key_id
    rotated = answer("rotate", "ci")
    assert (rotated["ended"]["key_id"], rotated["key"]["roles"]) == (old, ["trainer"])
    assert signer(Role.TRAINER).key_id == rotated["key"]["key_id"] != old
    assert states() == {("ana", "valid"), ("ci", "valid")}
    assert "the old key" in run("rotate", "ci", "--now")
    assert ("ci", "expired") in states()


def test_an_owner_can_be_rotated_and_the_old_one_still_vouches_for_the_file(team):
    old = signer(Role.OWNER).key_id
    new = answer("rotate", "ana")["key"]["key_id"]
    assert trust.read_trust(team / "trust.json", owner=old).owners == (new, old)
    last = answer("rotate", "ana", "--now")["key"]["key_id"]
    assert trust.read_trust(team / "trust.json").owners == (last,)


def test_an_owner_whose_key_ran_out_can_go_on(here, monkeypatch):
    monkeypatch.setattr(trust, "this_second", lambda: ANA.line(Role.OWNER).valid_from.replace(year=2020))
    monkeypatch.setattr(trust, "sealed", lambda held, signers: trust.seal(*parts(held), signers))
    run("new", "ana", "--role", "owner", "--days", "30")
    monkeypatch.undo()
    monkeypatch.chdir(here)
    monkeypatch.setenv("MLFLOW_UNLEARN_PASSPHRASE", WORDS)
    assert "nothing is believed now" in run("show", code=1)
    assert "expired at 2020-12-24" in run("new", "ci", "--role", "trainer", code=2)
    made = answer("rotate", "ana")
    assert "nobody vouched for this file" in made["next"][0]
    assert trust.read_trust(here / "trust.json").owners == (made["key"]["key_id"],)


def parts(held):
    return trust.canonical({"schema": trust.TRUST_SCHEMA, **trust.encode(held)}, "trust file"), trust.TRUST_TYPE


def test_a_revoked_key_signs_no_more(team):
    assert "(lost)" in run("revoke", "ci", "--reason", "lost")
    with pytest.raises(ConfigError, match=r"no key here may sign as trainer .*of ci was revoked \(lost\)"):
        signer(Role.TRAINER)
    assert "was revoked already" in run("revoke", "ci", "--reason", "lost", code=2)
    assert "1 more that have expired or were revoked" in run("show")


def test_one_key_of_several_is_revoked_by_its_id(team):
    run("rotate", "ci")
    assert "ci has 2 keys" in run("revoke", "ci", "--reason", "superseded", code=2)
    gone = answer("show")["keys"][1]["key_id"]
    assert [line["key_id"] for line in answer("revoke", gone[:16], "--reason", "superseded")["revoked"]] == [gone]
    assert states() == {("ana", "valid"), ("ci", "revoked"), ("ci", "valid")}


def test_the_last_owner_is_replaced_before_being_revoked(team):
    assert "add another owner first" in run("revoke", "ana", "--reason", "left", code=2)
    run("new", "bo", "--role", "owner")
    assert "several keys here may sign as owner: ana, bo" in run("revoke", "ana", "--reason", "left", code=2)
    run("revoke", "ana", "--reason", "left", "--owner", "bo")
    assert signer(Role.OWNER).key_id == signer(Role.OWNER, reference="bo").key_id


def test_another_policy_is_told_and_an_owner_can_stand_for_it(team):
    (team / "policy.yaml").write_text("utility_margin: 0.02\n")
    assert "another one" in run("show")
    assert answer("trust-policy")["changed"]
    assert not answer("trust-policy")["changed"]
    (team / "policy.yaml").unlink()
    assert "policy.yaml: not there" in run("trust-policy", code=2)


def test_a_key_of_another_machine_waits_until_an_owner_enters_it(team):
    (team / ".unlearn/keys").rename(team / "owners")
    made = answer("new", "bo", "--role", "reviewer")
    assert made["trust_file"] is None
    assert f"key add {made['key']['public']} --holder bo --role reviewer" in made["next"][1]
    assert "bo is in no trust file" in run("show").replace("\n", " ")
    run("add", made["key"]["public"], "--holder", "bo", "--role", "reviewer", code=2)  # no owner here either
    (team / ".unlearn/keys/ana.pem").write_bytes((team / "owners/ana.pem").read_bytes())
    (team / ".unlearn/keys/ana.pem").chmod(0o600)
    run("add", made["key"]["public"], "--holder", "bo", "--role", "reviewer")
    assert signer(Role.REVIEWER).key_id == made["key"]["key_id"]


def test_a_key_whose_owner_is_elsewhere_is_rotated_in_two_steps(team):
    (team / ".unlearn/keys/ana.pem").rename(team / "ana.pem")
    old, made = signer(Role.TRAINER).key_id, answer("rotate", "ci")
    assert made["trust_file"] is None
    assert signer(Role.TRAINER).key_id == old
    (team / "ana.pem").rename(team / ".unlearn/keys/ana.pem")
    run("add", made["key"]["public"], "--holder", "ci", "--role", "trainer")
    assert signer(Role.TRAINER).key_id == made["key"]["key_id"]


def test_an_owner_whose_key_ran_out_does_not_go_on_while_another_owner_could_decide(team):
    run("new", "bo", "--role", "owner", "--owner", "ana")
    held = trust.held(team / "trust.json")
    ended = tuple(replace(each, valid_until=each.valid_from) if each.holder == "ana" else each for each in held.keys)
    (team / "trust.json").write_bytes(trust.sealed(replace(held, keys=ended), [signer(Role.OWNER, reference="bo")]))
    (team / ".unlearn/keys/bo.pem").unlink()
    assert answer("rotate", "ana")["trust_file"] is None


@pytest.mark.parametrize("command", [("new", "bo", "--role", "reviewer"), ("rotate", "ci"), ("rotate", "ana")])
def test_a_run_that_was_cut_short_before_the_trust_file_is_finished_by_the_next(team, monkeypatch, command):
    with monkeypatch.context() as patched:
        patched.setattr(trusting, "write_atomically", lambda path, raw: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        assert "No space left" in run(*command, code=2)
    written = {each.key_id for each in signing_keys.found(team / ".unlearn/keys")}
    assert answer(*command)["key"]["key_id"] in written
    assert {each.key_id for each in signing_keys.found(team / ".unlearn/keys")} == written


def made(holder, *roles):
    try:
        return commands.new_key(commands.Wanted(holder=holder, roles=roles), commands.Owner())["key"]["key_id"]
    except UnlearnError:
        return None


def test_of_two_that_begin_the_trust_file_at_once_one_enters_the_other(here):
    with ThreadPoolExecutor(4) as pool:
        ids = list(pool.map(lambda name: made(name, Role.OWNER, Role.TRAINER), ("ana", "ana", "ana")))
        ids += pool.map(lambda name: made(name, Role.TRAINER), ("bo", "cy", "dee", "eve"))
    assert sum(each is not None for each in ids) == 5
    assert trust.read_trust(here / "trust.json").keys.keys() == {each for each in ids if each}
    assert trust.read_trust(here / "trust.json").number == 5


def test_who_signs_can_be_said_in_the_environment(team, monkeypatch):
    run("new", "nightly", "--role", "trainer")
    with pytest.raises(ConfigError, match="several keys here may sign as trainer: ci, nightly; set MLFLOW_UNLEARN_SIGNER"):
        signer(Role.TRAINER)
    monkeypatch.setenv("MLFLOW_UNLEARN_SIGNER", "nightly")
    assert signer(Role.TRAINER).key_id == answer("show")["keys"][2]["key_id"]
    with pytest.raises(ConfigError, match=r"signer nightly: key .* is not trusted as owner, only as trainer"):
        signer(Role.OWNER)


def test_a_wrong_passphrase_changes_nothing(team, monkeypatch):
    before = (team / "trust.json").read_bytes()
    monkeypatch.setenv("MLFLOW_UNLEARN_PASSPHRASE", "another horse battery")
    assert "wrong passphrase for the key of ana" in run("new", "bo", "--role", "reviewer", code=2)
    assert ((team / "trust.json").read_bytes(), len(signing_keys.found(team / ".unlearn/keys"))) == (before, 2)


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        (("new", "Bo@example.org", "--role", "reviewer"), "a name that may be public, no address"),
        (("new", "OWNER", "--role", "owner"), "holder 'OWNER': lower case only, e.g. owner"),
        (("new", "bo", "--role", "auditor"), "'auditor' is not one of"),
        (("new", "bo"), "Missing option '--role'"),
        (("new", "bo", "--role", "reviewer", "--days", "0"), "0 is not in the range"),
        (("add", "00", "--holder", "bo", "--role", "reviewer"), "expected 64 hex characters"),
        (("rotate", "bo"), "no trusted key of bo is here"),
        (("revoke", "bo", "--reason", "lost"), "bo: not in the trust file; give a holder or at least 16 characters of a key id"),
        (("revoke", "ci", "--reason", "tired"), "'tired' is not one of"),
        (("revoke", "ci", "--reason", "left", "--owner", "aws:key"), "signer aws: no package here"),
    ],
)
def test_bad_input_ends_with_2_and_changes_nothing(team, command, complaint):
    before = (team / "trust.json").read_bytes()
    assert complaint in " ".join(run(*command, code=2).split())
    assert (team / "trust.json").read_bytes() == before


@pytest.fixture
def project(team):
    """The same, once `init` has been run: there are a tag key and a params.yaml, and so a ledger."""
    (team / ".dvc").mkdir()
    scaffold(team, model="m", data="data/train")
    return team


def ledger():
    return Workbench().ledger


def entered(project):
    """Whether the ledger knows the trust file as it lies there."""
    raw = (project / "trust.json").read_bytes()
    return ledger().trusted() == (verifier.read_trust(raw, trust.this_second()).number, verifier.open_envelope(raw, "trust file").digest)


def test_before_init_it_is_said_what_no_owner_stands_for_and_trust_policy_adds_it_later(project):
    assert "no owner stands for data in params.yaml yet" in answer("new", "bo", "--role", "reviewer")["next"][-1]
    assert answer("trust-policy")["changed"]
    held, bench = trust.held(project / "trust.json"), Workbench()
    assert (held.policy, held.data) == (policy_digest(bench.policy), trust.data_digest(bench.params.data))
    assert held.ledger is not None
    assert ledger().holds(held.ledger.number, held.ledger.digest)
    assert (answer("trust-policy")["changed"], entered(project)) == (False, True)


@pytest.mark.parametrize("command", [("new", "bo", "--role", "reviewer"), ("rotate", "ci"), ("revoke", "ci", "--reason", "lost"), ("rotate", "ana")])
def test_every_change_is_entered_in_the_ledger_and_an_older_file_cannot_be_changed_any_more(project, command):
    run("trust-policy")
    before = (project / "trust.json").read_bytes()
    run(*command)
    assert entered(project)
    (project / "trust.json").write_bytes(before)
    assert "an older one was put back; fetch the latest trust file and repeat this" in run("new", "cy", "--role", "reviewer", code=2)


def test_a_run_that_was_cut_short_before_the_ledger_is_entered_by_the_same_command(project, monkeypatch):
    run("trust-policy")
    before = ledger().trusted()
    write = trusting.write_atomically
    with monkeypatch.context() as patched:
        patched.setattr(trusting, "write_atomically", lambda path, raw: (write(path, raw), (_ for _ in ()).throw(KeyboardInterrupt())))
        run("revoke", "ci", "--reason", "lost", code=1)
    assert (ledger().trusted(), ("ci", "revoked") in states()) == (before, True)
    assert "ci: was revoked already" in run("revoke", "ci", "--reason", "lost", code=2)
    assert entered(project)


def test_of_two_machines_that_change_one_file_the_second_changes_nothing(project):
    run("trust-policy")
    before = (project / "trust.json").read_bytes()
    number, _ = ledger().trusted()
    ledger().enter_trust(number + 1, "0" * 64, trust.this_second())
    assert f"change {number} " in run("new", "bo", "--role", "reviewer", code=2)
    assert (project / "trust.json").read_bytes() == before


def test_another_ledger_is_an_owners_own_word(project, monkeypatch):
    run("trust-policy")
    monkeypatch.setenv("MLFLOW_UNLEARN_LEDGER_URI", f"sqlite:///{project / 'other.db'}")
    assert "which ledger sqlite" in run("new", "bo", "--role", "reviewer", code=2)
    assert "key trust-policy --another-ledger" in run("trust-policy", code=2)
    assert answer("trust-policy", "--another-ledger")["changed"]
    assert (answer("new", "bo", "--role", "reviewer")["number"], entered(project)) == (5, True)


@pytest.mark.parametrize("days", [99_999_999, 36_501])
def test_a_key_for_longer_than_a_hundred_years_is_refused_in_words(team, days):
    with pytest.raises(ConfigError, match=r"expected a role .* and 1 to 36500 days"):
        commands.new_key(commands.Wanted(holder="zed", roles=(Role.REVIEWER,), days=days), commands.Owner())
    with pytest.raises(ConfigError, match="expected an overlap of 0 to 36500 days"):
        commands.rotate_key("ci", 730, timedelta(days=days), commands.Owner())


def test_keys_and_trust_file_lie_where_the_environment_says(here, monkeypatch, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.setenv("MLFLOW_UNLEARN_KEYS", str(elsewhere / "keys"))
    monkeypatch.setenv("MLFLOW_UNLEARN_TRUST", str(elsewhere / "who.json"))
    run("new", "ana", "--role", "owner")
    assert sorted(path.name for path in elsewhere.rglob("*") if path.is_file()) == [".gitignore", "ana.pem", "who.json"]
    assert not (here / "trust.json").exists()
