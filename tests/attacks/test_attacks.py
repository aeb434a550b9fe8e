"""The sign convention with planted members, and Min-K% by its definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulated import KNOWN, UNKNOWN, SimulatedSubject, subject

from mlflow_unlearn import catalog, stats
from mlflow_unlearn.attacks.loss import Loss
from mlflow_unlearn.attacks.min_k import MinK
from mlflow_unlearn.errors import ConfigError

LOG_PROBS = st.lists(st.floats(-30, 0), min_size=1, max_size=12)


@pytest.mark.parametrize("name", catalog.names("attacks"))
def test_planted_members_look_more_suspicious_under_every_attack(name: str) -> None:
    attack = catalog.build("attacks", name, where="law")
    members, strangers = (attack.suspicion(subject(30, knowledge, seed)) for seed, knowledge in enumerate((KNOWN, UNKNOWN)))
    assert stats.area(members, strangers).value == 1.0


@pytest.mark.parametrize("name", catalog.names("attacks"))
def test_every_attack_gives_one_number_a_record_and_names_its_paper(name: str) -> None:
    attack = catalog.build("attacks", name, where="law")
    assert attack.suspicion(subject(7, KNOWN, 0)).shape == (7,)
    assert "Paper:" in (type(attack).__doc__ or "")


@given(LOG_PROBS)
def test_loss_is_the_mean_log_probability(tokens: list[float]) -> None:
    assert Loss().suspicion(SimulatedSubject(token_log_probs=[np.array(tokens)])) == pytest.approx([sum(tokens) / len(tokens)])


@given(LOG_PROBS, st.sampled_from([0.2, 0.4, 1.0]))
def test_min_k_is_the_mean_of_the_least_likely_share(tokens: list[float], share: float) -> None:
    lowest = sorted(tokens)[: max(1, int(share * len(tokens)))]
    found = MinK(share=share).suspicion(SimulatedSubject(token_log_probs=[np.array(tokens)]))
    assert found == pytest.approx([sum(lowest) / len(lowest)])


@given(LOG_PROBS)
def test_min_k_of_all_tokens_is_the_loss_attack(tokens: list[float]) -> None:
    seen = SimulatedSubject(token_log_probs=[np.array(tokens)])
    assert MinK(share=1.0).suspicion(seen) == pytest.approx(Loss().suspicion(seen))


@pytest.mark.parametrize("name", ["min_k", "min_k_plus_plus"])
@pytest.mark.parametrize("share", [0.0, 1.1])
def test_a_share_outside_its_range_is_refused(name: str, share: float) -> None:
    with pytest.raises(ConfigError, match="share must be above 0 and at most 1"):
        catalog.build("attacks", {"name": name, "share": share}, where="params.yaml")
