"""Ensembles in the registry: trained, unlearned and switched off, each once, with lineage that a trace reads, and never with the base inside."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import mlflow
import pytest
from ensemble_files import Cut, cut_shards, small_base
from mlflow.entities import ViewType
from registered_models import Maker, dataset

from mlflow_unlearn import ensembles as manifests
from mlflow_unlearn.adapters import ensembles, models, registration
from mlflow_unlearn.adapters.registration import Evidence, SwitchedOff, Trained, Weights
from mlflow_unlearn.adapters.registry import UNKNOWN_BASE, Registry, connect
from mlflow_unlearn.config import Settings
from mlflow_unlearn.digests import tensor_digest
from mlflow_unlearn.errors import ConfigError, TamperedError
from mlflow_unlearn.exactness import Exactness
from mlflow_unlearn.lineage import DatasetRevision, ModelVersion, Parent, Relation
from mlflow_unlearn.records import Claim, Evaluation, Unlearned, Verdict

STATE = DatasetRevision(name="customers", path="data/customers/train", md5="a" * 32 + ".dir", revisions=("data-v1",))
TRAINED = ModelVersion(name="customers", version="1")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_base(tmp_path_factory.mktemp("bases") / "base")


@pytest.fixture(scope="module")
def whole(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Cut:
    return cut_shards(base, tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def banked(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Cut:
    return cut_shards(base, tmp_path_factory.mktemp("adapters"), adapters=True)


@pytest.fixture
def registry(mlflow_store: str, tmp_path: Path) -> Registry:
    return connect(Settings(root=tmp_path, tag_key_file=tmp_path, ledger_uri="", tracking_uri=mlflow_store), "customers")


def trained(cut: Cut, home: Path, **weights: object) -> Trained:
    log = home / "training.json"
    log.write_text(json.dumps({"schema": "s", "shard": 0}))
    if not (home / "model").exists():
        cut.assembled(home / "model")
    made = Weights(**{"folder": home / "model", "base": cut.base, "base_apart": True, **weights})
    return Trained(weights=made, datasets=(STATE,), shard_logs={0: log, 3: log}, description="four shards")


def counts(registry: Registry) -> tuple[int, int, int]:
    """Versions, runs and logged models that a reader of MLflow sees."""
    experiment = [registry.client.get_experiment_by_name("customers").experiment_id]
    runs = registry.client.search_runs(experiment, run_view_type=ViewType.ACTIVE_ONLY)
    return len(registry.lineages("customers")), len(runs), len(registry.client.search_logged_models(experiment))


def artifact(registry: Registry, version: ModelVersion) -> Path:
    source = registry.client.get_model_version(version.name, version.version).source
    return Path(mlflow.artifacts.download_artifacts(artifact_uri=source))


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_a_trained_family_has_its_data_weights_logs_and_description(registry: Registry, whole: Cut, tmp_path: Path) -> None:
    done = registration.register_trained(registry, "customers", trained(whole, tmp_path))
    lineage = registry.lineages("customers")[0]
    assert (lineage.model, lineage.datasets, lineage.problem) == (TRAINED, {"customers": STATE.md5}, None)
    assert done.tensor_digest == lineage.tensor_digest == registry.tensor_digest(TRAINED) == tensor_digest(whole.files.values())
    assert registry.document(TRAINED, "shards/003") == {"schema": "s", "shard": 0}
    version = registry.client.get_model_version("customers", "1")
    assert (version.tags["unlearn.family"], version.description) == ("f" * 64, "four shards")
    inputs = registry.client.get_run(done.run_id).inputs.dataset_inputs
    assert [(each.dataset.digest, each.tags[0].value) for each in inputs] == [(STATE.md5, "training")]


def test_a_trained_family_is_registered_once(registry: Registry, whole: Cut, tmp_path: Path) -> None:
    first = registration.register_trained(registry, "customers", trained(whole, tmp_path))
    again = registration.register_trained(registry, "customers", trained(whole, tmp_path))
    assert (first, counts(registry)) == (again, (1, 1, 1))


def test_a_kill_while_registering_leaves_nothing_that_blocks_or_doubles(registry: Registry, whole: Cut, tmp_path: Path) -> None:
    entry = trained(whole, tmp_path)
    with pytest.raises(OSError, match="missing"):
        registration.register_trained(registry, "customers", replace(entry, shard_logs={0: Path("/missing/training.json")}))
    assert registry.lineages("customers") == ()
    registration.register_trained(registry, "customers", entry)
    assert counts(registry) == (1, 1, 1)


def test_the_artifact_is_the_ensemble_and_holds_no_pickle(registry: Registry, whole: Cut, tmp_path: Path) -> None:
    registration.register_trained(registry, "customers", trained(whole, tmp_path))
    files = registry.files(TRAINED)
    assert manifests.read(files.model).digests == whole.manifest.digests
    ensembles.load(files.model, "cpu")
    assert not {path.suffix for path in artifact(registry, TRAINED).rglob("*")} & {".pkl", ".pickle", ".pt", ".bin"}


def test_adapters_are_logged_without_their_base_which_is_registered_once(registry: Registry, banked: Cut, tmp_path: Path) -> None:
    pytest.importorskip("mlflow_unlearn.engine.adapter_bank")
    registration.register_trained(registry, "customers", trained(banked, tmp_path))
    folder = registry.files(TRAINED).model
    assert manifests.read(folder).base.reference == "models:/customers-base/1"
    assert registry.tensor_digest(ModelVersion(name="customers-base", version="1")) == banked.manifest.base.tensor_digest
    ensembles.switch_off(tmp_path / "model", (1,), tmp_path / "fewer")
    registration.register_trained(registry, "customers", trained(banked, tmp_path, folder=tmp_path / "fewer"))
    assert len(registry.lineages("customers-base")) == 1
    ensembles.load(folder, "cpu")


def test_the_artifact_of_adapters_is_megabytes_smaller_than_the_base(registry: Registry, tmp_path: Path) -> None:
    base = small_base(tmp_path / "base", hidden_size=192, intermediate_size=768, num_hidden_layers=4)
    cut = cut_shards(base, tmp_path / "shards", adapters=True)
    registration.register_trained(registry, "customers", trained(cut, tmp_path))
    names = {path.name for path in artifact(registry, TRAINED).rglob("*.safetensors")}
    assert names == {f"shard-00{shard}.safetensors" for shard in range(4)}
    assert size(artifact(registry, TRAINED)) < size(base) - 5_000_000


def test_a_base_in_half_precision_is_registered_as_it_is(registry: Registry, tmp_path: Path) -> None:
    base = small_base(tmp_path / "base")
    models.save_model(models.load_model(base, "cpu", "bfloat16"), models.load_tokenizer(base), base)
    cut = cut_shards(base, tmp_path / "shards", adapters=True)
    registration.register_trained(registry, "customers", trained(cut, tmp_path))
    assert registry.tensor_digest(ModelVersion(name="customers-base", version="1")) == cut.manifest.base.tensor_digest


def test_another_base_than_the_adapters_were_trained_on_is_not_registered(registry: Registry, banked: Cut, tmp_path: Path) -> None:
    other = small_base(tmp_path / "other", seed=5)
    with pytest.raises(TamperedError, match="base has digest"):
        registration.register_trained(registry, "customers", trained(banked, tmp_path, base=other))


def test_a_base_of_which_nobody_knows_what_it_saw_makes_the_family_unknown(registry: Registry, whole: Cut, tmp_path: Path) -> None:
    registration.register_trained(registry, "customers", trained(whole, tmp_path, base_apart=False))
    assert registry.lineages("customers")[0].problem == UNKNOWN_BASE


@pytest.mark.parametrize("named", [True, False])
def test_a_registered_base_hands_on_what_it_saw(registry: Registry, whole: Cut, tmp_path: Path, named: bool) -> None:
    """By its name in `exact.base`, or by its weights where `exact.base` is the folder it was saved to."""
    experiment = registry.client.get_experiment_by_name("customers").experiment_id
    parent = Maker(registry.client, experiment)
    if named:
        seen, _ = parent.trained("language", dataset("corpus", "c" * 32))
        cut = replace(whole, manifest=whole.manifest.based_on(f"models:/{seen}"))
        registration.register_trained(registry, "customers", trained(cut, tmp_path, base=None))
    else:
        (tmp_path / "logged").mkdir()
        shutil.copytree(whole.base, tmp_path / "logged/model")
        run = parent.run(dataset("corpus", "c" * 32))
        seen = parent.version("language", run, (tmp_path / "logged").as_uri(), {"unlearn.tensor_digest": whole.manifest.base.tensor_digest})
        registration.register_trained(registry, "customers", trained(whole, tmp_path, base_apart=False))
    lineage = registry.lineages("customers")[0]
    assert (lineage.problem, [(edge.parent, edge.relation) for edge in lineage.ancestors]) == (None, [(seen, Relation.FINE_TUNED)])


def test_a_model_of_a_hub_is_no_registered_version_and_no_problem(registry: Registry, whole: Cut, tmp_path: Path) -> None:
    cut = replace(whole, manifest=whole.manifest.based_on("org/small-model@0123abc"))
    registration.register_trained(registry, "customers", trained(cut, tmp_path, base=None))
    lineage = registry.lineages("customers")[0]
    assert (lineage.problem, lineage.ancestors) == (None, ())


def test_a_folder_without_ensemble_json_is_no_family(registry: Registry, base: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no ensemble\.json"):
        registration.register_trained(registry, "customers", Trained(weights=Weights(folder=base), datasets=(STATE,), shard_logs={}, description=""))


def test_an_unlearned_family_carries_its_verdicts_and_the_shards_that_were_touched(
    registry: Registry, unlearned: Unlearned, evaluation: Evaluation, verdicts: tuple[Verdict, ...], whole: Cut, tmp_path: Path
) -> None:
    folder = whole.assembled(tmp_path / "model")
    made = replace(
        unlearned,
        tensor_digest=tensor_digest(folder.glob("*.safetensors")),
        claim=Claim.EXACT,
        exactness=Exactness(family="f" * 64, shards=4, slices=1, touched=(1, 3)),
    )
    evidence = Evidence(unlearned=made, evaluation=evaluation, verdicts=verdicts, description="d", documents=(), docs=tmp_path / "none")
    done = registration.register(registry, "customers", replace(evidence, base=whole.base, base_apart=True), folder)
    tags = registry.client.get_model_version("customers", done.model.version).tags
    assert (tags["unlearn.family"], tags["unlearn.shards.touched"], tags["unlearn.claim"]) == ("f" * 64, "1,3", "exact")
    lineage = registry.lineages("customers")[0]
    assert (lineage.parent, lineage.datasets) == (unlearned.parent.model, {"customers": STATE.md5})
    assert registration.find(registry, "customers", evidence) == done


def switched_off(registry: Registry, cut: Cut, tmp_path: Path) -> tuple[SwitchedOff, registration.RegisteredFamily]:
    before = registration.register_trained(registry, "customers", trained(cut, tmp_path))
    parent = Parent(model=before.model, tensor_digest=before.tensor_digest, datasets=(STATE,))
    measure = SwitchedOff(parent=parent, requests=("er-1",), shards=(1, 3))
    return measure, registration.register_switched_off(registry, "customers", measure)


def test_switching_off_makes_a_version_without_the_touched_shards_and_without_a_verdict(registry: Registry, whole: Cut, tmp_path: Path) -> None:
    _, done = switched_off(registry, whole, tmp_path)
    files = registry.files(done.model)
    assert [path.name for path in files.weights] == ["shard-000.safetensors", "shard-002.safetensors"]
    tags = registry.client.get_model_version("customers", "2").tags
    assert (tags["unlearn.interim"], tags["unlearn.parent"], tags["unlearn.request"]) == ("switched-off", "customers/1", "er-1")
    lineage = registry.lineages("customers")[1]
    assert (lineage.datasets, lineage.problem, lineage.parent, lineage.verdict) == ({"customers": STATE.md5}, None, TRAINED, {})
    assert "no longer answer" in registry.client.get_model_version("customers", "2").description


def test_switching_off_twice_is_switching_off_once(registry: Registry, whole: Cut, tmp_path: Path) -> None:
    measure, first = switched_off(registry, whole, tmp_path)
    assert registration.register_switched_off(registry, "customers", measure) == first
    assert counts(registry) == (2, 2, 2)


def test_an_interim_version_is_not_taken_for_a_trained_one(registry: Registry, whole: Cut, tmp_path: Path) -> None:
    """Where a shard's people have all left, the family trained without them has the very weights of the interim version."""
    switched_off(registry, whole, tmp_path)
    emptied = replace(whole.manifest, empty=(1, 3), digests={name: whole.manifest.digests[name] for name in ("000", "002")})
    cut = replace(whole, manifest=emptied, files={shard: whole.files[shard] for shard in (0, 2)})
    (tmp_path / "later").mkdir()
    assert registration.register_trained(registry, "customers", trained(cut, tmp_path / "later")).model.version == "3"


def test_only_the_pinned_parent_is_switched_off(registry: Registry, whole: Cut, tmp_path: Path) -> None:
    measure, _ = switched_off(registry, whole, tmp_path)
    other = replace(measure, parent=replace(measure.parent, tensor_digest="0" * 64), requests=("er-2",))
    with pytest.raises(TamperedError, match="customers/1: not the weights that were pinned"):
        registration.register_switched_off(registry, "customers", other)
