"""`benchmark` from files and models on disk to tables: the figures are those of the verbs, and what is missing is said."""

from __future__ import annotations

import json
import os
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from benchmark_folders import muse_folder, tofu_folder
from click.testing import CliRunner, Result
from ensemble_files import small_base
from safetensors.torch import load_file, save_file

from mlflow_unlearn.adapters import bases
from mlflow_unlearn.adapters.benchmark_files import read_tofu
from mlflow_unlearn.cli import main
from mlflow_unlearn.digests import tensor_digest
from mlflow_unlearn.engine.asked_sets import Asked
from mlflow_unlearn.metrics.truth_ratio import TruthRatio
from mlflow_unlearn.tofu_report import measure

SOURCE = Path(os.environ.get("MLFLOW_UNLEARN_TOFU") or Path(__file__).parents[2] / "shared/data/tofu")
STATES = ("original", "unlearned", "retrained")
FAST = ("--device", "cpu", "--bootstrap", "100")
TEMPLATE = "Question: {prompt}\nAnswer: "


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Three models of one tokenizer."""
    folder = tmp_path_factory.mktemp("models")
    made = {name: small_base(folder / name, seed=seed, max_position_embeddings=512) for seed, name in enumerate(STATES)}
    return {name: str(path) for name, path in made.items()}


def ask(*words: str) -> Result:
    return CliRunner().invoke(main, ["benchmark", *words])


def answer(*words: str) -> dict[str, Any]:
    result = ask(*words, "--json")
    assert result.exit_code == 0, result.output
    document: dict[str, Any] = json.loads(result.stdout)
    return document


def named(models: dict[str, str], *states: str) -> list[str]:
    options = {"unlearned": "--model", "original": "--original", "retrained": "--retrained"}
    return [word for state in states for word in (options[state], models[state])]


def tofu(models: dict[str, str], data: Path, *states: str) -> list[str]:
    return ["tofu", *named(models, *states), "--data", str(data), "--max-new-tokens", "6", *FAST]


def test_three_models_stand_side_by_side_with_everything_measured(models: dict[str, str], tmp_path: Path) -> None:
    document = answer(*tofu(models, tofu_folder(tmp_path), *STATES))
    assert list(document["states"]) == list(STATES)
    assert all(state["absent"] == {} and len(state["utility"]["parts"]) == 9 for state in document["states"].values())
    assert [state["quality"] is None for state in document["states"].values()] == [False, False, True]
    assert document["compared_with"] == "original"


def test_the_figures_are_those_of_the_metrics_on_the_same_model(models: dict[str, str], tmp_path: Path) -> None:
    document = answer(*tofu(models, tofu_folder(tmp_path), "unlearned"))
    model, tokenizer = bases.load(bases.fetch(models["unlearned"]), "cpu")
    asked = Asked(model=model, tokenizer=tokenizer, batch_tokens=64)
    sets = {name: asked.questions(rows, TEMPLATE, 6, name) for name, rows in read_tofu(str(tmp_path), "forget10").records.items()}
    values = measure(sets, TruthRatio()).values
    parts = document["states"]["unlearned"]["utility"]["parts"]
    assert parts["retain/probability"]["value"] == pytest.approx(values["retain/probability"].mean(), abs=1e-6)
    assert parts["world_facts/truth_ratio"]["value"] == pytest.approx((1 - values["world_facts/truth_ratio"]).clip(min=0).mean(), abs=1e-5)


def test_a_document_says_which_weights_and_which_files_it_is_about(models: dict[str, str], tmp_path: Path) -> None:
    document = answer(*tofu(models, tofu_folder(tmp_path / "tofu"), "unlearned"), "--out", str(tmp_path / "out"))
    assert document["models"]["unlearned"]["tensor_digest"] == tensor_digest(sorted(Path(models["unlearned"]).glob("*.safetensors")))
    assert len(document["data"]["files"]) == len(document["data"]["unchecked"]) == 4
    written = json.loads((tmp_path / "out/tofu.json").read_text())
    assert written == {key: value for key, value in document.items() if key != "written"}
    assert written["settings"]["truth_ratio"] == "arithmetic"


def test_people_read_intervals_and_why_something_is_absent(models: dict[str, str], tmp_path: Path) -> None:
    (tofu_folder(tmp_path) / "world_facts_perturbed.jsonl").unlink()
    result = ask(*tofu(models, tmp_path, "unlearned"), "--limit", "5")
    assert result.exit_code == 0, result.output
    for words in (
        "not measured: forget quality (unlearned): no model was given",
        "world_facts/truth_ratio (unlearned): the data do not have this set",
        "model utility (unlearned): it is the mean of nine parts, and 3 are missing",
        "only the first 5 records of each set",
        "no digest to compare with: forget10_perturbed.jsonl",
    ):
        assert words in result.output


def test_the_geometric_truth_ratio_of_published_tables_is_never_above_the_arithmetic_one(models: dict[str, str], tmp_path: Path) -> None:
    words = tofu(models, tofu_folder(tmp_path), "unlearned")
    parts = [answer(*words, "--truth-ratio", form)["states"]["unlearned"]["utility"]["parts"] for form in ("arithmetic", "geometric")]
    assert parts[0]["retain/truth_ratio"]["value"] <= parts[1]["retain/truth_ratio"]["value"]


def test_muse_of_a_model_and_a_retrained_one(models: dict[str, str], tmp_path: Path) -> None:
    words = ["muse", *named(models, "unlearned", "retrained"), "--data", str(muse_folder(tmp_path)), *FAST]
    states = answer(*words)["states"]
    assert set(states["unlearned"]["scores"]) == {
        "verbatim/verbatim_memorization",
        "forget_questions/knowledge_memorization",
        "retain_questions/knowledge_memorization",
    }
    assert states["unlearned"]["leak"]["leak"]["n"] == 12
    assert "privacy leak" in ask(*words).output


def test_muse_without_a_retrained_model_has_no_leak_and_says_why(models: dict[str, str], tmp_path: Path) -> None:
    result = ask("muse", *named(models, "unlearned"), "--data", str(muse_folder(tmp_path)), *FAST)
    assert result.exit_code == 0, result.output
    assert "not measured: privacy leak (unlearned): no model was given" in result.output


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--model", "no/such/folder"), "no such folder, and neither models:/NAME/VERSION nor a hub id"),
        (("--template", "no slot"), "expected `{prompt}` somewhere in the text"),
        (("--data", "./nowhere"), "--data ./nowhere: no such folder"),
    ],
)
def test_wrong_arguments_end_in_one_line_and_2(models: dict[str, str], tmp_path: Path, words: tuple[str, str], complaint: str) -> None:
    result = ask(*tofu(models, tofu_folder(tmp_path), "unlearned"), *words)
    assert (result.exit_code, complaint in result.stderr) == (2, True)
    assert len(result.stderr.splitlines()) == 1


def test_a_classifier_is_refused(tmp_path: Path) -> None:
    classifier = small_base(tmp_path / "classifier", classes=("a", "b"))
    result = ask("tofu", "--model", str(classifier), "--data", str(tofu_folder(tmp_path / "tofu")), *FAST)
    assert (result.exit_code, "a sequence classifier writes no answers" in result.stderr) == (2, True)


@pytest.mark.parametrize("benchmark", ["tofu", "muse"])
def test_a_diverged_model_gets_no_figures(models: dict[str, str], tmp_path: Path, benchmark: str) -> None:
    shutil.copytree(models["unlearned"], tmp_path / "broken")
    weights = load_file(tmp_path / "broken/model.safetensors")
    save_file({name: value * float("nan") for name, value in weights.items()}, tmp_path / "broken/model.safetensors", {"format": "pt"})
    data = tofu_folder(tmp_path / "data") if benchmark == "tofu" else muse_folder(tmp_path / "data")
    result = ask(benchmark, "--model", str(tmp_path / "broken"), "--data", str(data), *FAST)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "not numbers" in result.stderr or "not a number" in result.stderr or "no number" in result.stderr


@pytest.mark.skipif(find_spec("lm_eval") is not None, reason="lm-eval is installed")
def test_tasks_without_lm_eval_say_what_to_install(models: dict[str, str]) -> None:
    result = ask("tasks", *named(models, "unlearned"), "--task", "wmdp_bio", *FAST)
    assert (result.exit_code, "pip install 'mlflow-unlearn[lm-eval]'" in result.stderr) == (2, True)


@pytest.mark.skipif(
    not (SOURCE / "forget01_perturbed.jsonl").exists(), reason="TOFU is not here: set MLFLOW_UNLEARN_TOFU to the folder with its jsonl files"
)
def test_tofu_itself_can_be_asked(models: dict[str, str]) -> None:
    state = answer(*tofu(models, SOURCE, "unlearned", "retrained"), "--forget", "forget01", "--limit", "4")["states"]["unlearned"]
    assert list(state["absent"]) == []
    assert (state["quality"]["statistic"]["n"], state["utility"]["score"]["n"]) == (4, 12)
