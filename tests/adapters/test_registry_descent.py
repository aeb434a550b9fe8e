"""Every version that a version was made from, by each record that may say so; what leads nowhere is a problem."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from registered_models import MD5, OTHER, Maker, dataset, registry_at
from safetensors.numpy import save_file

from mlflow_unlearn.adapters.registry import BASE_TAG, UNKNOWN_BASE, UNREADABLE, Registry
from mlflow_unlearn.adapters.registry_apart import apart
from mlflow_unlearn.adapters.registry_descent import TOO_MANY
from mlflow_unlearn.adapters.registry_files import KeptAnswers
from mlflow_unlearn.adapters.registry_pages import PageRows
from mlflow_unlearn.adapters.registry_references import UNREGISTERED, registered
from mlflow_unlearn.adapters.registry_rows import VersionRow
from mlflow_unlearn.adapters.registry_texts import TOO_LARGE, UNREADABLE_FILES
from mlflow_unlearn.adapters.storage_locations import Storage
from mlflow_unlearn.digests import tensor_digest
from mlflow_unlearn.errors import StoreError
from mlflow_unlearn.lineage import ModelVersion, VersionLineage

DATA = dataset("customers", MD5)
DIGEST_OF = Registry.tensor_digest


@pytest.fixture
def registry(mlflow_store: str, tmp_path: Path) -> Registry:
    return registry_at(tmp_path, mlflow_store)


@pytest.fixture
def make(registry: Registry) -> Maker:
    return Maker(registry.client, registry.client.get_experiment_by_name("customers").experiment_id)


def read(registry: Registry, model: ModelVersion) -> VersionLineage:
    return next(each for each in registry.lineages() if each.model == model)


def origins(registry: Registry, model: ModelVersion) -> list[tuple[str, str]]:
    return [(str(each.parent), each.relation.value) for each in read(registry, model).ancestors]


def test_what_a_tag_states_is_an_ancestor_wherever_it_was_written(registry: Registry, make: Maker) -> None:
    make.trained("base", DATA)
    tags = {"unlearn.base_model": "models:/base/1", "unlearn.relation": "adapter"}
    on_version = make.version("v", make.run(DATA), tags=tags)
    on_run, _ = make.trained("v", DATA, tags=tags)
    run_id = make.run(DATA)
    on_logged_model = make.version("v", run_id, f"models:/{make.logged(run_id, tags=tags)}")
    assert [origins(registry, each) for each in (on_version, on_run, on_logged_model)] == [[("base/1", "adapter")]] * 3


def test_several_stated_parents_are_a_merge_that_needs_no_data(registry: Registry, make: Maker) -> None:
    _, second = make.trained("base", DATA)
    make.trained("other", DATA)
    merged = make.version("merged", tags={"unlearn.base_model": f"other/1 , {second}"})
    assert origins(registry, merged) == [("other/1", "merged"), ("base/1", "merged")]
    assert read(registry, merged).problem is None


def test_a_relation_that_is_none_is_a_problem(registry: Registry, make: Maker) -> None:
    make.trained("base", DATA)
    made = make.version("v", make.run(DATA), tags={"unlearn.base_model": "models:/base/1", "unlearn.relation": "distilled"})
    assert origins(registry, made) == [("base/1", "fine-tuned")]
    assert "expected one of adapter, fine-tuned, merged, quantised" in (read(registry, made).problem or "")


def test_a_model_that_the_run_read_is_an_ancestor_and_one_that_it_made_is_not(registry: Registry, make: Maker) -> None:
    _, base = make.trained("base", DATA)
    run_id = make.run(DATA, read=(base,))
    own = make.logged(run_id)
    registry.client.log_inputs(run_id, models=[make_input(own)])
    assert origins(registry, make.version("tuned", run_id, f"models:/{own}")) == [("base/1", "fine-tuned")]


def make_input(model_id: str) -> object:
    from mlflow.entities import LoggedModelInput

    return LoggedModelInput(model_id=model_id)


def test_a_logged_model_between_two_versions_hands_on_its_data_and_its_origin(registry: Registry, make: Maker) -> None:
    _, base = make.trained("base", DATA)
    between = make.logged(make.run(dataset("calls", OTHER), read=(base,)))
    second = make.logged(make.run(dataset("mails", "c" * 32), read=(between,)))
    tuned, _ = make.trained("tuned", dataset("bills", "d" * 32), read=(second,))
    found = read(registry, tuned)
    assert found.datasets == {"bills": "d" * 32, "calls": OTHER, "mails": "c" * 32}
    assert origins(registry, tuned) == [("base/1", "fine-tuned")]
    assert found.problem is None


def test_a_logged_model_in_between_without_data_or_origin_is_a_problem(registry: Registry, make: Maker) -> None:
    tuned, _ = make.trained("tuned", DATA, read=(make.logged(make.run()),))
    assert read(registry, tuned).problem == "it was made from a logged model with which no DVC dataset was logged"


def test_a_dataset_that_a_registered_model_wrote_descends_from_it(registry: Registry, make: Maker) -> None:
    _, base = make.trained("base", DATA)
    sources = [json.dumps({"uri": "models:/base/1"}), json.dumps({"path": f"/somewhere/{base}/artifacts/out.csv"})]
    made = [make.trained("student", DATA, dataset("synthetic", "1", "code", source))[0] for source in sources]
    assert [origins(registry, each) for each in made] == [[("base/1", "fine-tuned")]] * 2
    assert {read(registry, each).problem for each in made} == {None}


def test_a_copy_descends_from_its_source_and_outlives_it(registry: Registry, make: Maker) -> None:
    source, _ = make.trained("base", DATA)
    registry.client.copy_model_version("models:/base/1", "production")
    copy = ModelVersion(name="production", version="1")
    assert origins(registry, copy) == [("base/1", "copied")]
    registry.client.delete_model_version("base", source.version)
    found = read(registry, copy)
    assert (found.datasets, found.ancestors, found.problem) == ({"customers": MD5}, (), None)


@pytest.mark.parametrize("key", ["base_model", "trainer/base_model_name_or_path", "_name_or_path", "peft.base_model_name_or_path", "init_checkpoint"])
def test_a_param_that_names_a_version_is_an_ancestor(registry: Registry, make: Maker, key: str) -> None:
    make.trained("base", DATA)
    tuned, _ = make.trained("tuned", DATA, params={key: "models:/base/1", "optimizer": "adamw"})
    assert origins(registry, tuned) == [("base/1", "fine-tuned")]


@pytest.mark.parametrize("value", ["org/public-7b", "gpt2", "", "None", "hf://org/model", "https://huggingface.co/org/model"])
def test_a_public_model_of_a_hub_is_neither_an_ancestor_nor_a_problem(registry: Registry, make: Maker, value: str) -> None:
    tuned, _ = make.trained("tuned", DATA, params={"base_model": value})
    assert (read(registry, tuned).ancestors, read(registry, tuned).problem) == ((), None)


@pytest.mark.parametrize(
    "value",
    [
        "/models/base",
        "./out/checkpoint",
        "outputs/checkpoint-500",
        "runs:/0123/model",
        "out/run/checkpoint-5",
        "file:///models/base",
        "s3://bucket/base",
        "C:\\base",
    ],
)
def test_a_base_at_an_address_that_nobody_registered_is_a_problem(registry: Registry, make: Maker, value: str) -> None:
    tuned, _ = make.trained("tuned", DATA, params={"base_model": value})
    assert read(registry, tuned).problem == UNREGISTERED


def test_a_resumed_checkpoint_is_a_path_even_if_it_looks_like_a_public_model(registry: Registry, make: Maker) -> None:
    resumed, _ = make.trained("tuned", DATA, params={"resume_from_checkpoint": "out/checkpoint-5"})
    fresh, _ = make.trained("tuned", DATA, params={"resume_from_checkpoint": "None"})
    assert (read(registry, resumed).problem, read(registry, fresh).problem) == (UNREGISTERED, None)


@pytest.mark.parametrize("base", ["models:/base/9", "models:/nobody/1", "m-" + "0" * 32, "runs:/" + "0" * 32 + "/model"])
def test_a_base_that_no_longer_exists_is_a_problem(registry: Registry, make: Maker, base: str) -> None:
    make.trained("base", DATA)
    tuned, _ = make.trained("tuned", DATA, params={"base_model": base})
    assert "no longer exists" in (read(registry, tuned).problem or "")


@pytest.mark.parametrize("base", ["models:/base@champion", "models:/base/latest", "models:/base/Production"])
def test_an_alias_names_todays_holder_and_says_that_it_may_have_moved(registry: Registry, make: Maker, base: str) -> None:
    make.trained("base", DATA)
    registry.client.set_registered_model_alias("base", "champion", "1")
    tuned, _ = make.trained("tuned", DATA, params={"base_model": base})
    assert origins(registry, tuned) == ([("base/1", "fine-tuned")] if "@" in base else [])
    assert "which version that was at the time nobody knows" in (read(registry, tuned).problem or "")


def test_a_statement_answers_hints_that_lead_nowhere_and_hides_none_that_lead_somewhere(registry: Registry, make: Maker) -> None:
    make.trained("base", DATA)
    make.trained("base", DATA)
    params = {"base_model": "/models/base", "source_model": "models:/base/2"}
    stated = make.version("tuned", make.run(DATA, params=params), tags={"unlearn.base_model": "models:/base/1"})
    from_nothing = make.version("tuned", make.run(DATA, params={"base_model": "/models/base"}), tags={"unlearn.base_model": "none"})
    assert origins(registry, stated) == [("base/1", "fine-tuned"), ("base/2", "fine-tuned")]
    assert [read(registry, each).problem for each in (stated, from_nothing)] == [None, None]


def test_a_path_inside_the_files_of_a_version_names_it(registry: Registry, make: Maker, tmp_path: Path) -> None:
    run_id = make.run(DATA)
    make.version("by path", run_id, (tmp_path / "kept/base").as_uri())
    _, logged = make.trained("logged", DATA)
    paths = [f"{tmp_path}/kept/base/model", f"/elsewhere/{logged}/artifacts/model", f"/mlruns/1/{run_id}/artifacts/model"]
    made = [make.trained("tuned", DATA, params={"base_model": path})[0] for path in paths]
    assert [origins(registry, each)[0][0] for each in made] == ["by path/1", "logged/1", "by path/1"]


def test_the_unlearned_parent_comes_first_and_once(registry: Registry, make: Maker) -> None:
    _, base = make.trained("base", DATA)
    make.trained("other", DATA)
    tags = {"unlearn.parent": "base/1", "unlearn.base_model": "models:/other/1", "unlearn.dvc.customers": MD5}
    made = make.version("base", make.run(read=(base,), tags={BASE_TAG: "0" * 64}), tags=tags)
    assert origins(registry, made) == [("base/1", "unlearned"), ("other/1", "fine-tuned")]
    assert read(registry, made).problem is None


def test_a_run_that_could_not_read_its_lineage_says_why(registry: Registry, make: Maker) -> None:
    said = {"unlearn.lineage.problem": "git is missing"}
    without, _ = make.trained("v", tags=said)
    told, _ = make.trained("v", DATA, tags=said)
    assert read(registry, without).problem == f"{UNREADABLE}; its training could not read its lineage: git is missing"
    assert read(registry, told).problem is None


def test_versions_that_are_made_from_each_other_end_the_walk(registry: Registry, make: Maker) -> None:
    runs = [make.run(DATA) for _ in range(2)]
    models = [make.logged(run) for run in runs]
    for run, other in zip(runs, reversed(models), strict=True):
        registry.client.log_inputs(run, models=[make_input(other)])
    lone, _ = make.trained("v", DATA, read=(models[0],))
    assert (origins(registry, lone), read(registry, lone).problem) == ([], None)
    made = [make.version("loop", run, f"models:/{model}") for run, model in zip(runs, models, strict=True)]
    assert [origins(registry, each)[0][0] for each in made] == ["loop/2", "loop/1"]


def test_the_run_of_a_version_is_told(registry: Registry, make: Maker) -> None:
    made, _ = make.trained("v", DATA)
    assert read(registry, made).run_id == registry.client.get_model_version("v", "1").run_id


def files(make: Maker, mlmodel: str, adapter: str | None = None) -> tuple[ModelVersion, Path]:
    """A version whose logged model has these files."""
    run_id = make.run(DATA)
    model_id = make.logged(run_id)
    folder = Path(make.client.get_logged_model(model_id).artifact_location.removeprefix("file://"))
    (folder / "peft").mkdir(parents=True)
    (folder / "MLmodel").write_text(mlmodel)
    if adapter is not None:
        (folder / "peft/adapter_config.json").write_text(adapter)
    return make.version("logged", run_id, f"models:/{model_id}"), folder


@pytest.mark.parametrize(
    ("mlmodel", "relation"),
    [
        ("flavors: {transformers: {peft_adaptor: peft, source_model_name: 'models:/base/1'}}", "adapter"),
        ("flavors: {transformers: {peft_adaptor: peft, local_base_model_path: 'models:/base/1'}}", "adapter"),
        ("flavors: {transformers: {model_binary: model, source_model_name: 'models:/base/1'}}", "fine-tuned"),
        ("flavors: {python_function: {artifacts: {base: {path: a, uri: 'models:/base/1'}}}}", "fine-tuned"),
        ("flavors: {}\nmetadata: {base_model: 'models:/base/1'}", "fine-tuned"),
    ],
)
def test_the_models_own_files_name_its_base(registry: Registry, make: Maker, mlmodel: str, relation: str) -> None:
    make.trained("base", DATA)
    assert origins(registry, files(make, mlmodel)[0]) == [("base/1", relation)]


def test_an_adapter_of_an_unregistered_local_base_is_a_problem(registry: Registry, make: Maker) -> None:
    flavor = "flavors: {transformers: {peft_adaptor: peft, source_model_name: org/public}}"
    made, _ = files(make, flavor, '{"base_model_name_or_path": "/models/base"}')
    public, _ = files(make, flavor, '{"base_model_name_or_path": "org/public"}')
    assert [read(registry, each).problem for each in (made, public)] == [UNREGISTERED, None]


def test_the_folder_that_training_left_its_weights_in_is_no_base(registry: Registry, make: Maker) -> None:
    made, _ = files(make, "flavors: {transformers: {model_binary: model, source_model_name: /elsewhere/build/model}}")
    assert (read(registry, made).ancestors, read(registry, made).problem) == ((), None)


@pytest.mark.parametrize("mlmodel", ["{", "[]", "flavors: 'x", "\x00"])
def test_files_that_cannot_be_parsed_are_a_problem(registry: Registry, make: Maker, mlmodel: str) -> None:
    assert read(registry, files(make, mlmodel)[0]).problem == UNREADABLE_FILES


@pytest.mark.parametrize("mlmodel", ["flavors: []", "flavors: {transformers: 1}", "metadata: x", "flavors: {python_function: {artifacts: [1]}}"])
def test_files_of_an_unforeseen_shape_are_a_problem(registry: Registry, make: Maker, mlmodel: str) -> None:
    assert read(registry, files(make, mlmodel)[0]).problem == UNREADABLE_FILES


class Counted(dict[str, tuple[ModelVersion, ...]]):
    """Counts how often it is asked."""

    asked = 0

    def get(self, key: str, default: object = None) -> object:  # type: ignore[override]
        self.asked += 1
        return super().get(key, default)  # type: ignore[call-overload]


DOUBLED = "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, 15))


@pytest.mark.parametrize("mlmodel", ["a: !!bool x", "a: !!timestamp x", "a: {<<: {b: c}}", DOUBLED])
def test_what_breaks_the_parser_or_swells_in_it_is_a_problem_that_is_kept(registry: Registry, make: Maker, tmp_path: Path, mlmodel: str) -> None:
    made, folder = files(make, mlmodel)
    assert read(registry, made).problem == UNREADABLE_FILES
    ((stamp, (problem, _)),) = json.loads((tmp_path / ".unlearn/registry/model-files.json").read_bytes()).values()
    assert (stamp[2], problem) == ((folder / "MLmodel").stat().st_size, UNREADABLE_FILES)


@pytest.mark.parametrize("number", ["!!int x", "!!float x", "1:" * 50_000 + "1"])
def test_no_number_is_worked_out_since_one_in_base_sixty_takes_minutes(registry: Registry, make: Maker, number: str) -> None:
    make.trained("base", DATA)
    made, _ = files(make, f"metadata: {{base_model: 'models:/base/1', n: {number}}}")
    assert origins(registry, made) == [("base/1", "fine-tuned")]


@pytest.mark.parametrize("mlmodel", ["a: " + "b" * 2**20, f"a: [{'1,' * 20_000}]"])
def test_files_that_are_larger_than_any_of_mlflows_are_a_problem_that_says_so(registry: Registry, make: Maker, mlmodel: str) -> None:
    assert read(registry, files(make, mlmodel)[0]).problem == TOO_LARGE


def test_many_small_files_are_no_way_round_the_size_of_one(registry: Registry, make: Maker) -> None:
    made, folder = files(make, "flavors: {}")
    for name in "abc":
        (folder / name).mkdir()
        (folder / name / "adapter_config.json").write_text("{}" + " " * 400_000)
    assert read(registry, made).problem == TOO_LARGE


def test_text_in_no_encoding_is_read_once_and_a_pipe_is_never_waited_for(registry: Registry, make: Maker, tmp_path: Path) -> None:
    broken, folder = files(make, "flavors: {}")
    (folder / "MLmodel").write_bytes(b"a: \xff")
    waiting, other = files(make, "flavors: {}")
    os.mkfifo(other / "peft/adapter_config.json")
    assert [read(registry, each).problem for each in (broken, waiting)] == [UNREADABLE_FILES] * 2
    assert list(json.loads((tmp_path / ".unlearn/registry/model-files.json").read_bytes())) == [folder.as_uri()]


def test_a_signature_of_ten_thousand_columns_is_no_large_file(registry: Registry, make: Maker) -> None:
    make.trained("base", DATA)
    columns = json.dumps([{"type": "double", "name": f"column_number_{n}", "required": True} for n in range(10_000)])
    made, _ = files(make, f"metadata: {{base_model: 'models:/base/1'}}\nsignature: {{inputs: '{columns}'}}")
    assert origins(registry, made) == [("base/1", "fine-tuned")]


def test_more_origins_than_anybody_follows_are_a_problem_whoever_wrote_them(registry: Registry, make: Maker) -> None:
    make.trained("base", DATA)
    params = {f"p{n}.base_model": f"org/public-{n}" for n in range(101)}
    by_params = make.version("v", make.run(DATA, params=params))
    by_a_tag = make.version(
        "v", make.run(DATA), tags={"unlearn.base_model": ",".join(["models:/base/1", *(f"models:/gone/{n}" for n in range(100))])}
    )
    assert [TOO_MANY in (read(registry, each).problem or "") for each in (by_params, by_a_tag)] == [True, True]
    assert origins(registry, by_a_tag) == [("base/1", "merged")]


def test_one_origin_that_is_named_over_and_over_is_one(registry: Registry, make: Maker) -> None:
    make.trained("base", DATA)
    made = make.version("v", make.run(DATA, params={f"p{n}.base_model": "models:/base/1" for n in range(150)}))
    assert (origins(registry, made), read(registry, made).problem) == ([("base/1", "fine-tuned")], None)


def test_a_path_is_looked_up_by_its_first_parts_however_many_it_has() -> None:
    row = VersionRow(name="base", version="1", run_id=None, source="/models/base", tags={})
    deep = VersionRow(name="deep", version="1", run_id=None, source="/" + "d/" * 100, tags={})
    versions = registered([row, deep], {})
    looked_up = Counted(versions.paths)
    versions = replace(versions, paths=looked_up)
    assert versions.target("/models/base" + "/a" * 2000).versions == (ModelVersion(name="base", version="1"),)
    assert looked_up.asked <= 64
    assert versions.target(deep.source).problem == UNREGISTERED


def test_files_are_read_once_and_again_when_they_change(registry: Registry, make: Maker, tmp_path: Path) -> None:
    make.trained("base", DATA)
    made, folder = files(make, "flavors: {}")
    assert origins(registry, made) == []
    kept = tmp_path / ".unlearn/registry/model-files.json"
    before = kept.stat().st_mtime_ns
    assert (origins(registry, made), kept.stat().st_mtime_ns) == ([], before)
    (folder / "MLmodel").write_text("metadata: {base_model: 'models:/base/1'}")
    assert origins(registry, made) == [("base/1", "fine-tuned")]


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"x": 1}', "\x00"])
def test_a_broken_file_of_kept_answers_is_begun_anew(registry: Registry, make: Maker, tmp_path: Path, content: str) -> None:
    make.trained("base", DATA)
    made, _ = files(make, "metadata: {base_model: 'models:/base/1'}")
    (tmp_path / ".unlearn/registry").mkdir(parents=True)
    (tmp_path / ".unlearn/registry/model-files.json").write_text(content)
    assert origins(registry, made) == [("base/1", "fine-tuned")]


def test_a_folder_that_cannot_be_written_only_costs_time(registry: Registry, make: Maker, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make.trained("base", DATA)
    made, _ = files(make, "metadata: {base_model: 'models:/base/1'}")
    (tmp_path / ".unlearn").write_text("a file where the folder should be")
    assert origins(registry, made) == [("base/1", "fine-tuned")]
    assert "the next look asks again" in caplog.text


def test_a_hole_behind_a_stated_origin_stays_a_hole(registry: Registry, make: Maker) -> None:
    between = make.logged(make.run(DATA, read=("m-" + "0" * 32,)))
    made = make.version("v", make.run(DATA), tags={"unlearn.base_model": between})
    assert "no longer exists" in (read(registry, made).problem or "")


def test_an_origin_that_learned_from_the_same_data_is_no_hole(registry: Registry, make: Maker) -> None:
    made, _ = make.trained("v", DATA, read=(make.logged(make.run(DATA)),))
    assert (read(registry, made).datasets, read(registry, made).problem) == ({"customers": MD5}, None)


def test_names_with_quotes_are_names(registry: Registry, make: Maker) -> None:
    made, _ = make.trained("it's; drop table runs--", dataset("o'data", MD5))
    assert registry.lineages(made.name)[0].datasets == {"o'data": MD5}


def test_files_in_a_store_that_does_not_answer_are_a_problem_until_a_tag_says_what_they_would(registry: Registry, make: Maker) -> None:
    make.trained("base", DATA)
    run_id = make.run(DATA)
    unread = make.version("far", run_id, "nonsense://bucket/model")
    stated = make.version("far", run_id, "nonsense://bucket/model2", tags={"unlearn.base_model": "models:/base/1"})
    assert [read(registry, each).problem for each in (unread, stated)] == [UNREADABLE_FILES, None]


def test_runs_on_a_dataset_are_found_registered_or_not(registry: Registry, make: Maker) -> None:
    run_id = make.run(DATA, dataset("web", OTHER, "http"))
    models = tuple(sorted(make.logged(run_id) for _ in range(2)))
    make.run(dataset("calls", OTHER))
    registry.client.delete_run(run_id)
    (found,) = registry.runs_on([MD5])
    assert (found.run_id, found.experiment, found.datasets, found.logged_models) == (run_id, "customers", {"customers": MD5}, models)
    assert len(registry.runs_on({MD5, OTHER})) == 2
    assert (registry.runs_on([]), registry.runs_on(["e" * 32])) == ((), ())


def test_an_empty_registry_has_no_lineages(registry: Registry) -> None:
    assert registry.lineages() == registry.lineages("nobody") == ()


def test_the_lineages_of_one_model_resolve_references_to_others(registry: Registry, make: Maker) -> None:
    _, base = make.trained("base", DATA)
    make.trained("tuned", DATA, read=(base,))
    (found,) = registry.lineages("tuned")
    assert [str(each.parent) for each in found.ancestors] == ["base/1"]


def test_a_hundred_thousand_digests_are_one_question(registry: Registry, make: Maker) -> None:
    make.run(DATA)
    assert len(registry.runs_on([MD5, *(f"{number:032x}" for number in range(100_000))])) == 1


def test_reading_writes_nothing_to_the_store(registry: Registry, make: Maker, tmp_path: Path) -> None:
    make.trained("base", DATA)
    before = (tmp_path / "mlflow.db").read_bytes()
    registry.lineages()
    registry.runs_on([MD5])
    assert (tmp_path / "mlflow.db").read_bytes() == before


def weights(folder: Path, value: float) -> str:
    """Safetensors as MLflow's transformers flavor lays them out, beside a version; their digest."""
    (folder / "model").mkdir(parents=True)
    save_file({"w": np.full(4, value, dtype=np.float32)}, folder / "model/model.safetensors")
    return tensor_digest((folder / "model").glob("*.safetensors"))


