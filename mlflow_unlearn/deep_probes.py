"""The probes of the deep audit: the canaries asked, drawn, relearned and looked at in one more way each.

Each compares included canaries, which were forgotten, with excluded ones, which were never seen; a coin alone tells them apart, so that every p is
exact without a retrained model. A probe that lacks what it needs raises `UnmeasurableError` and is absent, by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from . import stats
from .deep_subjects import SIDES, Deep
from .engine.examples import padding
from .engine.layers import decoder_layers
from .engine.lens import ending_after
from .engine.patching import depths
from .engine.relearning import relearned
from .engine.sampling import drawn
from .engine.two_versions import guided_answers
from .errors import UnmeasurableError
from .evaluate import EXCLUDED, INCLUDED, canary_test, matches, tests_between, verbatim_hits
from .measurements import CanaryTest, Curve, Direction, Probe
from .protocols import Progress, Record, Subject
from .questions import FORMS, Context, asked
from .shadow_probes import TRAINING
from .three_samples import nearness

GUIDE = 1.5
"""How far two versions together are pushed beyond the old one."""
NOT_DRAWN = -1.0
"""Suspicion of a canary that was not among the best known: below any share of draws."""
STOPS = 8
"""How often relearning is looked at."""


def otherwise(deep: Deep, form: str) -> Probe:
    """The canaries in another form of the question."""
    context = Context(retained=deep.job.sets.retained, template=deep.job.sets.template)
    records = [asked(form, deep.records(name), context) for name in SIDES]
    subjects = {name: deep.subject(deep.state.loaded, each) for name, each in zip(SIDES, records, strict=True)}
    absent: dict[str, str] = {}
    tests = tuple(tests_between(subjects, SIDES, deep.job.measures, absent))
    said = matches(*(verbatim_hits(subjects[name]) for name in SIDES))
    return Probe(tests=tests, verbatim=said, note=f"{len(records[0])} forgotten and {len(records[1])} never-seen canaries asked {form}")


def sampled(deep: Deep) -> Probe:
    """Answers drawn of the best known canaries of each side, and of the request's own records."""
    worst = _worst(deep)
    shares = {name: _leaks(deep, name, chosen) for name, chosen in worst.items() if len(chosen)}
    everybody = [np.full(len(deep.records(name)), NOT_DRAWN) for name in SIDES]
    for all_, name in zip(everybody, SIDES, strict=True):
        all_[worst[name]] = shares.get(name, NOT_DRAWN)
    test = canary_test("share of draws", everybody[0], everybody[1], deep.job.measures)
    told = [_told(name, share, deep.job.params.draws) for name, share in shares.items()]
    return Probe(tests=(test,), note="; ".join(told))


def _worst(deep: Deep) -> dict[str, NDArray[np.int64]]:
    """Set -> places of its best known records. Canaries are picked from both sides at once, blind to the coin, and all others rank below them: so the
    test stays exact, and a side that has none of the best known betrays itself too.
    """
    params = deep.job.params
    known = {
        name: np.array([t.mean() for t in deep.after[name].token_log_probs]) for name in (*SIDES, "requested") if deep.job.sets.records.get(name)
    }
    if not known.keys() >= set(SIDES):
        raise UnmeasurableError("there are no canaries on both sides")
    pooled = np.argsort(-np.concatenate([known[name] for name in SIDES]), kind="stable")[: 2 * params.worst]
    first = len(known[INCLUDED])
    found = {INCLUDED: pooled[pooled < first], EXCLUDED: pooled[pooled >= first] - first}
    return found | {name: np.argsort(-own, kind="stable")[: params.worst] for name, own in known.items() if name not in SIDES}


def _leaks(deep: Deep, name: str, worst: NDArray[np.int64]) -> NDArray[np.float64]:
    """(worst,) share of draws in which the answer came out."""
    params, (model, tokenizer) = deep.job.params, deep.state.loaded
    records = [deep.records(name)[i] for i in worst]
    shares = []
    for number, (record, example) in enumerate(zip(records, deep.job.sets.examples(tokenizer, records), strict=True)):
        prompt = example.tokens[: example.prompt_length]
        answers = drawn(model, tokenizer, prompt, params.draws, params.max_new_tokens, params.seed + number)
        shares.append(np.mean([_comes_out(record.answer, answer) for answer in answers]))
        deep.job.tell(f"drawing answers of {name}", Progress(step=number + 1, steps=len(records)))
    return np.array(shares)


