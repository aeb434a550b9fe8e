"""Questions to a served ensemble: who answers, what is refused, and that the answer is the ensemble's own."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mlflow
import pandas
import pytest
from ensemble_files import PROMPTS, TEMPLATE, Cut, cut_shards, small_base
from mlflow.exceptions import MlflowException

from mlflow_unlearn.adapters import bases, ensembles
from mlflow_unlearn.adapters.logged_models import LOADER, signature
from mlflow_unlearn.adapters.serving import ServedEnsemble, _load_pyfunc
from mlflow_unlearn.engine.examples import encode

pytestmark = pytest.mark.e2e  # MLflow, and a process of its own
TAGS = [f"{shard:016x}{'5' * 16}" for shard in range(4)]
"""Of one person in each shard of four."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def cut(home: Path) -> Cut:
    return cut_shards(small_base(home / "base"), home / "shards", empty=(2,))


@pytest.fixture(scope="module")
def served(cut: Cut, home: Path) -> ServedEnsemble:
    return _load_pyfunc(str(cut.assembled(home / "model")), {"device": "cpu"})


def asked(served: ServedEnsemble, known: list[int | None], **params: Any) -> list[str]:
    """The ensemble's own answers."""
    tokens = [each.tokens[: each.prompt_length] for each in encode(served.tokenizer, TEMPLATE, PROMPTS, [""] * 4)]
    limits = {"end": served.tokenizer.eos_token_id, "max_new_tokens": 8, "batch_tokens": 4096} | params
    return [served.tokenizer.decode(each, skip_special_tokens=True).strip() for each in served.ensemble.generate(tokens, known, **limits)]


def test_a_person_is_answered_by_their_shard_and_by_the_others_where_it_is_empty(served: ServedEnsemble) -> None:
    rows = pandas.DataFrame({"prompt": PROMPTS, "subject_tag": TAGS})
    answers = served.predict(rows, {"max_new_tokens": 8})
    assert answers["answer"].tolist() == asked(served, [0, 1, None, 3])
    assert [*answers["shard"][[0, 1, 3]]] == [0, 1, 3]
    assert answers["shard"][2] in (0, 1, 3)


def test_who_is_nobody_known_is_answered_by_the_rule_asked_for(served: ServedEnsemble) -> None:
    rows = [{"prompt": prompt} for prompt in PROMPTS]
    for rule in ("average", "vote"):
        answers = served.predict(rows, {"aggregation": rule, "max_new_tokens": 4})
        assert answers["shard"].tolist() == [None] * 4
    assert set(served.predict(rows)["shard"]) <= {0, 1, 3}


def test_no_question_has_no_answer(served: ServedEnsemble) -> None:
    assert served.predict(pandas.DataFrame({"prompt": []})).to_dict("list") == {"answer": [], "shard": []}


@pytest.mark.parametrize("adapters", [False, True])
def test_questions_from_many_threads_are_answered_as_one_after_another(tmp_path: Path, adapters: bool) -> None:
    cut = cut_shards(small_base(tmp_path / "base"), tmp_path / "shards", adapters=adapters)
    served = _load_pyfunc(str(cut.assembled(tmp_path / "model")), {"device": "cpu"})
    batches = [[{"prompt": prompt, "subject_tag": TAGS[(row + turn) % 4]} for row, prompt in enumerate(PROMPTS)] for turn in range(4)] * 3
    expected = [served.predict(batch, {"max_new_tokens": 12}).to_dict() for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(lambda batch: served.predict(batch, {"max_new_tokens": 12}).to_dict(), batches)
    assert list(found) == expected


SECRET = "Ada Lovelace"
BAD = [
    ([{"question": SECRET}], "expected the columns prompt"),
    ([{"subject_tag": TAGS[0]}], "expected a column prompt"),
    ([{"prompt": 3}], "prompt: expected text in every row, found none in row 0"),
    ([{"prompt": "x"}, {"prompt": " "}], "in row 1"),
    ([{"prompt": "x", "subject_tag": SECRET}], "subject_tag: expected 32 hex characters"),
    ([{"prompt": f"{SECRET} " * 60}], "the longest has .* tokens, the model takes 64"),
]


@pytest.mark.parametrize(("rows", "words"), BAD)
def test_what_cannot_be_answered_is_refused_without_quoting_it(served: ServedEnsemble, rows: list[dict[str, Any]], words: str) -> None:
    with pytest.raises(MlflowException, match=words) as caught:
        served.predict(rows)
    assert SECRET not in str(caught.value)
    assert caught.value.get_http_status_code() == 400


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"max_new_tokens": 0}, "whole number from 1 to 1024"),
        ({"max_new_tokens": True}, "whole number"),
        ({"aggregation": "loudest"}, "one of confident, average, vote"),
        ({"temperature": 1}, "found also temperature"),
    ],
)
def test_params_that_mean_nothing_are_refused(served: ServedEnsemble, params: dict[str, Any], words: str) -> None:
    with pytest.raises(MlflowException, match=words):
        served.predict([{"prompt": "x"}], params)


