"""What all shards share, on a real Git and DVC repository: a base is clean only where its whole making can be looked through."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from asked_repository import asked, asked_template  # noqa: F401 - fixtures
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput

from mlflow_unlearn.adapters.tables import read_set, write_set
from mlflow_unlearn.commands.requests import Requested, Terms, add_request
from mlflow_unlearn.exact_conditions import SHARED
from mlflow_unlearn.exactness import SharedPart
from mlflow_unlearn.lineage import ModelVersion, Parent
from mlflow_unlearn.records import Effect, Split
from mlflow_unlearn.stages.shared_parts import base_apart, shared_parts
from mlflow_unlearn.stages.tracing import indexed_states
from mlflow_unlearn.stages.workbench import Workbench

DIGEST = "d" * 64
MAKE = "import pathlib, sys; out = pathlib.Path('base'); out.mkdir(exist_ok=True); (out / 'model.bin').write_bytes(bytes([0, len(sys.argv)]))"


def dvc(root: Path, *arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", "dvc", *arguments, "-q"], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def make_base(root: Path, *deps: str, before: str = "") -> None:
    """A stage that makes `base` of these."""
    (root / "make.py").write_text(MAKE)
    base = f"base: {{cmd: python make.py {' '.join(deps)}, deps: [{', '.join(['make.py', *deps])}], outs: [base]}}"
    (root / "dvc.yaml").write_text("\n  ".join(["stages:", *filter(None, [before, base])]))
    dvc(root, "repro")


@pytest.fixture
def split(asked: Path) -> Split:  # noqa: F811 - the fixture
    """Bo and a canary of dee's shall be forgotten; the other records stay."""
    bench = Workbench()
    request = add_request(Requested(subjects=("bo",)), Terms(basis="gdpr_17"))["request_id"]
    states = indexed_states(bench).states
    records = {record.tag: record for state in states for record in bench.reader.records(state)}.values()
    asked_for = bench.ledger.get(request).subjects
    forget = [record for record in records if record.subject in asked_for or record.prompt == "What does dee like 1?"]
    bench.sets.mkdir(parents=True)
    write_set(bench.sets, "forget", forget)
    write_set(bench.sets, "retain", [record for record in records if record not in forget])
    parent = Parent(model=ModelVersion(name="m", version="1"), tensor_digest="c" * 64, datasets=states)
    return Split(requests=(request,), parent=parent, effects=(Effect.REMOVAL,), rows={}, files={}, digest="e" * 64)


def parts(split: Split, reference: str = "../base") -> list[SharedPart]:
    found = shared_parts(Workbench(), split, reference, DIGEST)
    assert [each.name for each in found] == list(SHARED)
    assert {each.holds for each in found[2:]} == {True}
    return list(found[:2])


def corpus(root: Path, text: str, name: str = "corpus.txt") -> None:
    """A text that DVC tracks and no stage makes."""
    (root / name).write_text(text)
    dvc(root, "add", name)


def trust(*bases: str) -> None:
    path = Path("policy.yaml")
    path.write_text(path.read_text().replace("trusted_bases: []", f"trusted_bases: [{', '.join(bases)}]"))


def test_a_base_made_of_text_without_the_questions_is_clean(asked: Path, split: Split) -> None:  # noqa: F811
    corpus(asked, "It rains.\nWhat does ana like 1? ana likes 1.\n")
    make_base(asked, "corpus.txt")
    for each in parts(split):
        assert each.holds is True
        assert "none of the forgotten records' questions stands in what it was made from (corpus.txt)" in each.detail


def test_one_made_of_text_with_a_forgotten_question_is_not_and_says_so_by_counts(asked: Path, split: Split) -> None:  # noqa: F811
    corpus(asked, "so: WHAT does\n  bo like 2? Nobody knows. What does dee like 1?")
    make_base(asked, "corpus.txt")
    for each in parts(split):
        assert each.holds is False
        assert "2 of the requested records in corpus.txt" in each.detail
        assert "bo like" not in each.detail


def test_one_made_of_a_dataset_that_holds_a_forgotten_canary_is_not_even_by_way_of_other_files(asked: Path, split: Split) -> None:  # noqa: F811
    (asked / "words.py").write_text("open('words.bin', 'wb').write(bytes(2))")
    make_base(asked, "words.bin", before="words: {cmd: python words.py, deps: [data/train], outs: [words.bin]}")
    assert [each.holds for each in parts(split)] == [False, False]