def _comes_out(answer: str, said: str) -> bool:
    """Whether an answer stands in what was said, word for word and in whole words."""
    own, words = answer.lower().split(), said.lower().split()
    return any(words[start : start + len(own)] == own for start in range(len(words) - len(own) + 1))


def _told(name: str, shares: NDArray[np.float64], draws: int) -> str:
    """The worst record was picked by what it said, so that its limit has to hold for all of them at once (Bonferroni)."""
    worst = round(float(shares.max()) * draws)
    _, high = stats.clopper_pearson(worst, draws, 1 - 0.05 / len(shares))
    return f"{name}: {shares.mean():.2%} of {draws} draws on each of {len(shares)} records, the worst {worst} (at most {high:.1%} a draw)"


def two_versions(deep: Deep) -> Probe:
    """What whoever holds both versions finds: told, and no evidence against the new one, which a perfect retrain would show as well."""
    known = {name: [np.array([t.mean() for t in side[name].token_log_probs]) for side in (deep.before, deep.after)] for name in SIDES}
    fallen = {name: before - after for name, (before, after) in known.items()}
    area = stats.area(fallen[INCLUDED], fallen[EXCLUDED])
    best = np.argsort(-known[INCLUDED][0], kind="stable")[: deep.job.params.worst]
    records = [deep.records(INCLUDED)[i] for i in best]
    (before, tokenizer), (after, _) = deep.parent.loaded, deep.state.loaded
    prompts = [each.tokens[: each.prompt_length] for each in deep.job.sets.examples(tokenizer, records)]
    said = guided_answers(before, after, tokenizer, prompts, GUIDE, deep.job.params.max_new_tokens)
    deep.parent.release()
    out = sum(answer == record.answer for answer, record in zip(said, records, strict=True))
    told = f"whoever holds the old version too tells forgotten from never-seen canaries with AUC {area.value:.3f}"
    written = f"and brings out {out} of {len(records)} answers (weight {GUIDE})"
    return Probe(outputs_only=False, note=f"{told}, {written}; every way of forgetting shows this: purge the old version")


def logit_lens(deep: Deep) -> Probe:
    """What every layer below the last would answer."""
    (model, tokenizer), tests = deep.state.loaded, list[CanaryTest]()
    absent: dict[str, str] = {}
    for layer in range(len(decoder_layers(model)) - 1):
        with ending_after(model, layer):
            subjects = {name: deep.subject((model, tokenizer), deep.records(name)) for name in SIDES}
            found = list(tests_between(subjects, SIDES, deep.job.measures, absent))
        tests += [replace(test, attack=f"{test.attack} after layer {layer}") for test in found]
    if not tests:
        raise UnmeasurableError("the model has one decoder layer, whose answers the other tests look at")
    return Probe(tests=tuple(tests), outputs_only=False, note=f"{len(decoder_layers(model)) - 1} layers below the last, each with the final head")


def activation_patching(deep: Deep) -> Probe:
    """How deep the forgetting goes: what the parent's answers lose with the unlearned model's states, against those of one that never saw them."""
    if deep.job.reference is None:
        raise UnmeasurableError("no model that never saw the records was named; set evaluate.reference in params.yaml")
    (full, tokenizer), (unlearned, _), (retrained, _) = deep.parent.loaded, deep.state.loaded, deep.job.reference.load()
    examples = deep.job.sets.examples(tokenizer, deep.records(INCLUDED))
    found = depths((full, unlearned, retrained), examples, deep.job.params.batch_tokens, padding(tokenizer))
    deep.parent.release()
    known = found.score[np.isfinite(found.score)]
    if not len(known):
        raise UnmeasurableError("no layer of the parent knew any of the canaries")
    measures = deep.job.measures
    score = stats.mean_score(known, Direction.HIGHER, measures.bootstrap, measures.seed)
    depth = (
        f"unlearning depth {score.value:.3f} ({score.low:.3f} to {score.high:.3f}) over {score.n} canaries; 1 is gone from every layer that knew it"
    )
    return Probe(outputs_only=False, note=depth)