def test_mlflow_loads_it_by_name_and_checks_columns_first(cut: Cut, home: Path, tmp_path: Path) -> None:
    folder = cut.assembled(tmp_path / "model")
    with pytest.warns(UserWarning, match="input example"):
        mlflow.pyfunc.save_model(
            str(tmp_path / "saved"), loader_module=LOADER, data_path=str(folder), signature=signature(cut.manifest), pip_requirements=["torch"]
        )
    loaded = mlflow.pyfunc.load_model(str(tmp_path / "saved"))
    rows = pandas.DataFrame({"prompt": PROMPTS, "subject_tag": [TAGS[1], None, TAGS[3], TAGS[0]]})
    answers = loaded.predict(rows, params={"max_new_tokens": 5})
    assert [shard for place, shard in enumerate(answers["shard"]) if place != 1] == [1, 3, 0]
    with pytest.raises(MlflowException, match="missing inputs"):
        loaded.predict(pandas.DataFrame({"text": ["x"]}))


def test_files_that_were_changed_are_not_served(cut: Cut, tmp_path: Path) -> None:
    folder = cut.assembled(tmp_path / "model")
    (folder / "shard-001.safetensors").unlink()
    with pytest.raises(MlflowException, match=r"ensemble\.json and the files disagree about shard-001\.safetensors"):
        _load_pyfunc(str(folder))


def test_loading_needs_no_key_ledger_git_or_dvc(cut: Cut, tmp_path: Path) -> None:
    """In a folder of its own with nothing of the project around it."""
    folder = cut.assembled(tmp_path / "model")
    code = (
        "import sys; from mlflow_unlearn.adapters.serving import _load_pyfunc\n"
        f"served = _load_pyfunc({str(folder)!r}); served.predict([{{'prompt': 'who?'}}])\n"
        "print([name for name in ('dvc', 'git', 'sqlalchemy', 'duckdb') if name in sys.modules])"
    )
    (tmp_path / "empty").mkdir()
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "empty", capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr


def test_a_classifier_answers_with_the_name_of_the_class(tmp_path: Path) -> None:
    cut = cut_shards(small_base(tmp_path / "base", classes=("calm", "angry")), tmp_path / "shards")
    served = _load_pyfunc(str(cut.assembled(tmp_path / "model")), {"device": "cpu"})
    answers = served.predict([{"prompt": prompt, "subject_tag": tag} for prompt, tag in zip(PROMPTS, TAGS, strict=True)])
    assert answers["shard"].tolist() == [0, 1, 2, 3]
    assert Counter(answers["answer"]).keys() <= {"calm", "angry"}
    for shard, prompt in enumerate(PROMPTS):
        model, tokenizer = served.ensemble.experts.expert(shard), served.tokenizer
        logits = model(**tokenizer(TEMPLATE.replace("{prompt}", prompt), return_tensors="pt")).logits
        assert answers["answer"][shard] == model.config.id2label[int(logits.argmax())]


def test_the_same_ensemble_answers_the_same_after_another_load(served: ServedEnsemble, cut: Cut, tmp_path: Path) -> None:
    ensemble, tokenizer, manifest = ensembles.load(cut.assembled(tmp_path / "model"), "cpu", bases.fetch(str(cut.base)))
    again = ServedEnsemble(ensemble=ensemble, tokenizer=tokenizer, manifest=manifest)
    rows = [{"prompt": prompt} for prompt in PROMPTS]
    assert again.predict(rows).to_dict() == served.predict(rows).to_dict()