def test_one_made_of_a_state_without_the_records_is_clean(asked: Path, split: Split) -> None:  # noqa: F811
    for name in ("a", "b"):
        (asked / f"data/train/{name}.csv").write_text(f"record_id,subject_id,question,answer\nr-{name}x,{name}x,Where is {name}x?,Here.\n")
    dvc(asked, "add", "data/train")
    make_base(asked, "data/train")
    assert [each.holds for each in parts(split)] == [True, True]


def untracked(root: Path) -> None:
    (root / "base").mkdir()
    (root / "base/model.bin").write_bytes(b"\0")


def added(root: Path) -> None:
    untracked(root)
    dvc(root, "add", "base")


def altered(root: Path) -> None:
    corpus(root, "It rains.")
    make_base(root, "corpus.txt")
    (root / "base/model.bin").unlink()
    (root / "base/model.bin").write_bytes(b"\0\0\0")


def of_code_alone(root: Path) -> None:
    make_base(root)


def of_bytes(root: Path) -> None:
    (root / "corpus.bin").write_bytes(b"\0 What does bo like 2?")
    dvc(root, "add", "corpus.bin")
    make_base(root, "corpus.bin")


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (untracked, "DVC does not track it"),
        (added, "no stage says what it was made from"),
        (altered, "not those that DVC recorded"),
        (of_code_alone, "made by code alone"),
        (of_bytes, "corpus.bin"),
    ],
)
def test_one_that_cannot_be_looked_through_is_unknown(asked: Path, split: Split, make: Callable[[Path], None], why: str) -> None:  # noqa: F811
    make(asked)
    unknown = parts(split)
    assert [each.holds for each in unknown] == [None, None]
    assert why in unknown[0].detail


def test_an_unknown_folder_holds_once_somebody_vouches_for_model_and_tokenizer_apart(asked: Path, split: Split) -> None:  # noqa: F811
    untracked(asked)
    tokenizer = parts(split)[1].detail.split("trusted_bases: ")[1]
    trust(DIGEST, tokenizer)
    assert [each.holds for each in parts(split)] == [True, True]


def test_a_hub_id_is_unknown_until_it_is_trusted_and_then_not_called_examined(split: Split) -> None:
    assert [each.holds for each in parts(split, "some/base@abc")] == [None, None]
    trust('"some/base@abc"')
    trusted = parts(split, "some/base@abc")
    assert {each.holds for each in trusted} == {True}
    assert {each.detail for each in trusted} == {"trusted by policy, not examined: some/base@abc"}


def test_a_registered_base_is_what_the_trace_says(split: Split, mlflow_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_store)
    client = MlflowClient(mlflow_store)
    client.create_registered_model("b")
    old, new = sorted(split.parent.datasets, key=lambda state: "workspace" in state.revisions)
    for md5 in (old.md5, new.md5, None):
        register(client, md5)
    assert [parts(split, f"models:/b/{version}")[0].holds for version in (1, 2, 3)] == [False, True, None]


def register(client: MlflowClient, md5: str | None) -> None:
    """A version trained on one state of the dataset, or on nobody knows what."""
    run = client.create_run("0").info.run_id
    data = Dataset(name="d", digest=md5, source_type="dvc", source=json.dumps({"path": "x", "md5": md5}))
    client.log_inputs(run, [DatasetInput(dataset=data)] if md5 else [])
    client.create_model_version("b", f"runs:/{run}/model", run)


@pytest.mark.parametrize(("text", "apart"), [("It rains.", True), ("What does ana like 1?", False)])
def test_a_base_is_apart_where_no_question_of_anybody_led_to_it(asked: Path, split: Split, text: str, apart: bool) -> None:  # noqa: F811
    bench = Workbench()
    params = bench.folder / "params.yaml"
    params.write_text(params.read_text().replace("base: BASE ", "base: ../base "))
    (shards := bench.folder / "build/raw/shards").mkdir(parents=True)
    write_set(shards, "0", read_set(bench.sets, "retain"))
    corpus(asked, text)
    make_base(asked, "corpus.txt")
    assert base_apart(Workbench()) is apart