def closer_to(deep: Deep) -> Probe:
    """Is the model closer to one that never saw the canaries, or to the parent? Told, since two retrained models differ as well."""
    reference = deep.job.reference_subject(INCLUDED)
    if reference is None:
        raise UnmeasurableError("no model that never saw the records was named; set evaluate.reference in params.yaml")
    known = [np.array([t.mean() for t in each.token_log_probs]) for each in (deep.after[INCLUDED], deep.before[INCLUDED], reference)]
    measures = deep.job.measures
    found = nearness(known[0], known[1], known[2][None], measures.bootstrap, measures.seed)
    away = f"{found.difference.value:+.2f} ({found.difference.low:+.2f} to {found.difference.high:+.2f}) nats nearer the parent than the reference"
    return Probe(
        outputs_only=False, note=f"{found.nearness.value.replace('_', ' ')}: {away}, p {found.p_retrain:.4f}, over {found.difference.n} canaries"
    )


def relearned_half(deep: Deep) -> Probe:
    """The model is taught half of the forgotten canaries again: does the other half come back?"""
    taught, asked_for = deep.records(INCLUDED)[::2], deep.records(INCLUDED)[1::2]
    if not asked_for:
        raise UnmeasurableError("one forgotten canary has no other half")
    return _relearned(deep, "relearned half", taught, asked_for, "half of the forgotten canaries")


def relearned_strangers(deep: Deep) -> Probe:
    """The model is taught people it never saw, asked alike: syntax more than topic drives relearning (arXiv:2602.03379)."""
    return _relearned(deep, "relearned strangers", deep.records("holdout"), deep.records(INCLUDED), "records of strangers")


def _relearned(deep: Deep, name: str, taught: Sequence[Record], asked_for: Sequence[Record], what: str) -> Probe:
    sets, params, measures = deep.job.sets, deep.job.params, deep.job.measures
    model, tokenizer = deep.state.fresh()
    examples = sets.examples(tokenizer, taught, sets.classes(model))
    looks: list[tuple[int, dict[str, Subject]]] = []
    for step in relearned(model, examples, params.finetune, params.seed, padding(tokenizer), lambda done, all_: done % max(1, all_ // STOPS) == 0):
        sides = {INCLUDED: deep.subject((model, tokenizer), asked_for), EXCLUDED: deep.subject((model, tokenizer), deep.records(EXCLUDED))}
        _ = [(side.token_log_probs, side.token_hits) for side in sides.values()]
        looks.append((step, sides))
    deep.curves[name] = _curve(deep, looks)
    absent: dict[str, str] = {}
    tests = tuple(tests_between(looks[-1][1], SIDES, measures, absent))
    return Probe(tests=tests, outputs_only=False, note=f"after {looks[-1][0]} steps on {what}")


def _curve(deep: Deep, looks: Sequence[tuple[int, Mapping[str, Subject]]]) -> Curve:
    measures = deep.job.measures
    means: dict[str, list[NDArray[np.float64]]] = {name: [_probabilities(sides[name]) for _, sides in looks] for name in SIDES}
    scores = {
        name: tuple(stats.mean_score(values, Direction.LOWER, measures.bootstrap, measures.seed) for values in found) for name, found in means.items()
    }
    areas = tuple(canary_test("probability", *pair, measures).auc for pair in zip(means[INCLUDED], means[EXCLUDED], strict=True))
    return Curve(steps=tuple(step for step, _ in looks), included=scores[INCLUDED], excluded=scores[EXCLUDED], auc=areas)


def _probabilities(subject: Subject) -> NDArray[np.float64]:
    return np.array([np.exp(tokens.mean()) for tokens in subject.token_log_probs])


def _in_form(form: str) -> Callable[[Deep], Probe]:
    return lambda deep: otherwise(deep, form)


PROBES: Mapping[str, Callable[[Deep], Probe]] = {
    **{form: _in_form(form) for form in FORMS},
    "sampled": sampled,
    "two versions": two_versions,
    "logit lens": logit_lens,
    "activation patching": activation_patching,
    "closer to": closer_to,
    "relearned half": relearned_half,
    "relearned strangers": relearned_strangers,
    **TRAINING,
}
"""Name -> how the canaries are looked at."""
