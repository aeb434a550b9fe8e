"""`make bench-verdict`: the verdict tested. Honest retrains must pass, cheats must not; one line a model, every rate with its 95 % interval.

Every trial is a new world: new people, facts, coins, parent and seeds. What a trial found is kept under build/verdict, so that a run that was cut
short goes on and `--trials` can be raised later; verdicts are computed anew from the kept evaluations, so that a changed rule is judged on the same
models. Ends 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from verdict_audit import POLICY, evaluated, looked_at, verdict
from verdict_cheats import CHEATS, METHODS
from verdict_filter import behind_filter
from verdict_models import CONFIG, TOKENS, Trial, trained
from verdict_world import Sizes, world

from mlflow_unlearn import stats
from mlflow_unlearn.adapters.models import fresh_model
from mlflow_unlearn.digests import sha256_json, write_atomically
from mlflow_unlearn.documents import decode, encode
from mlflow_unlearn.errors import TamperedError
from mlflow_unlearn.policy import policy_digest
from mlflow_unlearn.records import Evaluation, Outcome

HONEST, FILTER, SWAPPED = "honest retrain", "refuses by output filter", "evaluation run on another model's weights"
SMALL, SMALL_POOL = "honest retrain, 300 canaries", 300
HOME = Path(__file__).resolve().parents[1] / "build/verdict"
MAKERS = ("verdict_world.py", "verdict_models.py", "verdict_cheats.py", "verdict_filter.py", "verdict_audit.py")
LARGE, LARGE_SIZES = "honest retrain, 1400 canaries", Sizes(canaries=280, neighbours=60)
"""A pool that `mlflow-unlearn power` gives more than nine in ten, with as many neighbours as the margin of utility needs."""
METHOD_TRIALS = 20
HEADER = (
    "what | trials | removal PASS | FAIL | INCONCLUSIVE | refused | PASS rate, 95 % | FAIL rate, 95 % | suppression PASS / FAIL / INCONCLUSIVE | "
    "target"
)
REFUSED = "refused"
"""What comes of evidence that is not of the model: no verdict at all."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where one trial is kept."""

    folder: Path
    seed: int

    def weights(self, name: str, make: Callable[[], Any]) -> Any:
        """A model, from its file where there is one."""
        path = self.folder / f"{_slug(name)}.safetensors"
        if path.exists():
            model = fresh_model(CONFIG, TOKENS, 0, "cpu")
            model.load_state_dict(load_file(path), strict=False)
            return model.eval()
        model = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(".aside")
        save_file({key: value for key, value in model.state_dict().items() if key != "lm_head.weight"}, aside)
        aside.replace(path)
        return model

    def evaluation(self, name: str, make: Callable[[], Evaluation]) -> None:
        """Keep an evaluation unless it is there."""
        if not self.path(name).exists():
            write_atomically(self.path(name), json.dumps(encode(make())).encode())

    def path(self, name: str) -> Path:
        """Where an evaluation is."""
        return self.folder / f"{_slug(name)}.json"

    def known(self, name: str) -> Evaluation | None:
        """An evaluation that was kept."""
        return decode(Evaluation, json.loads(self.path(name).read_bytes()), str(self.path(name))) if self.path(name).exists() else None


def home(folder: Path = HOME) -> Path:
    """A folder for these worlds, cheats and settings: others are other experiments."""
    sources = [(Path(__file__).parent / name).read_text() for name in MAKERS]
    return folder / sha256_json(sources)[:12]


def run_trial(place: Place, sizes: Sizes, methods: bool) -> None:
    """Train, cheat and evaluate whatever is not there yet."""
    here = world(place.seed, sizes)
    trial = Trial(world=here, seed=place.seed, parent=place.weights("parent", lambda: trained(here.trained, place.seed)))
    made: dict[str, Callable[[], Any]] = {HONEST: lambda: trained(here.kept, 10_000 + place.seed)}
    made |= {name: lambda cheat=cheat: cheat(trial) for name, cheat in CHEATS.items()}
    if methods and place.seed < METHOD_TRIALS:
        made |= {name: lambda recipe=recipe: recipe.run(trial) for name, recipe in METHODS.items()}
    for name, make in made.items():
        if not place.path(name).exists():
            model = place.weights(name, make)
            place.evaluation(name, lambda model=model: evaluated(trial, model))
    place.evaluation(FILTER, lambda: _filtered(trial))
    if not place.path(SMALL).exists():
        place.evaluation(SMALL, lambda: evaluated(replace(trial, world=here.smaller(SMALL_POOL)), place.weights(HONEST, made[HONEST])))


def run_large(place: Place) -> None:
    """An honest retrain in a world with a larger pool."""
    here = world(place.seed, LARGE_SIZES)
    if not place.path(LARGE).exists():
        trial = Trial(world=here, seed=place.seed, parent=place.weights("parent", lambda: trained(here.trained, place.seed)))
        place.evaluation(LARGE, lambda: evaluated(trial, place.weights(HONEST, lambda: trained(here.kept, 10_000 + place.seed))))


def _filtered(trial: Trial) -> Evaluation:
    found, seen, sets = looked_at(trial, trial.parent)
    return behind_filter(found, seen.subjects, sets.records, {record.prompt for record in trial.world.forget})


