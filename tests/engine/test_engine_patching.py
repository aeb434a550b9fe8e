"""Patched passes against hidden states carried on by hand, and depths of models whose forgetting is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tiny_memory import FORGOTTEN, KEPT, NEVER, mean_log_probs, parent, retrained, untrained

from mlflow_unlearn.engine.batches import collate
from mlflow_unlearn.engine.patching import KNOWING, depths, patched
from mlflow_unlearn.protocols import Example

MIXED = [*FORGOTTEN[:2], Example(tokens=(9, 8, 7, 6, 5, 4, 3, 2), prompt_length=5)]


@torch.no_grad()
def carried_on(full: Any, other: Any, example: Example, layer: int) -> float:
    """The other's states after the layer, through the full model's upper layers one by one."""
    tokens = torch.tensor([example.tokens])
    inner = full.model
    states = other(input_ids=tokens, output_hidden_states=True).hidden_states
    places = torch.arange(tokens.shape[1])[None]
    if layer + 1 == len(inner.layers):
        normed = inner.norm(_before_the_norm(other, tokens))
    else:
        here = states[layer + 1]
        for upper in inner.layers[layer + 1 :]:
            here = upper(here, position_embeddings=inner.rotary_emb(here, places), position_ids=places, attention_mask=None)
        normed = inner.norm(here)
    log_probs = full.lm_head(normed)[0, :-1].log_softmax(-1).gather(1, tokens[0, 1:, None])[:, 0]
    return float(log_probs[example.prompt_length - 1 :].mean())


def _before_the_norm(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    seen: list[torch.Tensor] = []
    handle = model.model.norm.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    model(input_ids=tokens)
    handle.remove()
    return seen[0]


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_a_patched_answer_is_the_others_states_carried_on_by_the_full_model(layer: int) -> None:
    full, other = parent(), retrained()
    expected = [carried_on(full, other, example, layer) for example in MIXED]
    assert patched(full, other, collate(MIXED, range(3), 0), layer) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gpt_neox"])
def test_a_model_patched_into_itself_loses_nothing_and_is_whole_afterwards(architecture: str) -> None:
    model = untrained(architecture)
    whole = mean_log_probs(model, MIXED).numpy()
    for layer in range(model.config.num_hidden_layers):
        assert patched(model, model, collate(MIXED, range(3), 0), layer) == pytest.approx(whole, abs=1e-5)
    assert mean_log_probs(model, MIXED).numpy() == pytest.approx(whole, abs=0)


def test_an_unchanged_model_has_depth_zero_and_a_retrain_depth_one() -> None:
    kept = depths((parent(), parent(), retrained()), FORGOTTEN, 64, 0)
    gone = depths((parent(), retrained(), retrained()), FORGOTTEN, 64, 0)
    assert kept.score == pytest.approx(0.0, abs=1e-4)
    assert gone.score == pytest.approx(1.0, abs=1e-4)


def test_the_score_weighs_the_layers_that_knew_by_what_they_knew() -> None:
    full, unlearned, without = parent(), _halfway(), retrained()
    found = depths((full, unlearned, without), FORGOTTEN, 64, 0)
    whole = mean_log_probs(full, FORGOTTEN).numpy()
    for i, example in enumerate(FORGOTTEN):
        lost = [[whole[i] - carried_on(full, other, example, layer) for layer in range(3)] for other in (without, unlearned)]
        knew = [layer for layer in range(3) if lost[0][layer] > KNOWING]
        expected = sum(lost[0][k] * min(1.0, max(0.0, lost[1][k] / lost[0][k])) for k in knew) / sum(lost[0][k] for k in knew)
        assert found.score[i] == pytest.approx(expected, abs=1e-3)
        assert found.lost_without[:, i] == pytest.approx(lost[0], abs=1e-3)
        assert found.lost_unlearned[:, i] == pytest.approx(lost[1], abs=1e-3)
    assert 0.05 < found.score.mean() < 0.95


def _halfway() -> Any:
    """Weights between the parent's and the retrain's."""
    model, other = parent(), retrained()
    with torch.no_grad():
        for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
            mine.lerp_(theirs, 0.7)
    return model


def test_what_only_the_last_layer_hides_is_not_deep() -> None:
    hiding = parent()
    hiding.model.layers[2].register_forward_hook(lambda _, __, states: -states)
    assert mean_log_probs(hiding, FORGOTTEN).max() < -1  # it says nothing of what it knows
    shallow = depths((parent(), hiding, retrained()), FORGOTTEN, 64, 0)
    assert shallow.lost_unlearned[:2] == pytest.approx(0.0, abs=1e-4)
    assert shallow.score.max() < 0.8


def test_a_record_that_no_layer_knew_has_no_depth() -> None:
    found = depths((retrained(), untrained(), retrained()), NEVER, 64, 0)
    assert np.isnan(found.score).all()
    assert found.lost_without == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize("batch_tokens", [1, 20, 999])
def test_depths_do_not_depend_on_the_batch(batch_tokens: int) -> None:
    models = (parent(), _halfway(), retrained())
    assert depths(models, [*MIXED, *KEPT[:2]], batch_tokens, 0).score == pytest.approx(
        depths(models, [*MIXED, *KEPT[:2]], 64, 0).score, abs=1e-4, nan_ok=True
    )
