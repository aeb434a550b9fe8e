"""Real transformers models and tokenizers, a few kilobytes each, in tmp_path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mlflow_unlearn.adapters import models
from mlflow_unlearn.digests import tensor_digest
from mlflow_unlearn.errors import ConfigError, StoreError
from mlflow_unlearn.params import LoraParams

CONFIG = {
    "model_type": "llama",
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "tie_word_embeddings": True,
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "corpus.txt"
    path.write_text("Question: where is the lamp?\nAnswer: on the table.\n" * 20)
    return path


@pytest.fixture(scope="module")
def tokenizer(corpus: Path) -> Any:
    return models.train_tokenizer(corpus, 300)


@pytest.fixture
def model(tokenizer: Any) -> Any:
    return models.fresh_model(CONFIG, tokenizer, seed=0, device_name="cpu")


def digest(folder: Path) -> str:
    return tensor_digest(folder.glob("*.safetensors"))


def test_saving_and_loading_keeps_weights_tokens_and_origin(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    models.save_model(model, tokenizer, tmp_path / "m")
    loaded = models.load_model(tmp_path / "m", "cpu")
    torch.testing.assert_close(loaded.state_dict(), model.state_dict(), atol=0, rtol=0)
    assert models.load_tokenizer(tmp_path / "m")("lamp on ü")["input_ids"] == tokenizer("lamp on ü")["input_ids"]
    assert (loaded.config.initialised_from, loaded.training) == ("scratch", False)


def test_saving_replaces_the_whole_folder_and_leaves_nothing_aside(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m/old.bin").write_text("old")
    models.save_model(model, tokenizer, tmp_path / "m")
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
    assert not (tmp_path / "m/old.bin").exists()


def test_equal_weights_have_equal_digests_after_a_round_trip(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    models.save_model(model, tokenizer, tmp_path / "one")
    models.save_model(models.load_model(tmp_path / "one", "cpu"), tokenizer, tmp_path / "two")
    assert digest(tmp_path / "one") == digest(tmp_path / "two")


def test_a_folder_that_cannot_be_written_is_a_store_error(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="the model could not be saved"):
        models.save_model(model, tokenizer, tmp_path / "file" / "m")


def test_the_seed_decides_fresh_weights_and_global_randomness_stays(tokenizer: Any) -> None:
    before = torch.random.get_rng_state()
    first, same, other = (models.fresh_model(CONFIG, tokenizer, seed, "cpu").lm_head.weight for seed in (0, 0, 1))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_tokenizer_reads_back_any_text(tokenizer: Any) -> None:
    for text in ("where is the lamp?", "Zürich 東京 \t\n {}", " leading"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)


def test_the_tokenizer_is_the_same_for_the_same_corpus(corpus: Path, tokenizer: Any) -> None:
    assert models.train_tokenizer(corpus, 300).get_vocab() == tokenizer.get_vocab()


def test_the_words_of_the_template_are_single_tokens(corpus: Path) -> None:
    tokens = models.train_tokenizer(corpus, 320, "Instruction: {prompt}\nResponse: ").tokenize("Instruction: ?\nResponse: ")
    assert {"Instruction", "Response"} <= set(tokens)


def test_lora_starts_as_the_identity_and_merges_into_a_plain_model(model: Any) -> None:
    tokens = torch.tensor([[5, 6, 7]])
    plain = model(input_ids=tokens).logits
    adapted = models.with_lora(model, LoraParams(rank=2), seed=0)
    torch.testing.assert_close(adapted(input_ids=tokens).logits, plain)
    assert {name.split(".")[-3] for name, p in adapted.named_parameters() if p.requires_grad} == {"lora_A", "lora_B"}
    merged = models.merged(adapted)
    assert not [name for name, _ in merged.named_parameters() if "lora" in name]
    assert models.merged(merged) is merged


def test_lora_on_modules_that_do_not_exist_is_refused(model: Any) -> None:
    with pytest.raises(ConfigError, match=r"params\.yaml: lora: "):
        models.with_lora(model, LoraParams(target_modules=("nowhere",)), seed=0)


def test_bad_settings_are_refused(corpus: Path, tokenizer: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"train\.vocabulary: expected at least 259, found 10"):
        models.train_tokenizer(corpus, 10)
    with pytest.raises(ConfigError, match="no text to train the tokenizer on"):
        models.train_tokenizer(tmp_path / "none.txt", 300)
    with pytest.raises(ConfigError, match=r"train\.init: not a configuration transformers accepts"):
        models.fresh_model({"model_type": "lama"}, tokenizer, 0)
    with pytest.raises(ConfigError, match="device 'cuda:77' is not on this machine"):
        models.device("cuda:77")


def test_a_missing_model_or_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no model here that transformers can load"):
        models.load_model(tmp_path)
    with pytest.raises(ConfigError, match="no tokenizer here that transformers can load"):
        models.load_tokenizer(tmp_path)


def test_the_environment_names_versions_threads_and_device() -> None:
    assert {"torch", "transformers", "python", "threads", "device"} <= set(models.environment())


def test_requirements_are_pinned() -> None:
    assert all("==" in line for line in models.requirements())
