"""The evaluator as MLflow calls it: the stage's figures, logged once with model and dataset, pictures, and no word of anybody's record."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import mlflow
import pandas
import pytest
from audit_workshop import TEMPLATE, AuditWorkshop, workshop
from ensemble_files import TEMPLATE as ENSEMBLE_TEMPLATE
from ensemble_files import cut_shards, small_base
from mlflow.models import MetricThreshold
from mlflow.models.evaluation.validation import ModelValidationFailedException

from mlflow_unlearn.adapters import models
from mlflow_unlearn.adapters.tables import read_set, write_set
from mlflow_unlearn.audit import Audited, AuditJob, Origin, measures_of
from mlflow_unlearn.audit_sets import AuditSets
from mlflow_unlearn.deep import deep_audit
from mlflow_unlearn.documents import decode, encode
from mlflow_unlearn.errors import ConfigError
from mlflow_unlearn.figures import figures
from mlflow_unlearn.plugin.evaluation_models import find
from mlflow_unlearn.plugin.evaluator import UnlearnEvaluator
from mlflow_unlearn.records import Evaluation
from mlflow_unlearn.stages.jobs import load_files
from mlflow_unlearn.stages.workbench import Workbench

# MLflow 3.17 under pandas 3, when it makes the digest of a frame
pytestmark = pytest.mark.filterwarnings("ignore:Starting with pandas version 4.0 all arguments of all")
SETTINGS: dict[str, Any] = {
    "metrics": ["probability", "exact_memorization", "rouge_l_recall", "truth_ratio"],
    "attacks": ["loss", "min_k"],
    "finetune": {"epochs": 2, "learning_rate": 1e-3, "batch_size": 16},
    "bootstrap": 50,
    "permutations": 99,
    "max_new_tokens": 4,
    "seed": 3,
}
ARTIFACTS = {"evaluation", "knowledge", "roc_loss", "roc_min_k", "power"}


@pytest.fixture(scope="module")
def shop() -> AuditWorkshop:
    return workshop()


@pytest.fixture(scope="module")
def home(shop: AuditWorkshop, mlflow_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both models as folders, the sets as the stage `split` leaves them, and a store with the unlearned model as version 1 of `m`."""
    home = tmp_path_factory.mktemp("evaluator")
    for name, model in (("parent", shop.parent), ("unlearned", shop.retrained)):
        models.save_model(model, shop.words, home / name)
    for name, records in shop.sets.items():
        write_set(home / "sets", name, records)
    (home / "params.yaml").write_text(
        json.dumps(
            {"model": {"name": "m", "parent": "x"}, "data": {"name": "d", "path": "d"}, "evaluate": SETTINGS}
            | {"unlearn": {"method": {"name": "npo"}, "optimiser": {"epochs": 1, "learning_rate": 1e-3}}}
        )
    )
    return home


@pytest.fixture(scope="module")
def store(home: Path, shop: AuditWorkshop, mlflow_template: Path) -> tuple[str, str]:
    """Tracking URI of a store in which the unlearned model is version 1 of `m`, and the logged model's id."""
    shutil.copy(mlflow_template, home / "mlflow.db")
    uri = f"sqlite:///{home / 'mlflow.db'}"
    mlflow.set_tracking_uri(uri)
    mlflow.create_experiment("e", artifact_location=str(home / "artifacts"))
    mlflow.set_experiment("e")
    with mlflow.start_run(), models.quiet():
        parts = {"model": shop.retrained, "tokenizer": shop.words}
        info = mlflow.transformers.log_model(parts, name="model", task="text-generation", pip_requirements=["torch"], registered_model_name="m")
    mlflow.set_tracking_uri(None)
    return uri, info.model_id


@pytest.fixture
def tracked(store: tuple[str, str]) -> str:
    """The store in use; the logged model's id."""
    mlflow.set_tracking_uri(store[0])
    mlflow.set_experiment("e")
    return store[1]


@pytest.fixture(scope="module")
def rows(home: Path) -> pandas.DataFrame:
    return pandas.concat([pandas.read_parquet(path).assign(set=path.stem) for path in sorted((home / "sets").glob("*.parquet"))], ignore_index=True)


def evaluated(home: Path, rows: Any, model: Any = None, in_config: Any = None, **more: Any) -> Any:
    config = {"parent": home / "parent", "model": in_config, "template": TEMPLATE, "device": "cpu", **SETTINGS, **more}
    return mlflow.models.evaluate(model, rows, model_type="unlearn", evaluators="unlearn", evaluator_config=config)


