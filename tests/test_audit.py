"""The audit on a model that knows what it was taught: states, what is remembered, and what a duplicate does to a coin."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from audit_workshop import PARAMS, TEMPLATE, AuditWorkshop, Counted, workshop

from mlflow_unlearn.audit import FINE_TUNED, Known, audit, states
from mlflow_unlearn.audit_sets import AuditSets
from mlflow_unlearn.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def shop() -> AuditWorkshop:
    return workshop()


def test_a_parent_knows_its_canaries_and_a_retrain_does_not(shop: AuditWorkshop) -> None:
    found = audit(shop.job())
    assert found.before.canaries[0].auc.value > 0.95
    assert 0.1 < found.after.canaries[0].auc.value < 0.9
    assert found.before.scores["audit_included"]["exact_match"].value > 0.9
    assert found.after.gap is not None
    assert abs(found.after.gap.share.value) < 0.5
    assert found.utility["retain/exact_memorization"].value > -0.1


def test_a_model_that_forgot_nothing_keeps_all_of_the_parents_signal(shop: AuditWorkshop) -> None:
    found = audit(shop.job(shop.parent))
    assert found.after.gap is not None
    assert found.after.gap.share.value == pytest.approx(1.0)


def test_every_deployed_precision_and_the_fine_tuned_state_are_looked_at(shop: AuditWorkshop) -> None:
    found = audit(shop.job(precisions=("fp32", "int8", "int4")))
    assert set(found.precisions) == {"int8", "int4"}
    assert [state.name for state in states(shop.job(precisions=("int4",)))] == ["after", "int4", FINE_TUNED]
    assert all(report.gap is not None for report in (found.after, *found.precisions.values(), found.after_finetune))


def test_a_precision_nobody_knows_is_refused_by_name(shop: AuditWorkshop) -> None:
    with pytest.raises(ConfigError, match="'int5' is not known; known are fp32, bf16"):
        audit(shop.job(precisions=("int5",)))


def test_a_second_audit_of_the_same_weights_loads_no_model_and_finds_the_same(shop: AuditWorkshop, tmp_path: Path) -> None:
    first = shop.job(folder=tmp_path, precisions=("fp32", "int8"))
    found = audit(first)
    again = shop.job(folder=tmp_path, precisions=("fp32", "int8"))
    assert audit(again).after == found.after
    assert [loads(first.parent), loads(first.model), loads(again.parent), loads(again.model)] == [1, 3, 0, 0]


def test_another_child_of_the_parent_asks_the_parent_nothing(shop: AuditWorkshop, tmp_path: Path) -> None:
    audit(shop.job(folder=tmp_path))
    other = shop.job(shop.parent, folder=tmp_path)
    audit(other)
    assert (loads(other.parent), loads(other.model)) == (0, 2)


def test_damaged_memory_is_asked_again(shop: AuditWorkshop, tmp_path: Path) -> None:
    found = audit(shop.job(folder=tmp_path))
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    job = shop.job(folder=tmp_path)
    assert audit(job).after == found.after
    assert loads(job.model) == 2


def test_other_tokens_are_not_answered_from_memory(shop: AuditWorkshop, tmp_path: Path) -> None:
    audit(shop.job(folder=tmp_path))
    job = shop.job(folder=tmp_path)
    changed = replace(job, sets=replace(job.sets, template="of {prompt} :"))
    audit(changed)
    assert loads(changed.parent) == 1


def test_a_parent_known_already_gives_the_same(shop: AuditWorkshop) -> None:
    whole = audit(shop.job())
    found = audit(shop.job(), Known(report=whole.before, subjects=whole.subjects["before"]))
    assert (found.after, found.utility) == (whole.after, whole.utility)


def test_scores_depend_neither_on_the_size_of_a_batch_nor_on_the_order(shop: AuditWorkshop) -> None:
    found = [audit(shop.job(params=replace(PARAMS, batch_tokens=tokens))).after.scores["retain"]["probability"].value for tokens in (16384, 40)]
    assert found[0] == pytest.approx(found[1], abs=1e-6)
    turned = AuditWorkshop(shop.parent, shop.retrained, shop.words, {name: records[::-1] for name, records in shop.sets.items()})
    again = audit(turned.job())
    assert again.after.canaries[0].auc.value == pytest.approx(audit(shop.job()).after.canaries[0].auc.value, abs=1e-6)


@pytest.mark.parametrize("name", ["audit_excluded", "holdout"])
def test_a_record_never_seen_that_is_word_for_word_one_that_was_is_refused(shop: AuditWorkshop, name: str) -> None:
    twin = replace(shop.sets["audit_included"][0], tag="f" * 32)
    with pytest.raises(DataError, match=f"1 of .* records of {name}, which were never trained on, are word for word"):
        AuditSets.of({**shop.sets, name: [*shop.sets[name], twin]}, TEMPLATE, PARAMS)


def test_sets_are_sampled_and_watched_records_left_out(shop: AuditWorkshop) -> None:
    sets = AuditSets.of(shop.sets, TEMPLATE, replace(PARAMS, retain_sample=5, neighbour_sample=3), kept_sample=4)
    watched = {record.tag for record in shop.sets["retain"][-4:]}
    assert len(sets.records["retain"]) == 5
    assert len(sets.records["neighbours"]) == 3
    assert not watched & {record.tag for record in sets.records["retain"]}
    assert len(sets.retained) == len(shop.sets["retain"])


def test_a_set_in_which_one_record_has_no_twin_is_not_swapped(shop: AuditWorkshop) -> None:
    lame = [replace(shop.sets["holdout"][0], swapped_prompt=None), *shop.sets["holdout"][1:]]
    sets = AuditSets.of({**shop.sets, "holdout": lame}, TEMPLATE, PARAMS)
    assert sets.records["holdout_swapped"] == []
    assert len(sets.records["audit_included_swapped"]) == len(shop.sets["audit_included"])


def test_wrong_answers_are_scored_only_where_a_metric_asks(shop: AuditWorkshop) -> None:
    job = shop.job()
    plain, scored = (next(states(replace(job, sets=sets))).subject(job_, "retain") for job_, sets in _with_and_without(job))
    assert [len(answers) for answers in plain.wrong_log_probs] == [0] * len(plain.answers)
    assert [len(answers) for answers in scored.wrong_log_probs] == [3] * len(scored.answers)
    assert np.allclose(np.concatenate(list(plain.token_log_probs)), np.concatenate(list(scored.token_log_probs)), atol=1e-5)


def _with_and_without(job):  # type: ignore[no-untyped-def]
    return [(replace(job, sets=sets), sets) for sets in (job.sets, job.sets.with_other_answers())]


def loads(origin):  # type: ignore[no-untyped-def]
    assert isinstance(origin.load, Counted)
    return origin.load.times
