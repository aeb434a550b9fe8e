"""An ensemble's folder on disk: what is written loads as the same models, what was changed is refused, what is switched off is gone at once."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from ensemble_files import CONFIG, PROMPTS, TEMPLATE, Cut, cut_shards, small_base
from safetensors.torch import load_file, save_file

from mlflow_unlearn import ensembles as manifests
from mlflow_unlearn.adapters import bases, ensembles, models
from mlflow_unlearn.digests import tensor_digest
from mlflow_unlearn.engine.examples import encode
from mlflow_unlearn.engine.generation import greedy
from mlflow_unlearn.ensembles import SCHEMA, EnsembleManifest, shard_file, tensor_prefix
from mlflow_unlearn.errors import ConfigError, StoreError, TamperedError


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_base(tmp_path_factory.mktemp("bases") / "base")


@pytest.fixture(scope="module")
def whole(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Cut:
    return cut_shards(base, tmp_path_factory.mktemp("weights"), empty=(2,))


@pytest.fixture(scope="module")
def banked(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Cut:
    return cut_shards(base, tmp_path_factory.mktemp("adapters"), adapters=True, empty=(2,))


def answers(model: Any, tokenizer: Any) -> list[list[int]]:
    prompts = [each.tokens[: each.prompt_length] for each in encode(tokenizer, TEMPLATE, PROMPTS, [""] * len(PROMPTS))]
    return greedy(model, prompts, end=tokenizer.eos_token_id, max_new_tokens=6, batch_tokens=4096)


def logits(model: Any, tokenizer: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([tokenizer(PROMPTS[0])["input_ids"]])).logits


def changed(path: Path) -> None:
    tensors = load_file(path)
    name = next(iter(tensors))
    save_file(tensors | {name: tensors[name] + 1}, path)


def test_a_manifest_reads_back_as_written(whole: Cut, tmp_path: Path) -> None:
    manifests.write(tmp_path, whole.manifest)
    assert json.loads((tmp_path / "ensemble.json").read_bytes())["schema"] == SCHEMA
    assert manifests.read(tmp_path) == whole.manifest
    assert whole.manifest.alive == (0, 1, 3)


@pytest.mark.parametrize("change", [{"digests": {"000": "a"}}, {"kind": "adapters"}, {"empty": ()}])
def test_a_manifest_that_contradicts_itself_is_refused(whole: Cut, change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"ensemble\.json: (digests|lora): expected"):
        replace(whole.manifest, **change)


def test_each_shard_is_the_model_that_its_file_holds(whole: Cut, tmp_path: Path) -> None:
    ensemble, tokenizer, _ = ensembles.load(whole.assembled(tmp_path / "model"), "cpu")
    for shard in whole.manifest.alive:
        model = models.load_model(whole.base, "cpu")
        state = {name.removeprefix(tensor_prefix(shard)): value for name, value in load_file(whole.files[shard]).items()}
        assert not model.load_state_dict(state, strict=False).unexpected_keys
        assert torch.equal(logits(ensemble.experts.expert(shard), tokenizer), logits(model, tokenizer))
    assert ensemble.experts.alive == (0, 1, 3)


def test_each_adapter_over_the_base_answers_as_peft_does(banked: Cut, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    pytest.importorskip("mlflow_unlearn.engine.adapter_bank")
    ensemble, tokenizer, _ = ensembles.load(banked.assembled(tmp_path / "model"), "cpu")
    for shard in banked.manifest.alive:
        wrapped = models.with_lora(models.load_model(banked.base, "cpu"), banked.manifest.lora, 0)
        state = {name.removeprefix(tensor_prefix(shard)): value for name, value in load_file(banked.files[shard]).items()}
        peft.set_peft_model_state_dict(wrapped, state)
        assert torch.allclose(logits(ensemble.experts.expert(shard), tokenizer), logits(wrapped.eval(), tokenizer), atol=1e-5)


def test_the_folder_of_adapters_holds_nothing_of_the_base(banked: Cut, tmp_path: Path) -> None:
    folder = banked.assembled(tmp_path / "model")
    names = {name.rpartition("/")[2] for path in folder.glob("*.safetensors") for name in load_file(path)}
    assert {name.split(".")[-2] for name in names} == {"lora_A", "lora_B"}


def test_the_digest_of_the_folder_is_that_of_its_shards(whole: Cut, tmp_path: Path) -> None:
    folder = whole.assembled(tmp_path / "model")
    assert tensor_digest(folder.glob("*.safetensors")) == tensor_digest(whole.files.values())


def test_a_folder_is_replaced_whole_and_an_error_leaves_the_old_one(whole: Cut, tmp_path: Path) -> None:
    folder = whole.assembled(tmp_path / "model")
    wrong = replace(whole.manifest, digests={**whole.manifest.digests, "000": "0" * 64})
    with pytest.raises(TamperedError, match=r"shard-000\.safetensors: tensor digest .* ensemble\.json says 0000"):
        ensembles.write(folder, wrong, whole.files, bases.fetch(str(whole.base)))
    assert manifests.read(folder) == whole.manifest
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_disk_that_refuses_is_said_in_one_line(whole: Cut, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="the ensemble could not be saved"):
        whole.assembled(tmp_path / "file" / "model")


def test_a_changed_missing_or_added_shard_is_refused(whole: Cut, tmp_path: Path) -> None:
    for number, spoil in enumerate((changed, Path.unlink, lambda path: changed(path.rename(path.with_name("shard-002.safetensors"))))):
        folder = whole.assembled(tmp_path / str(number))
        copy = shard_file(folder, 1).read_bytes()
        shard_file(folder, 1).unlink()  # a link of the shard's own file
        shard_file(folder, 1).write_bytes(copy)
        spoil(shard_file(folder, 1))
        with pytest.raises(TamperedError, match=r"shard-00[12]\.safetensors"):
            ensembles.load(folder, "cpu")


def test_another_base_under_the_same_name_is_refused(banked: Cut, tmp_path: Path) -> None:
    folder = banked.assembled(tmp_path / "model")
    other = tmp_path / "base"
    tokenizer = models.load_tokenizer(banked.base)
    models.save_model(models.fresh_model(CONFIG, tokenizer, 9, "cpu"), tokenizer, other)
    pytest.importorskip("mlflow_unlearn.engine.adapter_bank")
    with pytest.raises(TamperedError, match=r"base has digest .* ensemble\.json says"):
        ensembles.load(folder, "cpu", bases.fetch(str(other)))


def test_switched_off_shards_are_gone_and_the_rest_is_as_it_was(whole: Cut, tmp_path: Path) -> None:
    folder = whole.assembled(tmp_path / "model")
    after = ensembles.switch_off(folder, (1, 2), tmp_path / "interim")
    assert (after.off, after.alive) == ((1,), (0, 3))
    before, tokenizer, _ = ensembles.load(folder, "cpu")
    now, _, manifest = ensembles.load(tmp_path / "interim", "cpu")
    assert manifest == after
    assert [now.owner_shard(f"{shard:016x}" + "0" * 16) for shard in range(4)] == [0, None, None, 3]
    assert all(answers(now.experts.expert(shard), tokenizer) == answers(before.experts.expert(shard), tokenizer) for shard in after.alive)


def test_switching_off_refuses_what_is_nothing_or_everything(whole: Cut, tmp_path: Path) -> None:
    folder = whole.assembled(tmp_path / "model")
    for shards, words in (((2,), "nothing to switch off"), ((0, 1, 3), "no shard would be left"), ((4,), "expected shards 0 to 3")):
        with pytest.raises(ConfigError, match=words):
            ensembles.switch_off(folder, shards, tmp_path / "interim")


def test_an_ensemble_without_a_shard_that_could_answer_is_refused(whole: Cut, tmp_path: Path) -> None:
    nobody = EnsembleManifest(**{**vars(whole.manifest), "empty": (0, 1, 2, 3), "digests": {}})
    ensembles.write(tmp_path / "model", nobody, {}, bases.fetch(str(whole.base)))
    with pytest.raises(ConfigError, match="every shard is empty or switched off"):
        ensembles.load(tmp_path / "model", "cpu")


def test_a_shard_of_another_model_is_refused(whole: Cut, tmp_path: Path) -> None:
    folder = whole.assembled(tmp_path / "model")
    config = json.loads((folder / "config.json").read_bytes())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(ConfigError, match=r"tensors of config\.json's model missing"):
        ensembles.load(folder, "cpu")