def staged(home: Path) -> Audited:
    """What the stage `evaluate` finds of these folders."""
    bench = Workbench(home)
    params, kept = bench.params.evaluate, bench.params.unlearn.selection.kept_sample
    sets = {path.stem: read_set(home / "sets", path.stem) for path in (home / "sets").glob("*.parquet")}
    parent, model = (Origin(load=partial(load_files, home / name, home / name, "cpu"), digest=name) for name in ("parent", "unlearned"))
    asked = AuditSets.of(sets, TEMPLATE, params, kept).with_other_answers()
    return deep_audit(AuditJob(parent=parent, model=model, sets=asked, measures=measures_of(bench.params.evaluate, "test: "), params=params)).audited


@pytest.fixture(scope="module")
def of_version(home: Path, rows: pandas.DataFrame, store: tuple[str, str]) -> Any:
    """One evaluation of the registered version, with a policy."""
    mlflow.set_tracking_uri(store[0])
    mlflow.set_experiment("e")
    found = evaluated(home, rows, "models:/m/1", policy={"n_min": 400})
    mlflow.set_tracking_uri(None)
    return found


def document(found: Any) -> dict[str, Any]:
    return dict(found.artifacts["evaluation"].content)


def test_every_figure_is_that_of_the_stage(of_version: Any, home: Path) -> None:
    found, expected = document(of_version), staged(home)
    assert found["before"] == encode(expected.before)
    assert found["after"] == encode(expected.after)
    assert found["after_finetune"] == encode(expected.after_finetune)
    assert found["utility"] == encode(expected.utility)
    assert found["paraphrase_gap"] == encode(expected.paraphrase_gap)


def test_metrics_have_the_names_of_a_registration(of_version: Any) -> None:
    body = {key: value for key, value in document(of_version).items() if key != "schema"}
    named = figures(decode(Evaluation, body, "evaluation.json"))
    verdicts = {name: value for name, value in of_version.metrics.items() if name.startswith("verdict/")}
    assert of_version.metrics == named | verdicts
    assert named["before/forget/probability"] > 0.8 > named["forget/probability"]


def test_each_metric_is_logged_once_with_model_and_dataset(of_version: Any, tracked: str) -> None:
    logged = mlflow.get_logged_model(tracked).metrics
    own = [metric for metric in logged if metric.run_id == of_version.run_id]
    assert sorted(metric.key for metric in own) == sorted(of_version.metrics)
    assert {metric.model_id for metric in own} == {tracked}
    assert {bool(metric.dataset_name and metric.dataset_digest) for metric in own} == {True}
    assert len(mlflow.MlflowClient().get_metric_history(of_version.run_id, "forget/probability")) == 1


def test_a_loaded_model_whose_id_mlflow_knows_is_logged_once_too(home: Path, rows: pandas.DataFrame, tracked: str) -> None:
    found = evaluated(home, rows, mlflow.pyfunc.load_model(f"models:/{tracked}"))
    own = [metric for metric in mlflow.get_logged_model(tracked).metrics if metric.run_id == found.run_id]
    assert sorted(metric.key for metric in own) == sorted(found.metrics)


@pytest.mark.parametrize("given", ["model", "in_config"])
def test_a_logged_model_of_another_server_is_looked_at_from_its_folder(
    home: Path, rows: pandas.DataFrame, tracked: str, mlflow_store: str, tmp_path: Path, given: str
) -> None:
    folder = shutil.copytree(mlflow.artifacts.download_artifacts(f"models:/{tracked}"), tmp_path / "copied")
    mlflow.set_tracking_uri(mlflow_store)
    mlflow.create_experiment("other", artifact_location=str(tmp_path / "artifacts"))
    mlflow.set_experiment("other")
    found = evaluated(home, rows, **{given: str(folder)})
    assert document(found)["after"] == encode(staged(home).after)
    assert mlflow.get_run(found.run_id).data.metrics == found.metrics


def test_documents_and_pictures_are_artifacts_of_the_run(of_version: Any, tracked: str) -> None:
    assert set(of_version.artifacts) == ARTIFACTS | {"verdict"}
    files = {each.path for each in mlflow.MlflowClient().list_artifacts(of_version.run_id, "unlearn")}
    assert files == {f"unlearn/{name}.{'json' if name in ('evaluation', 'verdict') else 'png'}" for name in of_version.artifacts}
    assert min(of_version.artifacts["knowledge"].content.size) > 400


def test_a_threshold_on_a_metric_is_a_gate(of_version: Any) -> None:
    known = MetricThreshold(threshold=0.9, greater_is_better=False)
    mlflow.validate_evaluation_results({"forget/probability": known}, of_version)
    with pytest.raises(ModelValidationFailedException, match="before/forget/probability"):
        mlflow.validate_evaluation_results({"before/forget/probability": known}, of_version)


