"""Registering an unlearned model: complete, once, and repairable after a kill; on a real sqlite store with a real tiny model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import ViewType

from mlflow_unlearn.adapters import models, registration
from mlflow_unlearn.adapters.registration import Evidence
from mlflow_unlearn.adapters.registry import Registry, connect
from mlflow_unlearn.commitments import SCHEMA, Commitment, Commitments, CommittedRevision
from mlflow_unlearn.config import Settings
from mlflow_unlearn.digests import tensor_digest, write_document
from mlflow_unlearn.documents import encode
from mlflow_unlearn.lineage import DatasetRevision, ModelVersion
from mlflow_unlearn.records import Evaluation, Registered, Unlearned, Verdict

CONFIG = {"model_type": "llama", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    corpus = tmp_path_factory.mktemp("corpus") / "corpus.txt"
    corpus.write_text("Question: where is the lamp?\nAnswer: on the table.\n")
    tokenizer = models.train_tokenizer(corpus, 300)
    folder = corpus.with_name("model")
    models.save_model(models.fresh_model({**CONFIG, "tie_word_embeddings": True}, tokenizer, 0, "cpu"), tokenizer, folder)
    return folder


@pytest.fixture
def registry(mlflow_store: str, tmp_path: Path) -> Registry:
    return connect(Settings(root=tmp_path, tag_key_file=tmp_path, ledger_uri="", tracking_uri=mlflow_store), "customers")


@pytest.fixture
def evidence(unlearned: Unlearned, evaluation: Evaluation, verdicts: tuple[Verdict, ...], folder: Path, tmp_path: Path) -> Evidence:
    digest = tensor_digest(folder.glob("*.safetensors"))
    write_document(tmp_path / "verdict.json", "v", {"verdicts": encode(verdicts)})
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/index.html").write_text("<p>checks</p>")
    return Evidence(
        unlearned=replace(unlearned, tensor_digest=digest),
        evaluation=replace(evaluation, unlearned=digest),
        verdicts=verdicts,
        description="what a reviewer reads",
        documents=(tmp_path / "verdict.json",),
        docs=tmp_path / "docs",
    )


def register(registry: Registry, evidence: Evidence, folder: Path) -> Registered:
    return registration.find(registry, "customers", evidence) or registration.register(registry, "customers", evidence, folder)


def counts(registry: Registry) -> tuple[int, int, int]:
    """Versions, runs and logged models that a reader of MLflow sees."""
    experiment = [registry.client.get_experiment_by_name("customers").experiment_id]
    runs = registry.client.search_runs(experiment, run_view_type=ViewType.ACTIVE_ONLY)
    return len(registry.lineages()), len(runs), len(registry.client.search_logged_models(experiment))


def test_the_version_carries_its_lineage_and_verdicts(registry: Registry, evidence: Evidence, folder: Path) -> None:
    register(registry, evidence, folder)
    lineage = registry.lineages()[0]
    assert lineage.datasets == {"customers": "a" * 32 + ".dir"}
    assert (lineage.parent, lineage.requests) == (ModelVersion(name="customers", version="2"), ("er-1", "er-2"))
    assert lineage.verdict == {"removal": "FAIL", "suppression": "PASS"}
    assert registry.verdicts(lineage.model) == evidence.verdicts


def test_the_version_carries_its_commitments_and_a_new_key_is_no_new_evidence(registry: Registry, evidence: Evidence, folder: Path) -> None:
    commitment = Commitment(root="a" * 64, size=3, key_id="b" * 16)
    revision = CommittedRevision(name="customers", md5="a" * 32 + ".dir", commitment=commitment)
    made = Commitments(dataset="customers", revisions=(revision,), retain=replace(commitment, size=2))
    done = register(registry, replace(evidence, commitments=made), folder)
    tags = registry.client.get_model_version("customers", done.model.version).tags
    assert [tags[f"unlearn.commitment.{name}"] for name in ("customers", "retain")] == [f"{'a' * 64}:{size}:{'b' * 16}" for size in (3, 2)]
    assert registry.document(done.model, "commitment") == {"schema": SCHEMA, **encode(made)}
    assert registration.find(registry, "customers", evidence) == done


def test_the_logged_weights_are_the_measured_ones(registry: Registry, evidence: Evidence, folder: Path) -> None:
    done = register(registry, evidence, folder)
    files = registry.files(done.model)
    assert registry.tensor_digest(done.model) == evidence.unlearned.tensor_digest == done.tensor_digest
    assert models.load_tokenizer(files.tokenizer)("lamp")["input_ids"] == models.load_tokenizer(folder)("lamp")["input_ids"]
    assert models.load_model(files.model, "cpu").config.hidden_size == 16


def test_the_page_has_description_params_curve_documents_and_docs(registry: Registry, evidence: Evidence, folder: Path) -> None:
    done = register(registry, evidence, folder)
    run = registry.client.get_run(done.run_id)
    assert registry.client.get_model_version("customers", "1").description == "what a reviewer reads"
    assert run.data.params["unlearn.optimiser.epochs"] == "2"
    assert [point.value for point in registry.client.get_metric_history(done.run_id, "steps/loss")] == [2.0, 1.0]
    assert registry.document(done.model, "verdict")
    assert [file.path for file in registry.client.list_artifacts(done.run_id, "validation")] == ["validation/index.html"]


def test_final_scores_carry_model_and_dataset_and_step_losses_do_not(registry: Registry, evidence: Evidence, folder: Path) -> None:
    done = register(registry, evidence, folder)
    model_id = registry.client.get_run(done.run_id).outputs.model_outputs[0].model_id
    metrics = {metric.key: metric for metric in registry.client.get_logged_model(model_id).metrics}
    assert {"forget/probability", "before/forget/probability", "finetuned/forget/probability", "retain/probability"} <= set(metrics)
    assert {(m.dataset_name, m.dataset_digest) for m in metrics.values()} == {("customers", "a" * 32 + ".dir")}
    assert not [name for name in metrics if name.startswith("steps/")]


def test_registering_twice_is_registering_once(registry: Registry, evidence: Evidence, folder: Path) -> None:
    first = register(registry, evidence, folder)
    again = register(registry, replace(evidence, unlearned=replace(evidence.unlearned, seconds=99.0)), folder)
    assert (first, counts(registry)) == (again, (1, 1, 1))


def test_other_figures_are_another_version(registry: Registry, evidence: Evidence, folder: Path) -> None:
    register(registry, evidence, folder)
    second = register(registry, replace(evidence, evaluation=replace(evidence.evaluation, attempt=2)), folder)
    assert (second.model.version, counts(registry)) == ("2", (2, 2, 2))


def test_a_kill_while_logging_leaves_nothing_that_blocks_or_doubles(registry: Registry, evidence: Evidence, folder: Path) -> None:
    with pytest.raises(OSError, match="missing"):
        register(registry, replace(evidence, documents=(Path("/missing/verdict.json"),)), folder)
    assert registry.lineages() == ()
    register(registry, evidence, folder)
    assert counts(registry) == (1, 1, 1)


def test_a_kill_around_the_version_is_repaired(registry: Registry, evidence: Evidence, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create = type(registry.client).create_model_version
    for reached in (False, True):  # killed just before, then just after the version exists

        def killed(*arguments: Any, reached: bool = reached, **options: Any) -> None:
            if reached:
                create(*arguments, **options)
            raise KeyboardInterrupt("killed")

        with monkeypatch.context() as patch:
            patch.setattr(type(registry.client), "create_model_version", killed)
            with pytest.raises(KeyboardInterrupt, match="killed"):
                register(registry, evidence, folder)
    assert register(registry, evidence, folder).model.version == "1"
    assert counts(registry) == (1, 1, 1)
    assert registry.client.get_model_version("customers", "1").description == "what a reviewer reads"


def test_model_and_version_name_each_other(registry: Registry, evidence: Evidence, folder: Path) -> None:
    done = register(registry, evidence, folder)
    model_id = registry.client.get_run(done.run_id).outputs.model_outputs[0].model_id
    assert registry.client.get_model_version("customers", "1").source == f"models:/{model_id}"
    assert '"customers"' in registry.client.get_logged_model(model_id).tags["mlflow.modelVersions"]


def test_another_model_with_the_same_evidence_keeps_its_run(registry: Registry, evidence: Evidence, folder: Path) -> None:
    first = register(registry, evidence, folder)
    registration.register(registry, "renamed", evidence, folder)
    assert registry.client.get_run(first.run_id).info.lifecycle_stage == "active"
    assert registry.verdicts(first.model) == evidence.verdicts


def test_two_states_of_one_dataset_are_both_kept(registry: Registry, evidence: Evidence, folder: Path) -> None:
    states = tuple(DatasetRevision(name="customers", path="data", md5=letter * 32 + ".dir") for letter in "ab")
    parent = replace(evidence.unlearned.parent, datasets=states)
    register(registry, replace(evidence, unlearned=replace(evidence.unlearned, parent=parent)), folder)
    assert sorted(registry.lineages()[0].datasets.values()) == [state.md5 for state in states]
