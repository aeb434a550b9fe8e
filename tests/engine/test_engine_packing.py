"""Packs give each row the numbers it has alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from mlflow_unlearn.engine import packing
from mlflow_unlearn.engine.batches import collate
from mlflow_unlearn.engine.forward import PLAIN_HEADS
from mlflow_unlearn.engine.head import answer_log_probs
from mlflow_unlearn.protocols import Example, Sequences

OWN = (9, 30, 14, 22, 11)
TOKENS = {"vocab_size": 128, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
SHAPE = TOKENS | {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
GROUPED = SHAPE | {"num_key_value_heads": 2}


def examples(shared: int) -> list[Example]:
    return [
        Example(tokens=(*range(3, 3 + shared), *((7 * i + 5 * t) % 120 + 3 for t in range(n))), prompt_length=shared + 3) for i, n in enumerate(OWN)
    ]


def rows_of(shared: int) -> Sequences:
    return collate(examples(shared), range(len(OWN)), 0)


def a_model(kind: str) -> Any:
    config = transformers.AutoConfig.for_model(kind, **(SHAPE if kind in ("gpt2", "gpt_neox", "opt") else GROUPED))
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(1)
        return transformers.AutoModelForCausalLM.from_config(config).eval()


def one_by_one(model: Any, shared: int) -> torch.Tensor:
    return torch.cat([answer_log_probs(model, collate(examples(shared), [i], 0))[0] for i in range(len(OWN))])


@pytest.mark.parametrize("shared", [0, 12])
@pytest.mark.parametrize("kind", sorted(PLAIN_HEADS))
def test_packed_rows_have_the_numbers_and_gradients_of_rows_alone(kind: str, shared: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "PACK_TOKENS", 40)
    model, rows = a_model(kind), rows_of(shared)
    assert packing.may_pack(model, rows)
    assert packing.packs_of(rows) is not None
    together, alone = answer_log_probs(model, rows)[0], one_by_one(model, shared)
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)
    parameters = [p for p in model.parameters() if p.requires_grad]
    for one, other in zip(*(torch.autograd.grad(values.sum(), parameters) for values in (together, alone)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_each_token_sees_the_shared_ones_and_its_own_row_s_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "PACK_TOKENS", 1000)
    rows = rows_of(12)
    packs = packing.packs_of(rows)
    assert packs is not None
    seen = packs.attention_mask[0, 0][packs.places].sum(-1)
    for row, own in enumerate(OWN):
        assert seen[row, : own - 1].tolist() == list(range(13, 12 + own))


def test_a_row_of_its_own_and_rows_of_one_length_are_not_packed() -> None:
    assert packing.packs_of(collate(examples(12), [1], 0)) is None
    alike = [Example(tokens=(3 + i, 5, 6, 7), prompt_length=2) for i in range(3)]
    assert packing.packs_of(collate(alike, range(3), 0)) is None


def test_a_window_that_ends_within_a_row_is_not_packed() -> None:
    model = a_model("mistral")
    model.config.sliding_window = 8
    assert not packing.may_pack(model, rows_of(12))