def outcomes(place: Place) -> Iterator[tuple[str, str, str]]:
    """Name, outcome for removal, outcome for suppression of every model of a trial."""
    for name in (HONEST, SMALL, LARGE, *CHEATS, FILTER, *METHODS):
        if (found := place.known(name)) is not None:
            judged = verdict(_under_this_policy(found))
            yield name, judged.removal.outcome, judged.suppression.outcome
    if (honest := place.known(HONEST)) is not None and (other := place.known("does nothing")) is not None:
        yield SWAPPED, *_swapped(honest, other)


def _swapped(honest: Evaluation, other: Evaluation) -> tuple[str, str]:
    """The evaluation of an honest retrain, handed in with the digest of a model that forgot nothing."""
    try:
        judged = verdict(_under_this_policy(honest), claimed=other.unlearned)
    except TamperedError:
        return REFUSED, REFUSED
    return judged.removal.outcome, judged.suppression.outcome


def _under_this_policy(evaluation: Evaluation) -> Evaluation:
    """A kept evaluation as if today's policy had been in force: what the rules make of the same figures."""
    now = policy_digest(POLICY)
    return replace(evaluation, policy=now, first_policy=now)


def table(places: list[Place]) -> int:
    """Print the confusion matrix; 1 when a target is missed."""
    removal: dict[str, Counter[str]] = {}
    suppression: dict[str, Counter[str]] = {}
    for place in places:
        for name, first, second in outcomes(place):
            removal.setdefault(name, Counter())[str(first)] += 1
            suppression.setdefault(name, Counter())[str(second)] += 1
    print(HEADER)
    short = 0
    for name, counts in removal.items():
        n = sum(counts.values())
        held = _holds(name, counts, suppression[name], n)
        short |= held is False
        other = suppression[name]
        print(
            f"{name} | {n} | {counts['PASS']} | {counts['FAIL']} | {counts['INCONCLUSIVE']} | {counts[REFUSED]} | {_rate(counts['PASS'], n)} | "
            f"{_rate(counts['FAIL'], n)} | {other['PASS']} / {other['FAIL']} / {other['INCONCLUSIVE']} | "
            f"{ {True: 'ok', False: 'short', None: 'told'}[held] }"
        )
    return short


def _rate(hits: int, n: int) -> str:
    low, high = stats.clopper_pearson(hits, n)
    return f"{hits / n:.3f} ({low:.3f} to {high:.3f})"


def _holds(name: str, removal: Counter[str], suppression: Counter[str], n: int) -> bool | None:
    """Whether the target of a row is met; None where there is none."""
    if name in METHODS:
        return None
    if name == SMALL:
        return removal[Outcome.INCONCLUSIVE] + removal[Outcome.FAIL] == n and stats.clopper_pearson(removal[Outcome.FAIL], n)[0] <= 0.05
    if name in (HONEST, LARGE):
        fail_low, _ = stats.clopper_pearson(removal[Outcome.FAIL], n)
        _, pass_high = stats.clopper_pearson(removal[Outcome.PASS], n)
        return fail_low <= 0.05 and pass_high >= 0.90 and removal[Outcome.PASS] / n >= 0.90
    return removal[Outcome.PASS] == 0


def _slug(name: str) -> str:
    return "".join(each if each.isalnum() else "-" for each in name)


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop starting trials after so long; run again to go on")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--large", action="store_true", help="only the honest retrains with the larger pool")
    parser.add_argument("--folder", type=Path, default=HOME, help="where what was found is kept")
    parser.add_argument("--without-methods", action="store_true", help="honest retrains and cheats only")
    parser.add_argument("--part", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--table", action="store_true", help="judge what is there and run nothing")
    options = parser.parse_args()
    torch.set_num_threads(1)
    home_ = home(options.folder)
    places = [Place(folder=home_ / f"{seed:03d}", seed=seed) for seed in range(options.trials)]
    large = [Place(folder=home_ / f"large-{seed:03d}", seed=20_000 + seed) for seed in range(options.trials)]
    run = large if options.large else places if options.without_methods else places + large
    if options.part is not None:
        _work(run[options.part :: options.processes], options)
        return
    if not options.table:
        _side_by_side(options)
    sys.exit(table(places + large))


def _side_by_side(options: argparse.Namespace) -> None:
    command = [sys.executable, __file__, *sys.argv[1:]]
    parts = [subprocess.Popen([*command, "--part", str(part)], env=os.environ | {"OMP_NUM_THREADS": "1"}) for part in range(options.processes)]
    ended = [part.wait() for part in parts]
    if any(ended):
        sys.exit("a process ended early; what it finished is kept, run again to go on")


def _work(places: list[Place], options: argparse.Namespace) -> None:
    started = time.monotonic()
    for place in places:
        if time.monotonic() - started > 60 * options.minutes:
            return
        if place.folder.name.startswith("large-"):
            run_large(place)
        else:
            run_trial(place, Sizes(), not options.without_methods)
        print(f"trial {place.seed}: {sum(1 for _ in place.folder.glob('*.json'))} models, {POLICY.deployed_precisions}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
