"""The probes that train models of their own: U-LiRA with shadows that also unlearned, and the SWAP test with one more.

They cost what so many trainings and unlearnings cost, go on after a kill, and say more than any attack on one model: whether forgetting left what
never seeing would not have (Hayes et al. 2024, arXiv:2403.01218), and how much better than guessing an adversary does when the roles of forgotten and
never-seen records are swapped (Tu, Hu and Ma 2025, arXiv:2404.11577).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .attacks.lira import Lira
from .audit import Retraining
from .deep_subjects import SIDES, Deep
from .digests import sha256_json
from .engine.shadowing import Casting, Recipe, shadows
from .errors import UnmeasurableError
from .evaluate import EXCLUDED, INCLUDED, canary_test, figure
from .indistinguishability import Swapped, unlearning_quality
from .measurements import Probe
from .protocols import Record, Shadows, Subject


@dataclass(frozen=True, kw_only=True, eq=False)
class _WithShadows:
    """Some records, and what shadows say of the same."""

    token_log_probs: Sequence[NDArray[np.float64]]
    shadows: Shadows


def u_lira(deep: Deep) -> Probe:
    """The likelihood ratio of each canary's confidence among models that forgot it and models that never saw it."""
    making, folder = _making(deep), deep.job.folder
    if deep.job.params.shadows < 2 or folder is None:
        raise UnmeasurableError(
            "no shadow models were asked for; set evaluate.shadows (16 or more, an even number) and evaluate.training in params.yaml"
        )
    canaries = [record for name in SIDES for record in deep.records(name)]
    recipe = Recipe(
        train=lambda chosen, seed: making.train(_chosen(canaries, chosen), seed),
        unlearn=lambda model, chosen, seed: making.unlearn(model, _chosen(canaries, chosen), seed),
        ask=lambda model: deep.subject((model, deep.state.loaded[1]), canaries),
        settings=sha256_json([making.settings, [[r.prompt, r.answer] for r in canaries]]),
    )
    found = shadows(recipe, Casting(records=len(canaries), models=deep.job.params.shadows, seed=deep.job.params.seed), folder)
    first = len(deep.records(INCLUDED))
    parts = {INCLUDED: slice(None, first), EXCLUDED: slice(first, None)}
    suspicions = [_suspicion(deep.after[name], found, part) for name, part in parts.items()]
    test = canary_test("u-lira", suspicions[0], suspicions[1], deep.job.measures)
    return Probe(
        tests=(test,), outputs_only=False, note=f"{deep.job.params.shadows} shadow models, each trained on a random half and made to forget it"
    )


def swap(deep: Deep) -> Probe:
    """Unlearning quality: one more model is trained on the excluded canaries in place of the included ones, and made to forget them."""
    making, attacks = _making(deep), deep.job.measures.attacks
    excluded, tokenizer = deep.records(EXCLUDED), deep.state.loaded[1]
    other = making.unlearn(making.train(excluded, deep.job.params.seed), excluded, deep.job.params.seed)
    under = {name: deep.subject((other, tokenizer), deep.records(name)) for name in SIDES}
    games = {
        name: Swapped(
            forgotten_first=attack.suspicion(deep.after[INCLUDED]),
            unseen_first=attack.suspicion(deep.after[EXCLUDED]),
            unseen_second=attack.suspicion(under[INCLUDED]),
            forgotten_second=attack.suspicion(under[EXCLUDED]),
        )
        for name, attack in attacks.items()
    }
    found = unlearning_quality(games, deep.job.measures.bootstrap, deep.job.measures.seed)
    return Probe(
        outputs_only=False,
        note=f"unlearning quality Q {figure(found.quality)}, largest advantage {figure(found.advantage)} over {len(games)} attacks",
    )


def _making(deep: Deep) -> Retraining:
    if deep.job.retraining is None:
        raise UnmeasurableError(
            "nobody said how the parent was trained; set evaluate.training in params.yaml to the optimiser settings of its training"
        )
    return deep.job.retraining


def _chosen(records: Sequence[Record], chosen: NDArray[np.bool_]) -> list[Record]:
    return [record for record, own in zip(records, chosen, strict=True) if own]


def _suspicion(subject: Subject, found: Shadows, part: slice) -> NDArray[np.float64]:
    own = Shadows(confidences=found.confidences[:, part], trained_on=found.trained_on[:, part])
    seen: Any = _WithShadows(token_log_probs=subject.token_log_probs, shadows=own)
    return Lira().suspicion(seen)


TRAINING: dict[str, Callable[[Deep], Probe]] = {"u-lira": u_lira, "swap": swap}
"""Name -> a probe that trains."""
