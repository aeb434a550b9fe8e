"""The table of attacks, and those on aliases, stages, tags and evidence. Each is a function that prepares, yields what is tried, and cleans up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Literal

from attacked import AFFECTED, FAILED, GOOD, OTHER, OVERDUE, UNKNOWN, Reply, Target, told

from mlflow_unlearn.adapters.registry_rows import CERTIFICATE_TAG, LINEAGE_TAG

Steps = Iterator[Callable[[], Reply]]
"""What is tried, one after the other; after each everything is as it was before it."""
Outcome = Literal["refused", "detected", "idle"]
"""Refused where it is tried; or done, and found out where somebody would profit by it; or done, and of no use."""


@dataclass(frozen=True, kw_only=True)
class Attack:
    """One way round the gate."""

    name: str
    """A law."""
    who: str
    how: Callable[[Target], Steps]
    outcome: Outcome
    status: int
    words: tuple[str, ...]
    """Each of them is in the answer."""


ATTACKS: list[Attack] = []
_LOG_IN_TROUBLE = "the gate could not decide.\\ngate log: entry "
"""What every promotion is told from the round that sees a changed log to the round that sees it mended."""


def attack(who: str, *words: str, outcome: Outcome = "refused", status: int = 403) -> Callable[[Callable[[Target], Steps]], None]:
    def enter(how: Callable[[Target], Steps]) -> None:
        ATTACKS.append(Attack(name=how.__name__.replace("_", " "), who=who, how=how, outcome=outcome, status=status, words=words))

    return enter


REST, CLIENT, UI = "anybody, REST", "anybody, Python client", "anybody, UI route"


# Aliases and stages


@attack(REST, "refused by mlflow-unlearn: m/1 for 'champion': the gate says no", "affected by er-", "Next: make it forget (`dvc repro`)")
def a_version_that_a_request_reaches_does_not_become_champion(at: Target) -> Steps:
    yield lambda: at.point(AFFECTED)


@attack(REST, "refused by mlflow-unlearn: m/5 for 'champion': the gate could not decide", "have its training sign the lineage")
def a_version_without_evidence_does_not_become_champion(at: Target) -> Steps:
    yield lambda: at.point(UNKNOWN)


@attack(REST, "refused by mlflow-unlearn: m/4 for 'champion': the gate says no", "a FAIL is never overridden")
def a_version_whose_certificate_says_fail_does_not_become_champion(at: Target) -> Steps:
    yield lambda: at.point(FAILED)


@attack(CLIENT, "PERMISSION_DENIED: refused by mlflow-unlearn: m/3 for 'prod'", "overdue")
def a_version_with_an_overdue_request_does_not_become_prod(at: Target) -> Steps:
    yield lambda: told(lambda: at.client.set_registered_model_alias("m", "prod", OVERDUE.version))


@attack(UI, "refused by mlflow-unlearn: m/5 for 'champion'")
def the_route_of_the_alias_dialog_is_guarded(at: Target) -> Steps:
    yield lambda: at.point(UNKNOWN, through="ajax")


@attack(REST, "refused by mlflow-unlearn: m/5 for ")
def another_case_makes_no_other_alias(at: Target) -> Steps:
    for alias in ("Champion", "pRoD", "PRODUCTION"):
        yield lambda alias=alias: at.point(UNKNOWN, alias)


@attack(REST, "refused by mlflow-unlearn: m/5 for ")
def letters_that_look_the_same_make_no_other_alias(at: Target) -> Steps:
    for alias in ("\uff43hampion", "\u0441hampion", "champion\u200b"):
        try:
            yield lambda alias=alias: at.point(UNKNOWN, alias)
        finally:
            at.delete_alias(alias)


@attack(REST, "Names may only contain alphanumerics", status=400)
def an_alias_with_a_space_a_dot_or_a_quote_is_no_name(at: Target) -> Steps:
    for alias in ("champion ", "champion.", "champion'--"):
        yield lambda alias=alias: at.point(UNKNOWN, alias)


@attack(UI, "Cannot query field", outcome="idle", status=200)
def graphql_moves_no_alias(at: Target) -> Steps:
    query = 'mutation { mlflowSetRegisteredModelAlias(input: {name: "m", alias: "champion", version: "5"}) { apiError { code } } }'
    yield lambda: at.ask_for("POST", "/graphql", {"query": query})


@attack(REST, "refused by mlflow-unlearn: m/5 for ", "roduction': the gate could not decide")
def a_version_without_evidence_is_not_put_into_production(at: Target) -> Steps:
    for stage, archive in (("Production", False), ("production", True)):
        body = {"name": "m", "version": UNKNOWN.version, "stage": stage, "archive_existing_versions": archive}
        yield lambda body=body: at.ask_for("POST", "model-versions/transition-stage", body)


@attack(REST, "Registered model alias prod not found", outcome="idle", status=400)
def an_alias_that_is_named_when_a_version_is_registered_is_not_set(at: Target) -> Steps:
    made = at.fresh(aliases=["prod"])
    yield lambda: at.follow("prod")
    at.remove(made)


@attack(REST, "refused by mlflow-unlearn: m/2 for 'prod'", "it points at version none now, and was to replace 7", status=409)
def a_promotion_that_names_another_predecessor_comes_too_late(at: Target) -> Steps:
    yield lambda: at.point(GOOD, "prod", headers={"X-Mlflow-Unlearn-Replaces": "7"})


@attack(REST, "refused by mlflow-unlearn: m/1 for 'champion'", "affected by er-")
def a_header_that_names_the_predecessor_rightly_is_no_evidence(at: Target) -> Steps:
    yield lambda: at.point(AFFECTED, headers={"X-Mlflow-Unlearn-Replaces": "2"})


@attack(REST, "refused by mlflow-unlearn: m/1 for 'champion': it points at version 2 now, and was to replace ", status=409)
def a_header_that_names_nonsense_is_no_evidence(at: Target) -> Steps:
    for said in ("none", "", "2' OR 1=1"):
        yield lambda said=said: at.point(AFFECTED, headers={"X-Mlflow-Unlearn-Replaces": said})


@attack(REST, "refused by mlflow-unlearn: m/5 for 'champion'", "the gate could not decide")
def a_model_that_is_said_to_be_a_prompt_is_guarded(at: Target) -> Steps:
    at.ask_for("POST", "registered-models/set-tag", {"name": "m", "key": "mlflow.prompt.is_prompt", "value": "true"})
    at.tag(UNKNOWN, "mlflow.prompt.is_prompt", "true")
    yield lambda: at.point(UNKNOWN)
    at.ask_for("DELETE", "model-versions/delete-tag", {"name": "m", "version": UNKNOWN.version, "key": "mlflow.prompt.is_prompt"})
    at.ask_for("DELETE", "registered-models/delete-tag", {"name": "m", "key": "mlflow.prompt.is_prompt"})


# Tags and what is signed


@attack(REST, "refused by mlflow-unlearn: set tag: ", "is written by the server alone, from a verified certificate")
def a_verdict_is_not_written_by_hand(at: Target) -> Steps:
    for key in ("unlearn.verdict", "unlearn.verdict.removal", "unlearn.verdict.suppression", "unlearn.claim"):
        yield lambda key=key: at.tag(UNKNOWN, key, "PASS")


@attack(REST, "refused by mlflow-unlearn: set tag: the certificate ", "does not hold for ")
def the_certificate_of_another_version_is_not_named(at: Target) -> Steps:
    for model in (UNKNOWN, AFFECTED, OTHER):
        yield lambda model=model: at.tag(model, CERTIFICATE_TAG, at.tags(GOOD)[CERTIFICATE_TAG])


@attack(REST, "refused by mlflow-unlearn: set tag: the lineage ", "does not hold for m/5")
def the_lineage_of_another_version_is_not_named(at: Target) -> Steps:
    yield lambda: at.tag(UNKNOWN, LINEAGE_TAG, at.tags(AFFECTED)[LINEAGE_TAG])


@attack(REST, "refused by mlflow-unlearn: set tag: the certificate ", "is about another version, run or registry, and was put beside this one")
def a_certificate_that_is_carried_over_with_its_file_does_not_hold(at: Target) -> Steps:
    made = at.fresh(weights=2.0)
    path = f"1/{at.row(made)['run_id']}/artifacts/unlearn/certificate.json"
    at.put(path, at.artifact(f"1/{at.row(GOOD)['run_id']}/artifacts/unlearn/certificate.json"))
    yield lambda: at.tag(made, CERTIFICATE_TAG, at.tags(GOOD)[CERTIFICATE_TAG])
    at.remove(made)


@attack(REST, "refused by mlflow-unlearn: set tag: m/2 is signed for, and its signed lineage does not say unlearn.request")
def what_a_version_was_made_to_forget_is_not_changed(at: Target) -> Steps:
    yield lambda: at.tag(GOOD, "unlearn.request", "er-1")


@attack(REST, "refused by mlflow-unlearn: ", "is reserved: what was said or signed of a version stays")
def what_was_said_of_a_version_is_not_deleted(at: Target) -> Steps:
    made = at.fresh(tags=[{"key": "unlearn.interim", "value": "suppression"}, {"key": "unlearn.parent", "value": "m/3"}])
    for model, key in ((made, "unlearn.interim"), (made, "unlearn.parent"), (GOOD, "unlearn.request"), (GOOD, CERTIFICATE_TAG)):
        body = {"name": "m", "version": model.version, "key": key}
        yield lambda body=body: at.ask_for("DELETE", "model-versions/delete-tag", body)
    at.remove(made)


@attack(CLIENT, "refused by mlflow-unlearn: m/", "for 'champion'", "the gate could not decide")
def tags_that_a_version_is_registered_with_are_no_evidence(at: Target) -> Steps:
    said = at.tags(GOOD) | {"unlearn.verdict": "PASS", "unlearn.claim": "exact", LINEAGE_TAG: at.tags(AFFECTED)[LINEAGE_TAG]}
    source, run_id = at.row(UNKNOWN)["source"], at.row(UNKNOWN)["run_id"]
    made = at.numbered(at.client.create_model_version("m", source, run_id, tags=said, model_id=source[8:], await_creation_for=0).version)
    assert not {"unlearn.verdict", "unlearn.claim", CERTIFICATE_TAG, LINEAGE_TAG} & at.tags(made).keys()
    yield lambda: told(lambda: at.client.set_registered_model_alias("m", "champion", made.version))
    at.remove(made)


@attack(REST, "refused by mlflow-unlearn: set model tag: ", "are reserved: mlflow-unlearn writes them, on versions")
def a_model_has_no_reserved_tags(at: Target) -> Steps:
    yield lambda: at.ask_for("POST", "registered-models/set-tag", {"name": "m", "key": "unlearn.verdict", "value": "PASS"})


@attack(REST, "refused by mlflow-unlearn: m/", "for 'champion'")
def the_run_and_the_files_of_a_good_version_registered_again_are_no_evidence(at: Target) -> Steps:
    made = at.fresh(source=at.row(GOOD)["source"], run_id=at.row(GOOD)["run_id"], tags=[{"key": k, "value": v} for k, v in at.tags(GOOD).items()])
    yield lambda: at.point(made)
    at.remove(made)


@attack(REST, "refused by mlflow-unlearn: m/", "for 'champion': the gate could not decide", "which no longer exists")
def a_version_of_which_nobody_can_make_sense_is_unknown_and_stops_no_other(at: Target) -> Steps:
    made = at.nonsense()
    yield lambda: at.point(made)
    at.remove(made)


@attack(CLIENT, "refused by mlflow-unlearn: other/", "for 'champion'")
def a_copy_of_an_affected_version_does_not_become_champion(at: Target) -> Steps:
    made = at.client.copy_model_version(f"models:/{AFFECTED}", OTHER.name)
    yield lambda: told(lambda: at.client.set_registered_model_alias(OTHER.name, "champion", made.version))
    at.client.delete_model_version(OTHER.name, made.version)


@attack(CLIENT, "models:/m/3 is blocked, nobody reads its files through this server")
def a_blocked_version_is_not_copied(at: Target) -> Steps:
    yield lambda: told(lambda: at.client.copy_model_version(f"models:/{OVERDUE}", OTHER.name))


# What would take the evidence away from a champion


@attack(REST, "refused by mlflow-unlearn: rename model: m/2@champion would lose its evidence", "Next: take the alias or stage away")
def a_model_with_a_champion_is_not_renamed(at: Target) -> Steps:
    yield lambda: at.ask_for("POST", "registered-models/rename", {"name": "m", "new_name": "n"})


@attack(REST, "RESOURCE_ALREADY_EXISTS", status=400)
def no_model_takes_the_name_of_one_that_is_there(at: Target) -> Steps:
    yield lambda: at.ask_for("POST", "registered-models/rename", {"name": OTHER.name, "new_name": "m"})


@attack(REST, "refused by mlflow-unlearn: delete ", "m/2@champion would lose its evidence")
def a_champion_its_parent_and_their_model_are_not_deleted(at: Target) -> Steps:
    for model in (GOOD, AFFECTED):
        yield lambda model=model: at.ask_for("DELETE", "model-versions/delete", {"name": "m", "version": model.version})
    yield lambda: at.ask_for("DELETE", "registered-models/delete", {"name": "m"})


@attack(REST, "refused by mlflow-unlearn: other/", "for 'champion': the gate says no")
def what_others_say_of_a_champions_files_does_not_stop_it(at: Target) -> Steps:
    said = [{"key": "unlearn.base_model", "value": f"models:/{OVERDUE}"}]
    made = at.fresh(OTHER.name, source=at.row(GOOD)["source"], run_id=at.row(GOOD)["run_id"], tags=said)
    yield lambda: at.point(made)
    at.surveyed()
    assert at.get(f"{at.below(GOOD)}/MLmodel").status == 200
    at.remove(made)


@attack(REST, '"version": "2"', outcome="idle", status=200)
def what_anybody_adds_to_the_run_of_a_champions_parent_does_not_stop_it(at: Target) -> Steps:
    run_id = at.row(AFFECTED)["run_id"]
    try:
        for base in ("models:/m/2", "models:/nobody/3"):
            at.ask_for("POST", "runs/set-tag", {"run_id": run_id, "key": "unlearn.base_model", "value": base})
            yield lambda: at.point(GOOD) and at.follow()
            at.surveyed()
            assert at.get(f"{at.below(GOOD)}/MLmodel").status == 200
    finally:
        at.ask_for("POST", "runs/delete-tag", {"run_id": run_id, "key": "unlearn.base_model"})
        at.point(GOOD)


@attack(REST, outcome="harmless", status=200)
def what_is_signed_about_a_version_is_kept_when_somebody_takes_it_from_its_run(at: Target) -> Steps:
    path = f"1/{at.row(GOOD)['run_id']}/artifacts/unlearn/certificate.json"
    before = at.artifact(path)
    try:
        for lost in (at.put, at.drop):
            assert lost(path).status == 200
            yield lambda: at.point(GOOD)
    finally:
        (at.root / "mlartifacts" / path).parent.mkdir(exist_ok=True)
        (at.root / "mlartifacts" / path).write_bytes(before)


def _answer(attempt: Callable[[], Reply]) -> Reply:
    """What is told, once the server has looked again at a log that an attack before this one had changed for a while."""
    end = time.monotonic() + 40
    while _LOG_IN_TROUBLE in (reply := attempt()).text and time.monotonic() < end:
        time.sleep(0.5)
    return reply


def tried(at: Target, attack: Attack) -> None:
    """Try an attack: told in the expected words and for no other reason, nothing is changed by it, and what is good still works afterwards."""
    with closing(attack.how(at)) as steps:  # type: ignore[type-var]
        for attempt in steps:
            before, reply = at.everything(), _answer(attempt)
            missing = [words for words in attack.words if words not in reply.text.replace("\\n", "\n")]
            assert (reply.status, missing) == (attack.status, []), f"expected {attack.status} and {missing}, was told {reply.status}: {reply.text}"
            assert at.everything() == before, "something was changed"
    assert '"version": "2"' in (found := at.follow()).text, f"the champion is lost: {found.text}"
