"""Shadows whose memory is known, coins, and what is kept of a run that was killed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats as distributions
from simulated import SimulatedSubject
from tiny_memory import KEPT, LEARNING, Numbers, strangers, taught

from mlflow_unlearn.attacks.lira import Lira
from mlflow_unlearn.engine.scoring import ScoredSubject
from mlflow_unlearn.engine.shadowing import Casting, Chosen, Recipe, cast, shadows
from mlflow_unlearn.errors import ConfigError, DivergedError

CASTING = Casting(records=300, models=8, seed=4)


class Workshop:
    """Models are the log-probabilities of the records: a record that was trained on gains 4 nats, forgetting takes `forgets` of them away."""

    def __init__(self, forgets: float = 0.0, records: int = 300) -> None:
        self.forgets, self.trained = forgets, list[int]()
        self.hard = np.random.default_rng(0).normal(-8.0, 2.0, records)

    def train(self, chosen: Chosen, seed: int) -> NDArray[np.float64]:
        self.trained.append(seed)
        return self.hard + 4.0 * chosen + np.random.default_rng(seed).normal(0.0, 0.2, len(chosen))

    def unlearn(self, model: NDArray[np.float64], chosen: Chosen, seed: int) -> NDArray[np.float64]:
        return model - self.forgets * chosen + np.random.default_rng(seed).normal(0.0, 0.2, len(chosen))

    def ask(self, model: NDArray[np.float64]) -> SimulatedSubject:
        return SimulatedSubject(token_log_probs=[np.array([value, value]) for value in np.minimum(model, -0.01)])

    def recipe(self, settings: str = "a") -> Recipe:
        return Recipe(train=self.train, unlearn=self.unlearn, ask=self.ask, settings=settings)


def test_each_record_lies_in_half_of_the_shadows_and_a_pair_shares_them() -> None:
    coins = np.stack([CASTING.trained_on(number) for number in range(8)])
    assert (coins.sum(0) == 4).all()
    assert (coins[::2] != coins[1::2]).all()


def test_coins_are_fair_and_those_of_two_pairs_and_two_seeds_have_nothing_to_do_with_each_other() -> None:
    many = np.stack([Casting(records=4000, models=2, seed=seed).trained_on(number) for seed in range(3) for number in (0, 2, 4)])
    assert np.abs(many.mean(1) - 0.5).max() < 4 * 0.5 / np.sqrt(4000)
    agreeing = [(many[i] == many[j]).mean() for i in range(9) for j in range(i)]
    assert np.abs(np.array(agreeing) - 0.5).max() < 4 * 0.5 / np.sqrt(4000)


def test_shadows_say_the_log_odds_of_what_was_trained_and_then_forgotten(tmp_path: Path) -> None:
    workshop = Workshop(forgets=4.0)
    found = shadows(workshop.recipe(), CASTING, tmp_path)
    p = np.exp(np.minimum(workshop.hard, -0.01))
    assert found.confidences == pytest.approx(np.tile(np.log(p / (1 - p)), (8, 1)), abs=2.0)  # noise of .2 twice
    assert np.array_equal(found.trained_on, np.stack([CASTING.trained_on(number) for number in range(8)]))


@pytest.mark.parametrize(("forgets", "low", "high"), [(0.0, 0.97, 1.0), (2.0, 0.9, 1.0), (4.0, 0.4, 0.6)])
def test_u_lira_finds_what_forgetting_left_and_nothing_where_it_left_nothing(tmp_path: Path, forgets: float, low: float, high: float) -> None:
    workshop = Workshop(forgets)
    included = Casting(records=300, models=2, seed=99).trained_on(0)
    under_test = workshop.ask(workshop.unlearn(workshop.train(included, 7), included, 8))
    seen = SimulatedSubject(token_log_probs=under_test.token_log_probs, shadows=shadows(workshop.recipe(), CASTING, tmp_path))
    suspicion = Lira().suspicion(seen)
    above = distributions.mannwhitneyu(suspicion[included], suspicion[~included]).statistic / (included.sum() * (~included).sum())
    assert low <= above <= high


def killed_after(count: int, steps: Iterator[Any]) -> None:
    for _ in range(count):
        next(steps)


def test_a_run_that_was_killed_goes_on_with_the_same_shadows(tmp_path: Path) -> None:
    workshop, whole = Workshop(), shadows(Workshop().recipe(), CASTING, tmp_path / "whole")
    killed_after(3, cast(workshop.recipe(), CASTING, tmp_path))
    assert len(workshop.trained) == 3
    again = shadows(workshop.recipe(), CASTING, tmp_path)
    assert len(workshop.trained) == 8
    assert np.array_equal(again.confidences, whole.confidences)


def test_more_shadows_keep_those_there_are(tmp_path: Path) -> None:
    workshop = Workshop()
    few = shadows(workshop.recipe(), Casting(records=300, models=4, seed=4), tmp_path)
    many = shadows(workshop.recipe(), CASTING, tmp_path)
    assert len(workshop.trained) == 8
    assert np.array_equal(many.confidences[:4], few.confidences)


@pytest.mark.parametrize(("settings", "seed", "records"), [("b", 4, 300), ("a", 5, 300), ("a", 4, 200)])
def test_shadows_of_other_settings_seeds_or_records_are_not_taken(tmp_path: Path, settings: str, seed: int, records: int) -> None:
    shadows(Workshop().recipe(), CASTING, tmp_path)
    other = Workshop(records=records)
    shadows(other.recipe(settings), Casting(records=records, models=2, seed=seed), tmp_path)
    assert len(other.trained) == 2


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 cut short", b"no archive at all"])
def test_a_damaged_file_is_made_again(tmp_path: Path, damage: bytes) -> None:
    workshop = Workshop()
    whole = shadows(workshop.recipe(), CASTING, tmp_path)
    sorted(tmp_path.iterdir())[0].write_bytes(damage)
    assert np.array_equal(shadows(workshop.recipe(), CASTING, tmp_path).confidences, whole.confidences)
    assert len(workshop.trained) == 9


def test_no_two_trainings_and_unlearnings_share_a_seed(tmp_path: Path) -> None:
    workshop, seeds = Workshop(), list[int]()

    def unlearn(model: NDArray[np.float64], chosen: Chosen, seed: int) -> NDArray[np.float64]:
        seeds.append(seed)
        return workshop.unlearn(model, chosen, seed)

    shadows(Recipe(train=workshop.train, unlearn=unlearn, ask=workshop.ask, settings="a"), CASTING, tmp_path)
    assert len({*seeds, *workshop.trained}) == 16


def test_a_shadow_that_says_what_is_no_number_is_refused_and_not_kept(tmp_path: Path) -> None:
    workshop = Workshop()
    workshop.hard[:3] = np.nan
    with pytest.raises(DivergedError, match="shadow 0: says of 3 of 300 records what is not a number"):
        shadows(workshop.recipe(), CASTING, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("models", [0, 1, 5])
def test_shadows_that_cannot_share_the_records_evenly_are_refused(models: int) -> None:
    with pytest.raises(ConfigError, match=f"found {models}, expected an even number from 2 on"):
        Casting(records=3, models=models, seed=0)


def test_real_models_that_only_train_know_what_they_were_trained_on(tmp_path: Path) -> None:
    canaries = strangers(12, 5)

    def train(chosen: Chosen, seed: int) -> Any:
        return taught([*KEPT, *(canaries[i] for i in np.flatnonzero(chosen))], LEARNING, seed % 1000)

    def ask(model: Any) -> ScoredSubject:
        return ScoredSubject(model=model, tokenizer=_PADDED, examples=canaries, answers=[""] * 12)

    found = shadows(
        Recipe(train=train, unlearn=lambda model, _, __: model, ask=ask, settings="real"), Casting(records=12, models=2, seed=0), tmp_path
    )
    assert found.confidences[found.trained_on].min() > found.confidences[~found.trained_on].max()


class _Padded(Numbers):
    pad_token_id = 0


_PADDED = _Padded()
