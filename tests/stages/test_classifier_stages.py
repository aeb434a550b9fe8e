"""The exact route's stages on sequence classifiers: their records' answers are names of classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from ensemble_files import small_base
from safetensors.torch import load_file
from shard_workshop import SHARDS, SLICES, Workshop, about

from mlflow_unlearn.adapters import bases, ensembles
from mlflow_unlearn.adapters.ensembles import load
from mlflow_unlearn.audit_sets import AuditSets, subject_of
from mlflow_unlearn.catalog import build
from mlflow_unlearn.ensembles import tensor_prefix
from mlflow_unlearn.errors import DataError
from mlflow_unlearn.evaluate import Measures, report
from mlflow_unlearn.protocols import Record, Subject
from mlflow_unlearn.records import Split
from mlflow_unlearn.stages.claiming import replay_here
from mlflow_unlearn.stages.cutting import cut_shards
from mlflow_unlearn.stages.replaying import known_replay
from mlflow_unlearn.stages.scoring import read_audit_sets

CLASSES = ("yes", "no", "maybe")
EVERYBODY = [record for place in product(range(SHARDS), range(SLICES)) for record in about(*place, answers=CLASSES, records=3)]
OPTIMISER = {"epochs": 60, "learning_rate": 1e-2, "batch_size": 4}


def opened(folder: Path, mlflow_template: Path, **exact: Any) -> Workshop:
    made = Workshop.opened(folder / "project", small_base(folder / "base", CLASSES, num_hidden_layers=1), mlflow_template)
    made.edit(
        exact={"optimiser": OPTIMISER, **exact}, evaluate={"bootstrap": 50, "permutations": 50, "metrics": ["probability", "exact_memorization"]}
    )
    return made


@pytest.fixture(scope="module")
def family(mlflow_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """Classifiers of three shards, each trained on twelve records."""
    made = opened(tmp_path_factory.mktemp("classifiers"), mlflow_template)
    made.run(EVERYBODY)
    return made


def asked(family: Workshop, **sets: Sequence[Record]) -> tuple[Mapping[str, Subject], AuditSets]:
    """What `evaluate` would see of the ensemble."""
    bench = family.bench()
    split: Split = family.split(EVERYBODY, **sets)
    raw = read_audit_sets(bench, split)
    ensemble, tokenizer, _ = load(bench.route / "model", "cpu")
    return {name: subject_of((ensemble, tokenizer), raw, records, bench.params.evaluate) for name, records in raw.records.items()}, raw


def test_an_ensemble_of_classifiers_knows_the_classes_of_its_records(family: Workshop) -> None:
    found, raw = asked(family)
    assert family.manifest().task == "classification"
    assert found["retain"].generations == [record.answer for record in raw.records["retain"]]
    assert all(hits.tolist() == [True] for hits in found["retain"].token_hits)


def test_a_records_probability_is_that_of_its_class_in_its_persons_shard(family: Workshop) -> None:
    bench, record = family.bench(), about(1, 0, answers=CLASSES)[0]
    found, _ = asked(family, requested=[record])
    state = {name.removeprefix(tensor_prefix(1)): value for name, value in load_file(family.shard(1) / "weights.safetensors").items()}
    model, tokenizer = bases.load(bases.fetch(str(family.folder / "base")), "cpu")
    model.load_state_dict(state)
    text = bench.params.data.template.replace("{prompt}", record.prompt)
    with torch.no_grad():
        expected = model(**tokenizer(text, return_tensors="pt", return_token_type_ids=False)).logits.log_softmax(-1)[0, CLASSES.index(record.answer)]
    assert found["requested"].token_log_probs[0] == pytest.approx([float(expected)], abs=1e-5)


def test_everything_that_an_exact_verdict_looks_at_can_be_measured_on_classifiers(family: Workshop) -> None:
    included = EVERYBODY[::2]
    excluded = [replace(record, tag=f"{i:032x}", prompt=f"the key {i}") for i, record in enumerate(included)]
    found, _ = asked(family, requested=EVERYBODY[:6], audit_included=included, audit_excluded=excluded)
    params = family.bench().params.evaluate
    metrics, attacks = ({name: build(kind, name, where="test") for name in getattr(params, kind)} for kind in ("metrics", "attacks"))
    made = report(found, Measures(metrics=metrics, attacks=attacks, bootstrap=50, permutations=50, seed=0))
    assert made.scores["requested"]["exact_memorization"].value == 1
    assert {test.attack for test in made.canaries} == set(params.attacks)
    assert made.verbatim is not None


def test_classifiers_repeat_bit_for_bit(family: Workshop) -> None:
    replay_here(family.bench(), [2])
    found = known_replay(family.bench(), family.log(2))
    assert found is not None
    assert found.equal


def test_a_class_that_the_base_does_not_know_is_counted_and_not_quoted(family: Workshop, tmp_path: Path) -> None:
    other = family.copied(tmp_path / "project")
    other.split([*EVERYBODY[1:], replace(EVERYBODY[0], answer="sentinel")])
    cut_shards(other.bench())
    with pytest.raises(DataError, match=r"1 of \d+ records have a class that the model does not know; it knows maybe, no, yes") as told:
        other.train()
    assert "sentinel" not in str(told.value)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")  # peft asks transformers 5
def test_adapters_over_a_classifier_answer_as_peft_does(mlflow_template: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    family = opened(tmp_path, mlflow_template, lora={"rank": 4, "alpha": 8})
    family.run(EVERYBODY)
    ensemble, tokenizer, manifest = ensembles.load(family.bench().route / "model", "cpu", bases.fetch(str(family.folder / "base")))
    adapter = {name.removeprefix(tensor_prefix(0)): value for name, value in load_file(family.shard(0) / "weights.safetensors").items()}
    base = transformers.AutoModelForSequenceClassification.from_pretrained(family.folder / "base")
    wrapped = peft.get_peft_model(base, peft.LoraConfig(r=4, lora_alpha=8, target_modules="all-linear")).eval()  # `SEQ_CLS` would train the head too
    assert peft.set_peft_model_state_dict(wrapped, adapter).unexpected_keys == []
    assert (manifest.kind, manifest.task) == ("adapters", "classification")
    rows = tokenizer([record.prompt for record in EVERYBODY[:1]], return_tensors="pt", return_token_type_ids=False)
    with torch.no_grad():
        assert torch.allclose(ensemble.experts.expert(0)(**rows).logits, wrapped(**rows).logits, atol=1e-5)