def test_what_only_the_ledger_knows_keeps_a_verdict_from_pass(of_version: Any) -> None:
    removal, suppression = (of_version.metrics[f"verdict/{effect}"] for effect in ("removal", "suppression"))
    assert max(removal, suppression) <= 0.0
    reasons = " ".join(of_version.artifacts["verdict"].content["verdicts"][0]["reasons"])
    assert "committed canaries" in reasons
    assert "policy fixed beforehand" in reasons
    assert of_version.artifacts["verdict"].content["vouched"]["committed"] is False


def test_a_model_that_forgot_nothing_fails(home: Path, rows: pandas.DataFrame, tracked: str) -> None:
    found = evaluated(home, rows, in_config=str(home / "parent"), policy={}, permutations=1999)
    assert found.metrics["verdict/removal"] == -1.0
    assert found.metrics["canaries/remains"] == pytest.approx(1.0)


def test_a_retrained_model_stands_beside_the_others(home: Path, rows: pandas.DataFrame, tracked: str) -> None:
    found = evaluated(home, rows, in_config=str(home / "parent"), retrained="models:/m/1", attacks=["loss", "reference"])
    beside, alone = found.metrics, staged(home).after
    assert beside["retrained/forget/probability"] == alone.scores["requested"]["probability"].value
    assert beside["retrained/canaries/loss_auc"] == alone.canaries[0].auc.value
    assert beside["canaries/reference_auc"] > 0.9


def test_a_retrained_model_that_is_the_model_itself_is_refused(home: Path, rows: pandas.DataFrame, tracked: str) -> None:
    with pytest.raises(ConfigError, match="retrained: these are the weights of the parent, or of the model in question"):
        evaluated(home, rows, "models:/m/1", retrained=str(home / "unlearned"))


def test_a_deep_audit_draws_what_relearning_brings_back(home: Path, rows: pandas.DataFrame, tracked: str) -> None:
    found = evaluated(home, rows, "models:/m/1", audit="deep", probes=["relearned half"], attacks=["loss"])
    curve = document(found)["curves"]["relearned half"]
    assert curve["steps"][0] == 0
    assert found.artifacts["relearning"].content.size[0] > 400
    assert found.metrics["probes/relearned_half/loss_auc"] == document(found)["after"]["probes"]["relearned half"]["tests"][0]["auc"]["value"]


def test_an_ensemble_is_asked_by_keyed_tags_and_claims_exactness(home: Path, rows: pandas.DataFrame, tracked: str, tmp_path: Path) -> None:
    folder = cut_shards(small_base(tmp_path / "base"), tmp_path / "shards").assembled(tmp_path / "ensemble")
    found = evaluated(home, rows, in_config=str(folder), parent=str(folder), template=ENSEMBLE_TEMPLATE, policy={})
    assert not [name for name in found.metrics if name.startswith("finetuned/")]
    assert found.metrics["utility/retain/exact_memorization"] == 0.0
    assert "no log says" in " ".join(found.artifacts["verdict"].content["verdicts"][0]["reasons"])
    plain = rows.rename(columns={"prompt": "question"})[["set", "question", "answer"]]
    with pytest.raises(ConfigError, match="give the rows of build/raw/sets"):
        evaluated(home, plain, in_config=str(folder), parent=str(folder))


def test_weights_are_the_same_however_they_are_named(home: Path, shop: AuditWorkshop, rows: pandas.DataFrame, tracked: str, tmp_path: Path) -> None:
    version = mlflow.MlflowClient().get_model_version("m", "1")
    run = f"runs:/{version.run_id}/model"
    pair = (shop.retrained, shop.words)
    found = [
        find(named, "cpu", tmp_path / str(i)) for i, named in enumerate(("models:/m/1", f"models:/{tracked}", run, str(home / "unlearned"), pair))
    ]
    assert len({each.origin.digest for each in found}) == 1
    assert [each.model_id for each in found] == [tracked, tracked, tracked, None, None]
    assert [str(found[0].version), found[3].version.name] == ["m/1", "unregistered"]


def test_a_pair_in_memory_is_asked_and_left_as_it_was(home: Path, shop: AuditWorkshop, rows: pandas.DataFrame, tracked: str) -> None:
    before = {name: value.clone() for name, value in shop.retrained.state_dict().items()}
    found = evaluated(home, rows, **{"attacks": ["loss"]}, in_config=(shop.retrained, shop.words))
    assert found.metrics["canaries/loss_auc"] == pytest.approx(staged(home).after.canaries[0].auc.value)
    assert all(value.equal(before[name]) for name, value in shop.retrained.state_dict().items())


def test_no_word_of_a_record_is_left_anywhere(of_version: Any, home: Path, shop: AuditWorkshop) -> None:
    asked = {record.prompt for record in shop.sets["requested"]} | {record.tag for record in shop.sets["requested"]}
    left = [path.read_bytes() for path in [home / "mlflow.db", *(home / "artifacts").rglob("*")] if path.is_file() and path.suffix != ".safetensors"]
    assert any(b"forget/probability" in content for content in left)
    assert not [each for each in asked for content in left if each.encode() in content]


