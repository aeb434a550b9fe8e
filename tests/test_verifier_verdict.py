"""The verdict counted again by the verifier: the same as the judge's, never better for any damage, and no figure taken at its word."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from exact_evidence import BREAKS, CPU, GPU, made, replay, sound
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated import KNOWN, UNKNOWN, evaluation_of, honest, under

from mlflow_unlearn import stats, verifier
from mlflow_unlearn.documents import encode
from mlflow_unlearn.exactness import Exactness
from mlflow_unlearn.judge import judge
from mlflow_unlearn.measurements import ModelReport, Probe, Verbatim
from mlflow_unlearn.policy import Policy
from mlflow_unlearn.records import Claim, Evaluation
from mlflow_unlearn.verifier import RefusedError

POLICY = Policy()
UNSHAPED = (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError)
"""What `verify` answers with undecided."""
GONE = object()


def predicate(evaluation: Evaluation, policy: Policy = POLICY, claim: Claim = Claim.APPROXIMATE, exactness: Exactness | None = None) -> Any:
    """What of a certificate a verdict follows from, as it is read."""
    return read({"evaluation": encode(evaluation), "policy": encode(policy), "unlearned": encode(made(claim, exactness))})


def read(document: Any) -> Any:
    return verifier.read_json(json.dumps(document).encode(), "certificate")


def counted(document: Any) -> list[str]:
    """Outcomes for removal and suppression."""
    return [verifier.outcome(conditions) for conditions in verifier.recount(document).values()]


def judged(evaluation: Evaluation, policy: Policy, claim: Claim, exactness: Exactness | None) -> list[str]:
    return [verdict.outcome.value for verdict in judge(evaluation, policy, made(claim, exactness))]


# The same verdict.


def matches(included: int) -> Verbatim:
    return Verbatim(included_matches=included, included=400, excluded_matches=0, excluded=400, p=stats.fisher_p(included, 400, 0, 400))


def wrecked() -> Evaluation:
    return evaluation_of(UNKNOWN, UNKNOWN, kept=UNKNOWN)


def with_after(**changes: Any) -> Evaluation:
    return replace(honest(), after=replace(honest().after, **changes))


def with_settings(**changes: Any) -> Evaluation:
    return replace(honest(), settings={**honest().settings, **changes})


def probed(name: str = "sampled", asked: tuple[str, ...] = ("sampled",), **found: Any) -> Evaluation:
    evaluation = with_after(probes={name: Probe(**found)})
    return replace(evaluation, settings={**evaluation.settings, "probes": list(asked)})


def leaking_tests() -> Any:
    return evaluation_of(KNOWN, KNOWN).after.canaries


MEASURED: dict[str, Callable[[], Evaluation]] = {
    "an honest retrain": honest,
    "a model that forgot nothing": lambda: evaluation_of(KNOWN, KNOWN),
    "one that forgot most of it": lambda: evaluation_of(0.5, 0.5),
    "one whose memory returns": lambda: evaluation_of(UNKNOWN, 1.0),
    "one that shuns what it forgot": lambda: evaluation_of(-2.0, -2.0),
    "a wrecked one": wrecked,
    "a fine-tune that wrecks": lambda: replace(honest(), after_finetune=wrecked().after),
    "a fine-tune too short": lambda: with_settings(finetune={**honest().settings["finetune"], "epochs": 1}),  # type: ignore[dict-item]
    "no fine-tune": lambda: with_settings(finetune={}),
    "no settings": lambda: replace(honest(), settings={}),
    "an attack nobody ran": lambda: with_settings(attacks=["loss", "min_k", "zlib"]),
    "a deep audit without probes": lambda: with_settings(audit="deep"),
    "matches word for word": lambda: with_after(verbatim=matches(45)),
    "nothing compared word for word": lambda: with_after(verbatim=None),
    "own records that stand out": lambda: with_after(own=honest().before.own),
    "no own records": lambda: with_after(own=(), own_paraphrased=()),
    "no canaries": lambda: with_after(canaries=()),
    "one attack": lambda: with_after(canaries=honest().after.canaries[:1]),
    "no share that remains": lambda: with_after(gap=None),
    "a probe that finds": lambda: probed(verbatim=matches(40)),
    "a probe that finds by ranks": lambda: probed(tests=leaking_tests()),
    "a probe that finds in the weights": lambda: probed(tests=leaking_tests(), outputs_only=False),
    "a probe that finds nothing": lambda: probed(tests=honest().after.canaries),
    "a probe that did not run": lambda: probed(asked=("sampled", "combined"), verbatim=matches(0)),
    "a probe absent for a reason": lambda: with_after(probes={"sampled": Probe()}, absent={"combined": "one record a person"}),
    "no control": lambda: replace(honest(), before=honest().after),
    "no parent": lambda: replace(honest(), before=ModelReport(scores={})),
    "a parent deaf to other words": lambda: replace(
        honest(), before=replace(honest().before, paraphrased_canaries=honest().after.paraphrased_canaries)
    ),
    "no paraphrases": lambda: replace(honest(), paraphrase_gap=None),
    "a paraphrase gap": lambda: replace(honest(), paraphrase_gap=evaluation_of(KNOWN, KNOWN).paraphrase_gap),
    "no utility": lambda: replace(honest(), utility={}),
    "damaged utility": lambda: replace(honest(), utility=wrecked().utility),
    "a spent pool": lambda: replace(honest(), pool_spent_by="er-0"),
    "flips nobody committed to": lambda: replace(honest(), canaries_committed=False),
    "another policy": lambda: replace(honest(), policy="0" * 64),
    "another policy at first": lambda: replace(honest(), first_policy="0" * 64),
    "a policy nobody noted": lambda: replace(honest(), first_policy=""),
    "no lineage": lambda: replace(honest(), parent=replace(honest().parent, datasets=())),
    **{f"attempt {number}": lambda number=number: replace(honest(), attempt=number) for number in (2, 3, 10, 11)},  # type: ignore[misc]
}
CERTIFIED = [(Claim.CERTIFIED, "an honest retrain"), (Claim.CERTIFIED, "a wrecked one")]
ROUNDED: dict[str, Callable[[], Evaluation]] = {
    "unmeasured": honest,
    "whole": lambda: replace(honest(), precisions={"int4": honest().after}),
    "leaking": lambda: replace(honest(), precisions={"int4": evaluation_of(KNOWN, KNOWN).after}),
    "wrecked": lambda: replace(honest(), precisions={"int4": replace(wrecked().after, gap=honest().after.gap)}),
}
POLICIES = {
    "n_min above the pool": {"n_min": 1000},
    "a tight margin": {"auc_margin": {"400": 0.03}},
    "no margin": {"auc_margin": {}},
    "a tight gap": {"calibrated_gap": {"400": 0.001}},
    "another attack": {"attacks": ("loss", "zlib")},
    "a longer fine-tune": {"finetune_epochs": 100},
    "a stronger control": {"control_epsilon": 6.0},
    "no utility to lose": {"utility_margin": 0.0},
    "no paraphrase margin": {"paraphrase_margin": 0.0},
    "another alpha": {"alpha": 0.2},
}


@pytest.mark.parametrize(("claim", "what"), [(claim, what) for claim in (Claim.APPROXIMATE, Claim.EXACT) for what in MEASURED] + CERTIFIED)
def test_what_was_measured_gives_the_verdict_of_the_judge(claim: Claim, what: str) -> None:
    evaluation, exactness = MEASURED[what](), sound() if claim is Claim.EXACT else None
    assert counted(predicate(evaluation, POLICY, claim, exactness)) == judged(evaluation, POLICY, claim, exactness)


@pytest.mark.parametrize("what", ROUNDED)
def test_deployed_precisions_give_the_verdict_of_the_judge(what: str) -> None:
    policy = replace(POLICY, deployed_precisions=("fp32", "int4"))
    evaluation = under(ROUNDED[what](), policy)
    assert counted(predicate(evaluation, policy)) == judged(evaluation, policy, Claim.APPROXIMATE, None)


@pytest.mark.parametrize("what", POLICIES)
def test_another_policy_gives_the_verdict_of_the_judge(what: str) -> None:
    policy = replace(POLICY, **POLICIES[what])  # type: ignore[arg-type]
    evaluation = under(honest(), policy)
    assert counted(predicate(evaluation, policy)) == judged(evaluation, policy, Claim.APPROXIMATE, None)


def ensemble() -> Evaluation:
    """What is measured of shards: no fine-tune."""
    return replace(honest(), after_finetune=ModelReport(scores={}), canary_shards=(1,))


@pytest.mark.parametrize("what", BREAKS)
def test_broken_evidence_of_exactness_gives_the_verdict_of_the_judge(what: str) -> None:
    broken = replace(sound(), **BREAKS[what][0])
    assert counted(predicate(ensemble(), POLICY, Claim.EXACT, broken)) == judged(ensemble(), POLICY, Claim.EXACT, broken)


@pytest.mark.parametrize("way", ["equal", "attempted"])
@pytest.mark.parametrize("scope", ["all", "retrained"])
@given(
    st.sets(st.integers(0, 3)),
    st.sets(st.integers(0, 3)),
    st.sampled_from([(), ("threads: 1 then, 2 now",)]),
    st.sampled_from([CPU["device"], GPU["device"]]),
    st.booleans(),
)
@settings(max_examples=10)
def test_any_replays_give_the_verdict_of_the_judge(
    scope: Any, way: Any, there: set[int], unequal: set[int], differences: tuple[str, ...], device: str, family: bool
) -> None:
    policy = replace(POLICY, replay=way, replayed_shards=scope)
    found = tuple(replay(each, equal=each not in unequal, differences=differences, device=device) for each in sorted(there))
    shown = replace(sound(), replays=found, before=sound().before if family else {})
    evaluation = under(ensemble(), policy)
    assert counted(predicate(evaluation, policy, Claim.EXACT, shown)) == judged(evaluation, policy, Claim.EXACT, shown)


# Damage.


def changed(document: Any, path: tuple[Any, ...], new: Any) -> Any:
    """A copy with something else, or nothing, in one place."""
    if not path:
        return new
    copy = dict(document) if isinstance(document, dict) else list(document)
    if len(path) == 1 and new is GONE:
        del copy[path[0]]
    else:
        copy[path[0]] = changed(document[path[0]], path[1:], new)
    return copy


def swapped(order: str) -> str:
    """The least suspicious `i` and the most suspicious `e` exchanged."""
    letters, first, last = list(order), order.find("i"), order.rfind("e")
    letters[first], letters[last] = letters[last], letters[first]
    return "".join(letters)


def damages(value: Any) -> list[Any]:
    """What may become of a value, never the same."""
    if isinstance(value, bool):
        found: list[Any] = [not value, None]
    elif isinstance(value, int | float):
        found = [None, str(value), -value - 1, 0, value + 0.3, math.nan, math.inf]
    elif isinstance(value, str):
        found = [None, "", "9" * 64, value[1:], *([swapped(value)] if {"i", "e"} <= set(value) <= set("ie()") else [])]
    elif value is None:
        found = [0, {}, [], "x"]
    else:
        found = [None, type(value)(), *([value[len(value) // 2 :]] if isinstance(value, list) and value else [])]
    return [GONE, *(each for each in found if each != value)]


def recounted(document: Any) -> list[str]:
    """Outcomes; none where the verifier cannot decide or something does not hold."""
    try:
        return counted(read(document))
    except UNSHAPED:
        return []


@cache
def base(name: str) -> Any:
    if name == "shards":
        return predicate(ensemble(), POLICY, Claim.EXACT, sound())
    return predicate(MEASURED[name]())


@st.composite
def places(draw: Any, document: Any) -> tuple[tuple[Any, ...], Any]:
    """A place in a document and what is there, as likely near the top as far down."""
    path: tuple[Any, ...] = ()
    while isinstance(document, dict | list) and document and (len(path) < 2 or draw(st.integers(0, 4))):
        key = draw(st.sampled_from(sorted(document)) if isinstance(document, dict) else st.integers(0, len(document) - 1))
        path, document = (*path, key), document[key]
    return path, document


SEEN = ("a model that forgot nothing", "a wrecked one", "matches word for word", "own records that stand out", "a probe that finds in the weights")
"""Models that are not passed for what was measured on them, for removal at least."""


@pytest.mark.parametrize("name", SEEN)
@given(st.data())
@settings(max_examples=25)
def test_no_damage_to_one_piece_makes_a_pass(name: str, data: st.DataObject) -> None:
    path, value = data.draw(places(base(name)))
    assert recounted(changed(base(name), path, data.draw(st.sampled_from(damages(value)))))[:1] != ["PASS"]


TEST = ("attack", "auc", "auc.value", "auc.n", "p_member", "p_non_member", "epsilon", "right", "order")
GAP = ("included", "excluded", "included.0", "included.7.1", "excluded.7.1", "parent.value", "share.value", "share.n")
MEAN = ("value", "low", "high", "n", "values", "values.0", "values.0.0")
NEEDED = {
    "an honest retrain": [
        *("evaluation.unlearned", "evaluation.split_digest", "evaluation.attempt", "evaluation.pool_spent_by", "evaluation.canaries_committed"),
        *("evaluation.policy", "evaluation.first_policy", "evaluation.settings", "evaluation.settings.permutations", "evaluation.settings.finetune"),
        *(
            "policy",
            "policy.alpha",
            "policy.n_min",
            "policy.auc_margin",
            "policy.auc_margin.400",
            "unlearned.tensor_digest",
            "unlearned.split_digest",
            "unlearned.claim",
            "evaluation.before",
        ),
        *(f"evaluation.before.{tests}.1.{each}" for tests in ("canaries", "paraphrased_canaries") for each in ("auc.value", "right", "order")),
        *("evaluation.after", "evaluation.after_finetune", "evaluation.after.canaries", "evaluation.after_finetune.canaries"),
        *("evaluation.after.scores.retain.exact_memorization", "evaluation.after_finetune.scores.retain", "evaluation.after.gap"),
        *("evaluation.after.own", "evaluation.after.own_paraphrased", "evaluation.after.paraphrased_canaries", "evaluation.after_finetune.gap"),
        *(f"evaluation.after.canaries.0.{each}" for each in TEST),
        *(f"evaluation.after.{tests}.1.{each}" for tests in ("own", "own_paraphrased", "paraphrased_canaries") for each in ("order", "p_member")),
        *(f"evaluation.after_finetune.canaries.1.{each}" for each in ("attack", "auc.value", "order")),
        *(f"evaluation.after.gap.{each}" for each in GAP),
        *(f"evaluation.after_finetune.gap.{each}" for each in ("included", "excluded.3.1", "share.value")),
        *(f"evaluation.after.verbatim{each}" for each in ("", ".included_matches", ".included", ".excluded_matches", ".excluded", ".p")),
        *(f"evaluation.utility{each}" for each in ("", ".retain/rouge_l_recall", ".general/exact_memorization")),
        *(f"evaluation.utility.neighbours/rouge_l_recall.{each}" for each in MEAN),
        *(f"evaluation.paraphrase_gap{each}" for each in ("", *(f".{name}" for name in MEAN))),
    ],
    "shards": [
        *("evaluation.parent.datasets", "evaluation.policy", "evaluation.first_policy", "evaluation.canaries_committed", "evaluation.after.canaries"),
        *(f"evaluation.after.canaries.1.{each}" for each in TEST),
        *(f"unlearned.exactness{each}" for each in ("", ".digests", ".digests.001", ".logs", ".logs.002", ".replays", ".shared", ".before.002")),
        *(f"unlearned.exactness.replays.1{each}" for each in ("", ".shard", ".logged", ".found", ".log")),
        *(f"unlearned.exactness.shared.3{each}" for each in ("", ".name", ".holds")),
    ],
}
"""A verdict of PASS -> evidence without which, or with other evidence in its place, removal does not pass."""


def found_at(document: Any, place: str) -> tuple[tuple[Any, ...], Any]:
    """The path of a place such as `evaluation.after.canaries.0`, and what is there."""
    path: list[Any] = []
    for step in place.split("."):
        path.append(int(step) if isinstance(document, list) else step.replace("0_95", "0.95"))
        document = document[path[-1]]
    return tuple(path), document


@pytest.mark.parametrize(("name", "place"), [(name, place) for name, needed in NEEDED.items() for place in needed])
def test_every_piece_that_decides_is_needed_as_it_is(name: str, place: str) -> None:
    path, value = found_at(base(name), place)
    for new in damages(value):
        assert recounted(changed(base(name), path, new))[:1] != ["PASS"], f"{place} became {new!r:.60}"


@pytest.mark.parametrize("number", [0, -1, -4, 0.5, 11, 10**9])
def test_an_attempt_that_cannot_be_has_no_limits(number: Any) -> None:
    assert "PASS" not in recounted(changed(base("an honest retrain"), ("evaluation", "attempt"), number))


def test_an_unknown_claim_is_no_claim() -> None:
    assert recounted(changed(base("an honest retrain"), ("unlearned", "claim"), "measured")) == []


@pytest.mark.parametrize("drawn", [-5, -1000, 0, 1, True])
def test_so_many_permutations_cannot_have_been_drawn(drawn: Any) -> None:
    assert "PASS" not in recounted(changed(base("an honest retrain"), ("evaluation", "settings", "permutations"), drawn))


@pytest.mark.parametrize("p", [0.002, 0.003, 0.004])
def test_chance_does_not_hide_a_p_that_no_thousand_draws_would_give(p: float) -> None:
    """All included canaries above all excluded ones: 1,000 permutations give 1 / 1,001, and the family of tests decides by that."""
    hidden = tuple(replace(test, p_member=p) for test in leaking_tests())
    assert "PASS" not in recounted(predicate(probed(tests=hidden)))
    shards = replace(ensemble(), after=replace(honest().after, canaries=hidden))
    assert "PASS" not in recounted(predicate(shards, POLICY, Claim.EXACT, sound()))


def test_of_two_tests_of_one_name_neither_hides_the_other() -> None:
    both = (leaking_tests()[0], *honest().after.canaries)
    assert "PASS" not in recounted(predicate(probed(tests=both)))
    assert "PASS" not in recounted(predicate(probed(tests=both[::-1])))


# Stated figures.

STATED = {
    "loss on .*: AUC": ("evaluation.after.canaries.0.auc.value", 0.01),
    "loss on .*: canaries": ("evaluation.after.canaries.0.auc.n", 1),
    "loss on .*: limit at 0.95": ("evaluation.after.canaries.0.auc_upper.0_95", -0.01),
    "loss on .*: p": ("evaluation.after.canaries.0.p_member", 0.2),
    "min_k on .*: p": ("evaluation.after.canaries.1.p_non_member", -0.2),
    "loss on .*: epsilon": ("evaluation.before.canaries.0.epsilon", 0.01),
    "loss on .*right guesses": ("evaluation.before.canaries.0.right", -1),
    "calibrated gap .*: share": ("evaluation.after.gap.share.value", -0.01),
    "calibrated gap .*: gap in the parent": ("evaluation.after.gap.parent.value", 0.01),
    "calibrated gap .*: limit at 0.95": ("evaluation.after.gap.share_upper.0_95", -0.01),
    "utility on retain/rouge_l_recall: mean": ("evaluation.utility.retain/rouge_l_recall.value", 1e-5),
    "utility on retain/rouge_l_recall: low": ("evaluation.utility.retain/rouge_l_recall.low", 1e-4),
    "paraphrased questions, size: mean": ("evaluation.paraphrase_gap.value", -1e-5),
    "paraphrased questions, size: high": ("evaluation.paraphrase_gap.high", -1e-4),
    "fp32: Fisher's p": ("evaluation.after.verbatim.p", -0.01),
}


@pytest.mark.parametrize("said", STATED)
def test_a_stated_figure_that_does_not_follow_is_refused_by_name(said: str) -> None:
    place, by = STATED[said]
    path, value = found_at(base("an honest retrain"), place)
    with pytest.raises(RefusedError, match=said):
        counted(changed(base("an honest retrain"), path, value + by))