def test_weights_are_compared_and_not_what_a_tag_claims_of_them(registry: Registry, make: Maker, tmp_path: Path) -> None:
    wanted, _ = weights(tmp_path / "right", 1), weights(tmp_path / "wrong", 2)
    make.version("liar", make.run(DATA), (tmp_path / "wrong").as_uri(), {"unlearn.tensor_digest": wanted})
    lone, _ = make.trained("tuned", DATA, tags={BASE_TAG: wanted})
    assert (origins(registry, lone), read(registry, lone).problem) == ([], UNKNOWN_BASE)
    make.version("base", make.run(DATA), (tmp_path / "right").as_uri())
    assert (origins(registry, lone), read(registry, lone).problem) == ([("base/1", "fine-tuned")], None)


def test_no_state_hides_another_whatever_name_and_digest_a_client_chose(registry: Registry, make: Maker) -> None:
    made, _ = make.trained("v", DATA, dataset("customers", OTHER), dataset("customers", MD5[:8]), dataset(f"customers/{OTHER[:8]}", "c" * 32))
    assert set(read(registry, made).datasets.values()) == {MD5, OTHER, MD5[:8], "c" * 32}


def test_what_claims_some_weights_is_hashed_once_and_hides_nothing_where_it_cannot_be_read(
    registry: Registry, make: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, hashed = weights(tmp_path / "base", 1), list[str]()
    monkeypatch.setattr(Registry, "tensor_digest", lambda self, model: hashed.append(str(model)) or DIGEST_OF(self, model))
    for source in ("s3://a!b/k", "gs://nope/x", (tmp_path / "base").as_uri()):
        make.version("base", make.run(DATA), source)
    lone, _ = make.trained("tuned", DATA, tags={BASE_TAG: wanted})
    other, _ = make.trained("tuned", DATA, tags={BASE_TAG: "0" * 64})
    assert origins(registry, lone) == [("base/3", "fine-tuned")]
    assert read(registry, other).problem == UNKNOWN_BASE
    assert sorted(hashed) == ["base/1", "base/2", "base/3", "tuned/1"]


def test_inside_a_server_nothing_is_asked_for_at_an_address_that_a_client_named(registry: Registry, make: Maker, tmp_path: Path) -> None:
    inside = replace(registry, known=lambda _digest: (), repositories=Storage("", str(tmp_path)).repository)
    with socket.create_server(("127.0.0.1", 0)) as door:
        door.setblocking(False)
        made = make.version("v", make.run(DATA), f"http://127.0.0.1:{door.getsockname()[1]}/model")
        assert read(inside, made).problem == UNREADABLE_FILES
        with pytest.raises(BlockingIOError):
            door.accept()


def test_what_goes_wrong_with_one_thing_ends_there_and_what_goes_wrong_with_the_store_does_not(caplog: pytest.LogCaptureFixture) -> None:
    with apart("m/1: its lineage", (StoreError,)) as tried:
        raise RecursionError
    assert (type(tried.error), "m/1: its lineage: RecursionError" in caplog.text) == (RecursionError, True)
    with pytest.raises(StoreError), apart("m/1", (StoreError,)):
        raise StoreError("MLflow does not answer")
    with pytest.raises(KeyboardInterrupt), apart("m/1"):
        raise KeyboardInterrupt


def test_the_id_of_a_run_that_is_none_is_no_part_of_a_question(registry: Registry, make: Maker) -> None:
    run_id = make.run(DATA)
    assert list(PageRows(registry.client, KeptAnswers(None)).runs(["o'hara", "x') OR ('1'='1", run_id])) == [run_id]


def test_a_store_that_another_process_has_locked_is_one_line(mlflow_store: str, tmp_path: Path) -> None:
    registry = registry_at(tmp_path, f"{mlflow_store}?timeout=0.1")
    with sqlite3.connect(tmp_path / "mlflow.db", isolation_level=None) as writer:
        writer.execute("begin exclusive")
        with pytest.raises(StoreError, match=r"^MLflow at [^\n]+ does not answer: [^\n]+$"):
            registry.lineages()
        writer.execute("rollback")
    assert registry.lineages() == ()


def test_a_store_without_a_table_is_one_line(registry: Registry, make: Maker, tmp_path: Path) -> None:
    make.trained("base", DATA)
    with sqlite3.connect(tmp_path / "mlflow.db") as store:
        store.execute("drop table registered_model_aliases")
    with pytest.raises(StoreError, match=r"^MLflow at [^\n]+ does not answer: [^\n]+$"):
        registry.lineages()


def test_two_at_once_read_the_same(registry: Registry, make: Maker, tmp_path: Path) -> None:
    make.trained("base", DATA)
    for _ in range(5):
        files(make, "metadata: {base_model: 'models:/base/1'}")
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: registry.lineages(), range(8)))
    assert found == [registry.lineages()] * 8
    assert len(json.loads((tmp_path / ".unlearn/registry/model-files.json").read_bytes())) == 5
