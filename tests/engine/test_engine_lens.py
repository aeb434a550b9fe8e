"""A model that ends early against its own hidden states, and a memory that only the last layer hides."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_memory import END, FORGOTTEN, mean_log_probs, parent, untrained

from mlflow_unlearn.adapters.models import with_lora
from mlflow_unlearn.engine.lens import ending_after
from mlflow_unlearn.engine.scoring import ScoredSubject
from mlflow_unlearn.errors import ConfigError
from mlflow_unlearn.params import LoraParams

TOKENS = torch.tensor([[5, 6, 7, 8, 9], [9, 8, 7, 6, 5]])
FINAL_NORM = {"llama": "model.norm", "qwen2": "model.norm", "gpt_neox": "gpt_neox.final_layer_norm", "gpt2": "transformer.ln_f"}


def logits(model: Any, **how: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=TOKENS, **how).logits
    return found


@pytest.mark.parametrize("architecture", FINAL_NORM)
def test_each_layer_speaks_through_the_final_norm_and_the_head(architecture: str) -> None:
    model = untrained(architecture)
    norm, head = model.get_submodule(FINAL_NORM[architecture]), model.get_output_embeddings()
    with torch.no_grad():
        states = model(input_ids=TOKENS, output_hidden_states=True).hidden_states
        expected = [head(norm(each)) for each in states[1:-1]]  # the last one is normed already
    for layer, said in enumerate(expected):
        with ending_after(model, layer) as cut:
            torch.testing.assert_close(logits(cut), said)


def test_ending_after_the_last_layer_changes_nothing_and_the_model_is_whole_again_afterwards() -> None:
    model = untrained()
    whole, layers = logits(model), model.model.layers
    with ending_after(model, 2):
        assert torch.equal(logits(model), whole)
    with pytest.raises(ZeroDivisionError), ending_after(model, 0):
        raise ZeroDivisionError
    assert model.model.layers is layers
    assert torch.equal(logits(model), whole)


def test_a_memory_that_the_last_layer_hides_shows_below_it() -> None:
    """The last layer is made to say the opposite of what the others know: only the lens sees that they still do."""
    model = parent()
    middle = [list[torch.Tensor](), list[torch.Tensor]()]
    for found, hidden in zip(middle, (False, True), strict=True):
        if hidden:
            model.model.layers[2].register_forward_hook(lambda _, __, states: -states)
        with ending_after(model, 1):
            found.append(mean_log_probs(model, FORGOTTEN))
    assert mean_log_probs(model, FORGOTTEN).max() < -1
    assert torch.equal(middle[0][0], middle[1][0])


def test_subjects_can_be_scored_and_write_while_it_lasts() -> None:
    model = parent()
    with ending_after(model, 1):
        subject = ScoredSubject(model=model, tokenizer=_Tokens(), examples=FORGOTTEN, answers=[""] * len(FORGOTTEN), max_new_tokens=4)
        scored = torch.tensor([tokens.mean() for tokens in subject.token_log_probs], dtype=torch.float32)
        torch.testing.assert_close(scored, mean_log_probs(model, FORGOTTEN), atol=1e-4, rtol=1e-4)
        assert len(subject.generations) == len(FORGOTTEN)


class _Tokens:
    eos_token_id, pad_token_id = END, 0

    @staticmethod
    def decode(line: list[int], skip_special_tokens: bool) -> str:
        return " ".join(map(str, line)) if skip_special_tokens else ""


def test_the_layers_inside_adapters_are_cut_too() -> None:
    model = untrained()
    with ending_after(model, 0):
        expected = logits(model)
    with ending_after(with_lora(model, LoraParams(rank=2, target_modules=("down_proj",)), seed=0), 0) as cut:
        torch.testing.assert_close(logits(cut), expected)


@pytest.mark.parametrize("layer", [-1, 3])
def test_a_layer_that_the_model_lacks_is_refused(layer: int) -> None:
    with pytest.raises(ConfigError, match=f"layer {layer}: the model has 3 decoder layers"), ending_after(untrained(), layer):
        pass
