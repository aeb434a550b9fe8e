"""What clients do beside asking for aliases, to have a no forgotten or a look avoided."""

from __future__ import annotations

import pytest
from gated_world import TRAINED, Gated, _built, asked_template, enforced, gated, world  # noqa: F401 - fixtures
from mlflow.exceptions import MlflowException

from mlflow_unlearn.lineage import ModelVersion


def test_a_run_that_hides_what_its_model_was_made_from_opens_no_blocked_files(enforced: Gated):  # noqa: F811
    enforced.policy(on_request="at_once")
    made = enforced.world.version(7.0)
    run_id = enforced.client.get_model_version("m", made.version).run_id
    enforced.client.set_tag(run_id, "unlearn.base_model", f"models:/{TRAINED}")
    enforced.look()
    with pytest.raises(MlflowException, match="is blocked"):
        enforced.read(made.version)
    enforced.client.set_tag(run_id, "unlearn.base_model", "none")
    enforced.look()
    with pytest.raises(MlflowException, match="is blocked"):
        enforced.read(made.version)
    enforced.enforce("observe")
    enforced.look()
    assert enforced.read(made.version)


def test_a_version_that_comes_while_its_alias_is_asked_for_is_looked_at(enforced: Gated, monkeypatch):  # noqa: F811
    pointing, made = enforced.warden.pointing, []

    def late(model: ModelVersion, alias: str, *, afresh: bool = False):
        found = pointing(model, alias, afresh=afresh)
        made.append(None if made else enforced.world.version(8.0))
        return found

    monkeypatch.setattr(enforced.warden, "pointing", late)
    with pytest.raises(MlflowException, match="m/3 for 'champion': the gate could not decide"):
        enforced.point("3")
    assert made == [ModelVersion(name="m", version="3"), None]


def test_who_renames_a_model_takes_its_aliases_along_in_the_log(gated: Gated):  # noqa: F811
    gated.point("1", "blue")
    gated.client.rename_registered_model("m", "k")
    assert gated.told("model", "version", "alias", "outcome", "moves")[-2:] == [("k", "1", "blue", "found", True), ("m", "", "", "granted", False)]


def test_an_alias_may_be_called_as_a_stage_is(enforced: Gated):  # noqa: F811
    enforced.policy(protected_aliases=["*"])
    made = enforced.clear()
    enforced.point(made, "Staging")
    enforced.store.transition_model_version_stage("m", made.version, "Archived", False)
    assert enforced.follow("Staging") == made.version


def test_one_user_fills_the_log_with_so_many_refusals_a_minute(enforced: Gated):  # noqa: F811
    for number in range(130):
        with pytest.raises(MlflowException, match="reserved"):
            enforced.client.set_registered_model_tag("m", f"unlearn.{number}", "x")
    assert len(enforced.told("action")) <= 121
