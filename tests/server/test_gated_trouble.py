"""What the gate in the server does when something does not answer, changes while it is looked at, or is what nobody foresaw; in this process."""

# ruff: noqa: F811 - fixtures are imported

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from deployed import FORGOT, TRAINED, _built, asked_template, world  # noqa: F401 - fixtures
from gated_world import Gated, enforced, gated, later, unplug  # noqa: F401 - fixtures
from mlflow.entities import Dataset, DatasetInput
from mlflow.exceptions import MlflowException

from mlflow_unlearn.adapters import file_listings
from mlflow_unlearn.adapters.gate_tables import writing
from mlflow_unlearn.adapters.guarded_locations import BLOCK
from mlflow_unlearn.adapters.registry import BASE_TAG, UNKNOWN_BASE, Registry
from mlflow_unlearn.digests import tensor_digest
from mlflow_unlearn.lineage import ModelVersion
from mlflow_unlearn.server import decisions, opening, survey
from mlflow_unlearn.server.decisions import KIND
from mlflow_unlearn.server.opening import Rounds
from mlflow_unlearn.server.project import Project


def meanwhile(gated: Gated, change: Callable[[int], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Have something changed each time while an answer is worked out."""
    worked_out, turns = gated.warden.decisions._decided, iter(range(10_000))

    def decided(*asked: Any) -> Any:
        found = worked_out(*asked)
        change(next(turns))
        return found

    monkeypatch.setattr(gated.warden.decisions, "_decided", decided)


def files_of(gated: Gated, version: str) -> Any:
    """The folder of a version."""
    return next(each.parent for each in (gated.world.root / "models").glob("*/model.safetensors") if each.parent.as_uri() == gated.read(version))


def damage(gated: Gated, kind: str, **body: Any) -> None:
    """Leave every row of a kind as another version of this package may have written it."""
    rows = gated.warden.rows
    with writing(gated.warden.engine) as connection:
        for name, known in rows.all(connection, kind).items():
            rows.put(connection, kind, name, {**known, "from_another_version": 1, **body})


# An answer that was kept under softer terms


def test_a_no_that_was_only_observed_lets_nothing_through_once_the_policy_enforces(gated: Gated):
    gated.point(TRAINED)
    gated.enforce()
    with pytest.raises(MlflowException, match="m/1@champion would lose its evidence"):
        gated.client.delete_model_version("m", "1")
    unplug(gated)
    assert "the gate could not decide" in gated.refused(TRAINED)
    assert "the gate could not decide" in gated.refused()


def test_who_changes_a_version_while_it_is_looked_at_gets_no_alias_for_it_by_an_answer_of_softer_times(gated: Gated, monkeypatch):
    mine = gated.world.version(6.0, gated.world.state("v2"))
    gated.point(mine)
    gated.enforce()
    meanwhile(gated, lambda turn: gated.client.set_model_version_tag("m", mine.version, f"unlearn.dvc.x{turn}", "0" * 32), monkeypatch)
    assert "changed 3 times while it was looked at" in gated.refused(mine)
    assert "the gate could not decide" in gated.refused()


def test_what_is_deployed_is_followed_though_its_row_changes_each_time_it_is_looked_at(enforced: Gated, monkeypatch):
    enforced.point(FORGOT)
    later(monkeypatch, hours=2)
    stages = ("Staging", "None")
    meanwhile(enforced, lambda turn: enforced.store.transition_model_version_stage("m", "2", stages[turn % 2], False), monkeypatch)
    enforced.point(FORGOT, "prod")
    row = "insert into model_version_tags (workspace, name, version, key, value) values ('default', 'm', 2, ?, 'x')"
    meanwhile(enforced, lambda turn: enforced.sql(row, [f"unlearn.note{turn}"]), monkeypatch)
    later(monkeypatch, hours=4)
    assert enforced.follow() == "2"
    assert "changed 3 times" in enforced.refused(FORGOT, "prod")


# What stands in for an answer, and for what


def test_files_that_change_each_time_they_are_looked_at_are_not_followed_by_an_old_yes(enforced: Gated, monkeypatch):
    enforced.point(FORGOT)
    weights = files_of(enforced, "2") / "model.safetensors"
    meanwhile(enforced, lambda _turn: weights.write_bytes(weights.read_bytes()), monkeypatch)
    weights.write_bytes(weights.read_bytes())
    assert "while it was looked at" in enforced.refused()


def test_an_old_yes_stands_in_for_silence_alone_and_not_for_exchanged_files_or_another_place(enforced: Gated):
    enforced.point(FORGOT)
    folder = files_of(enforced, "2")
    (folder / "beside").symlink_to("/")
    assert "neither a file nor a folder of the model" in enforced.refused()
    (folder / "beside").unlink()
    for place in (
        "gs://bucket/model",
        "http://server/api/2.0/mlflow-artifacts/artifacts/x",
        "file:///srv/model?x",
        "file://[",
        f"{folder.as_uri()}/gone",
    ):
        enforced.sql("update model_versions set storage_location = ? where version = 2", [place])
        assert "the gate could not decide" in enforced.refused()
    enforced.sql("update model_versions set storage_location = source where version = 2")
    assert enforced.follow() == "2"
    folder.rename(folder.with_name("elsewhere"))
    assert enforced.follow() == "2"
    assert enforced.told("outcome", "codes")[-1] == ("alarm", ("unavailable",))


@pytest.mark.parametrize("changed", ["the version", "the policy", "the ledger"])
def test_without_the_ledger_nothing_stands_in_for_an_answer_about_something_else(enforced: Gated, changed):
    enforced.point(FORGOT)
    if changed == "the version":
        enforced.sql("insert into model_version_tags (workspace, name, version, key, value) values ('default', 'm', 2, 'unlearn.note', 'x')")
    elif changed == "the policy":
        enforced.policy(max_stale_hours=100)
    if changed == "the ledger":  # it answers, and is another one
        (enforced.world.root / ".unlearn/ledger.db").write_bytes(b"")
        enforced.restarted().get_registered_model("m")
        assert "the gate could not decide" in told(lambda: enforced.restarted().get_model_version_by_alias("m", "champion"))
        return
    unplug(enforced)
    assert "the gate could not decide" in enforced.refused()


def told(act: Callable[[], Any]) -> str:
    with pytest.raises(MlflowException) as found:
        act()
    return str(found.value.message)


def junk(gated: Gated, run_id: str) -> None:
    source = '{"models:/":' * 4000 + "1" + "}" * 4000
    gated.world.bench.registry.client.log_inputs(run_id, [DatasetInput(dataset=Dataset(name="d", digest="d1", source_type="local", source=source))])


def nobody(gated: Gated, run_id: str) -> None:
    read = Dataset(name="d", digest="d1", source_type="local", source='{"uri": "models:/nobody/3"}')
    gated.world.bench.registry.client.log_inputs(run_id, [DatasetInput(dataset=read)])


def erased(gated: Gated, run_id: str) -> None:
    read = gated.world.state("v1")
    gated.world.bench.registry.client.log_inputs(
        run_id, [DatasetInput(dataset=Dataset(name=read.name, digest=read.md5, source_type="dvc", source="{}"))]
    )


def unsigned(gated: Gated, run_id: str) -> None:
    base = gated.world.version(9.0, gated.world.state("v1"))
    gated.world.bench.registry.client.log_param(run_id, "x.base_model", f"models:/{base}")


@pytest.mark.parametrize(
    ("champion", "of", "recorded"),
    [
        *((FORGOT, of, recorded) for of in ("2", "1") for recorded in (junk, nobody, unsigned)),  # its own run, and that of what it was made from
        *((None, "3", recorded) for recorded in (junk, erased, unsigned)),
    ],
)
def test_what_anybody_records_in_a_run_stops_new_aliases_and_neither_the_champion_nor_its_readers(
    enforced: Gated, champion, of, recorded, monkeypatch
):
    enforced.enforce(on_request="at_once")
    champion = champion or enforced.clear()
    enforced.point(champion)
    recorded(enforced, enforced.client.get_model_version("m", of).run_id)
    enforced.look()
    later(monkeypatch, hours=25)
    enforced.look()
    assert enforced.follow() == champion.version
    assert enforced.read(champion.version)
    assert "refused by mlflow-unlearn" in enforced.refused(champion, "prod")
    assert ("alarm", ("registry_differs",)) in enforced.told("outcome", "codes")


def test_a_request_that_comes_later_stops_a_champion_by_what_was_signed_whatever_its_run_records(enforced: Gated):
    enforced.enforce(on_request="at_once")
    champion = enforced.clear()
    enforced.point(champion)
    junk(enforced, enforced.client.get_model_version("m", champion.version).run_id)
    enforced.world.ask("dee")
    enforced.look()
    assert "affected by er-" in enforced.refused()
    with pytest.raises(MlflowException, match="is blocked"):
        enforced.read(champion.version)


# What nobody foresaw


def test_what_nobody_foresaw_about_one_version_is_no_answer_about_that_one_in_words(enforced: Gated, monkeypatch, caplog):
    third = enforced.clear()
    enforced.point(FORGOT)
    enforced.point(third, "prod")
    answer = decisions.answer

    def broken(bench: Any, question: Any, now: Any) -> Any:
        if question.model == FORGOT:
            raise RecursionError("maximum recursion depth exceeded")
        return answer(bench, question, now)

    monkeypatch.setattr(decisions, "answer", broken)
    later(monkeypatch, hours=2)
    enforced.look()
    assert enforced.follow("prod") == third.version
    for words in (enforced.refused(), enforced.refused(FORGOT, "prod")):
        assert "m/2: cannot be decided (RecursionError): see the server's log" in words
    assert [record for record in caplog.records if record.exc_info and "m/2" in record.getMessage()]


def test_a_signature_that_nobody_can_read_keeps_no_block_from_another_version(enforced: Gated, monkeypatch):
    enforced.enforce(on_request="at_once")
    prover = survey.Prover.proof

    def broken(self: Any, lineage: Any, *more: Any) -> Any:
        if lineage.model == FORGOT:
            raise ValueError("Exceeds the limit for integer string conversion")
        return prover(self, lineage, *more)

    monkeypatch.setattr(survey.Prover, "proof", broken)
    with pytest.raises(MlflowException):
        enforced.point(TRAINED)
    enforced.warden.survey()
    with pytest.raises(MlflowException, match="models:/m/1 is blocked"):
        enforced.read("1")


def begun_from(gated: Gated, weights: str) -> ModelVersion:
    """A version whose run says from which weights it began."""
    made = gated.world.version(6.0, gated.world.state("v2"))
    gated.world.bench.registry.client.set_tag(gated.client.get_model_version("m", made.version).run_id, BASE_TAG, weights)
    return made


def test_weights_that_a_run_claims_to_have_begun_from_are_looked_up_and_no_model_is_hashed_for_it(enforced: Gated, monkeypatch):
    monkeypatch.setattr(file_listings, "RACY_S", 0)
    hashed = list[ModelVersion]()
    monkeypatch.setattr(Registry, "tensor_digest", lambda _self, model: hashed.append(model))
    base = tensor_digest(files_of(enforced, "1").glob("*.safetensors"))
    known, unknown = begun_from(enforced, base), begun_from(enforced, "0" * 64)
    for asked in (known, unknown):
        assert UNKNOWN_BASE in enforced.refused(asked)
    enforced.refused(TRAINED)  # its files are hashed to decide about it
    assert UNKNOWN_BASE not in enforced.refused(known)
    lineage = enforced.warden.decisions.project.bench().registry.closure(known)[0]
    assert [(each.parent, each.evidence) for each in lineage.ancestors] == [(TRAINED, "equal weights")]
    assert UNKNOWN_BASE in enforced.refused(unknown)
    enforced.look()
    assert not hashed


# Rounds


def test_a_survey_that_fails_keeps_nothing_else_from_being_done_and_is_made_again_after_a_while(enforced: Gated, caplog, monkeypatch):
    enforced.point(FORGOT)
    unplug(enforced)
    rounds = Rounds(enforced.warden)
    with caplog.at_level(logging.ERROR, "mlflow_unlearn.gate"):
        for passed, failed in ((1e9, 1), (1e9, 1), (0, 2)):
            monkeypatch.setattr(opening, "_BUSY_SHARE", passed)
            rounds.once()
            assert caplog.text.count("ALARM: the gate could not look again") == failed
    seen = enforced.warden.clerk.witness.head()
    assert seen is not None
    assert seen.number == len(enforced.entries())


def test_what_another_version_of_this_package_kept_is_decided_anew_and_opens_nothing(enforced: Gated):
    enforced.point(FORGOT)
    third = enforced.clear()
    weights = files_of(enforced, third.version) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    assert "says no" in enforced.refused(third, "prod")
    for kind in (KIND, BLOCK):
        damage(enforced, kind)
    enforced.look()
    with pytest.raises(MlflowException, match=f"models:/m/{third.version} is blocked"):
        enforced.read(third.version)
    assert enforced.follow() == "2"
    with enforced.store.engine.connect() as connection:
        kept = enforced.warden.rows.all(connection, BLOCK)
    assert kept
    assert not any("from_another_version" in body for body in kept.values())


def test_a_block_of_another_version_of_this_package_stays_where_nobody_can_say_why_it_came(enforced: Gated):
    weights = files_of(enforced, "1") / "model.safetensors"
    before = weights.read_bytes()
    weights.write_bytes(before[:-1] + b"\1")
    with pytest.raises(MlflowException):
        enforced.point(TRAINED)
    damage(enforced, KIND)
    damage(enforced, BLOCK, codes=7)
    (weights.parent / "beside").symlink_to("/")
    enforced.warden.survey()
    with pytest.raises(MlflowException, match="models:/m/1 is blocked"):
        enforced.read("1")


def test_what_is_wanted_often_is_looked_at_once_and_within_the_time_of_a_round(enforced: Gated):
    for alias in ("", "champion", "", "champion", "champion"):
        enforced.warden.want(FORGOT, alias)
    assert len(enforced.warden.wanted) == 2
    enforced.warden.wake.clear()
    enforced.warden.settle(0)
    assert (len(enforced.warden.wanted), enforced.warden.wake.is_set()) == (2, True)
    enforced.warden.settle()
    assert not enforced.warden.wanted
    assert enforced.warden.decisions.standing(FORGOT, "champion") is not None


# A no that is warned of


def test_a_no_that_is_warned_of_is_in_the_log_and_in_that_of_the_server_and_stops_nothing(gated: Gated, caplog):
    gated.enforce("warn")
    with caplog.at_level(logging.WARNING, "mlflow_unlearn.gate"):
        gated.point(TRAINED)
        assert [gated.follow() for _ in range(3)] == ["1"] * 3
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert [each.splitlines()[0] for each in warnings] == [
        "warning of mlflow-unlearn: m/1 for 'champion': the gate says no.",
        "warning of mlflow-unlearn: 'champion' of m, which is version 1: the gate says no.",
    ]
    assert gated.told("action", "answer", "outcome") == [("set alias", "no", "warned"), ("resolve alias", "no", "warned")]
    gated.enforce("observe")
    caplog.clear()
    gated.point(TRAINED, "prod")
    assert gated.follow("prod") == "1"
    assert not caplog.records


def test_whoever_works_with_the_bench_is_the_only_one(enforced: Gated, monkeypatch):
    bench, deciding = Project.bench, enforced.warden.decisions.deciding

    def held(self: Project) -> Any:
        assert deciding._is_owned(), "somebody else reads the same ledger meanwhile"  # type: ignore[attr-defined]
        return bench(self)

    monkeypatch.setattr(Project, "bench", held)
    enforced.point(FORGOT)
    enforced.world.ask("dee")
    enforced.look()
    assert enforced.follow() == "2"