def test_a_dataset_of_mlflow_keeps_its_name_and_digest(home: Path, rows: pandas.DataFrame, tracked: str) -> None:
    data = mlflow.data.from_pandas(rows, name="audit", digest="0" * 32)
    found = evaluated(home, data, "models:/m/1")
    metric = next(each for each in mlflow.get_logged_model(tracked).metrics if each.run_id == found.run_id)
    assert (metric.dataset_name, metric.dataset_digest) == ("audit", "0" * 32)


def test_a_dataset_under_dvc_is_read_as_it_is_and_named_by_its_md5(
    home: Path, rows: pandas.DataFrame, tracked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows.to_parquet(tmp_path / "audit.parquet")
    dvc = str(Path(sys.executable).parent / "dvc")
    for line in (("git", "init", "-q"), (dvc, "init", "-q"), (dvc, "add", "-q", "audit.parquet")):
        subprocess.run(line, cwd=tmp_path, check=True, capture_output=True)
    monkeypatch.chdir(tmp_path)
    found = evaluated(home, mlflow.data.from_dvc("audit.parquet"), "models:/m/1")
    metric = next(each for each in mlflow.get_logged_model(tracked).metrics if each.run_id == found.run_id)
    assert (metric.dataset_name, metric.dataset_digest) == ("audit", hashlib.md5((tmp_path / "audit.parquet").read_bytes()).hexdigest())
    assert document(found)["after"] == encode(staged(home).after)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"metric": ["probability"]}, "unknown key 'metric'; did you mean 'metrics'"),
        ({"attacks": ["los"]}, "no attack called 'los'; did you mean 'loss'"),
        ({"audit": "quik"}, "expected one of quick, deep, found 'quik'"),
        ({"parent": "models:/nobody/1"}, "MLflow does not give it"),
        ({"parent": 3}, "expected a URI, a folder or a pair of model and tokenizer, found int"),
        ({"policy": "nowhere.yaml"}, "nowhere.yaml: not there"),
        ({"precisions": ["int5"]}, "'int5' is not known"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(home: Path, rows: pandas.DataFrame, tracked: str, config: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        evaluated(home, rows, in_config=str(home / "unlearned"), **config)


def test_without_parent_or_model_the_missing_one_is_named(home: Path, rows: pandas.DataFrame, tracked: str) -> None:
    with pytest.raises(ConfigError, match="missing key 'parent'"):
        mlflow.models.evaluate(None, rows, model_type="unlearn", evaluators="unlearn", evaluator_config={"seed": 1})
    with pytest.raises(ConfigError, match="no model to evaluate"):
        evaluated(home, rows)
    with pytest.raises(ConfigError, match="holds no transformers model"):
        evaluated(home, rows, lambda frame: frame)
    with pytest.raises(ConfigError, match="custom_artifacts: not read here"):
        mlflow.models.evaluate(None, rows, model_type="unlearn", evaluators="unlearn", custom_artifacts=[print], evaluator_config={})


def test_other_kinds_of_model_are_none_of_its_business() -> None:
    assert UnlearnEvaluator.can_evaluate(model_type="unlearn", evaluator_config={})
    assert not any(UnlearnEvaluator.can_evaluate(model_type=kind, evaluator_config={}) for kind in ("classifier", "text", None))


def in_a_new_process(code: str) -> None:
    done = subprocess.run([sys.executable, "-W", "error::UserWarning:mlflow", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_import_mlflow_does_not_load_it_and_loading_it_loads_nothing_heavy() -> None:
    in_a_new_process(
        "import sys, mlflow; assert 'mlflow_unlearn.plugin.evaluator' not in sys.modules\n"
        "before = set(sys.modules); import mlflow_unlearn.plugin.evaluator\n"
        "loaded = {name.split('.')[0] for name in set(sys.modules) - before}\n"
        "assert not loaded & {'torch', 'transformers', 'matplotlib', 'dvc', 'polars', 'scipy', 'ruamel'}, loaded\n"
        "from mlflow.models import list_evaluators; assert 'unlearn' in list_evaluators()"
    )


def test_a_broken_evaluator_breaks_neither_mlflow_nor_other_evaluators() -> None:
    in_a_new_process(
        "import sys, warnings; sys.modules['mlflow_unlearn.plugin.evaluator'] = None\n"
        "import mlflow; from mlflow.models import list_evaluators\n"
        "with warnings.catch_warnings(record=True) as said:\n"
        "    warnings.simplefilter('always'); found = list_evaluators()\n"
        "assert 'unlearn' not in found and 'default' in found\n"
        "assert any('scheme \"unlearn\"' in str(each.message) for each in said)"
    )
