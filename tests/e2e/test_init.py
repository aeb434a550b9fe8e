"""`mlflow-unlearn init` in somebody else's repository, which has its own dvc.yaml with `train` and `evaluate`."""

from __future__ import annotations

import json

import pytest
from ruamel.yaml import YAML
from small_project import Project, new_repository

pytestmark = pytest.mark.e2e
TRAIN = """
import json, mlflow
from mlflow_unlearn.adapters import models
from mlflow_unlearn.engine.descent import fit
from mlflow_unlearn.engine.examples import encode
from mlflow_unlearn.config import settings
from mlflow_unlearn.params import OptimiserParams

rows = [json.loads(line) for line in open("data/faq.jsonl")]
open("corpus.txt", "w").write("\\n".join(row["question"].split("?")[0][:9] for row in rows))
from pathlib import Path
tokenizer = models.train_tokenizer(Path("corpus.txt"), 300)
shape = dict(model_type="llama", hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=256)
model = models.fresh_model(shape, tokenizer, 0, "cpu")
examples = encode(tokenizer, "Question: {prompt}\\nAnswer: ", [r["question"] for r in rows], [r["answer"] for r in rows])
for _ in fit(model, examples, OptimiserParams(epochs=2, learning_rate=1e-2, batch_size=16), 0, tokenizer.pad_token_id):
    pass
mlflow.set_tracking_uri(settings().tracking_uri)
with mlflow.start_run():
    mlflow.log_input(mlflow.data.from_dvc("data/faq.jsonl", name="faq"), context="training")
    mlflow.transformers.log_model(transformers_model={"model": model, "tokenizer": tokenizer}, name="model", task="text-generation",
                                  registered_model_name="faq", pip_requirements=models.requirements())
Path("model.txt").write_text("trained")
"""
DVC_YAML = """
stages:
  train:
    cmd: python train.py
    deps: [train.py, data/faq.jsonl]
    outs: [model.txt]
  evaluate:
    cmd: python -c "open('score.txt', 'w').write('fine')"
    deps: [model.txt]
    outs: [score.txt]
"""


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A team's repository: JSONL data under `dvc add`, a pipeline of its own, a registered model."""
    project = new_repository(tmp_path_factory.mktemp("foreign") / "repository")
    rows = [{"id": f"t{i}", "user": f"u{i % 10}", "question": f"What does ticket {i} say?", "answer": f"It says {i * 7}."} for i in range(60)]
    (project.folder / "data").mkdir()
    (project.folder / "data/faq.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (project.folder / "train.py").write_text(TRAIN)
    (project.folder / "dvc.yaml").write_text(DVC_YAML)
    (project.folder / ".gitignore").write_text("mlflow.db*\nmlruns/\nmlartifacts/\ncorpus.txt\n")
    project.must("dvc", "init", "-q")
    project.must("dvc", "add", "-q", "data/faq.jsonl")
    project.must("dvc", "repro", "-q")
    project.commit("a team's project")
    project.client().set_registered_model_alias("faq", "champion", "1")
    return project


def test_init_leaves_the_teams_pipeline_alone(foreign: Project) -> None:
    done = foreign.json("mlflow-unlearn", "init", "--model", "faq", "--data", "data/faq.jsonl")
    assert set(done["created"]) >= {"unlearn/dvc.yaml", "unlearn/params.yaml", "unlearn/policy.yaml"}
    assert (foreign.folder / "dvc.yaml").read_text() == DVC_YAML
    yaml, path = YAML(), foreign.folder / "unlearn/params.yaml"
    params = yaml.load(path)
    params["data"]["columns"] |= {"record": "id", "subject": "user"}
    yaml.dump(params, path)
    foreign.commit("init")


def test_the_whole_job_runs_beside_it_and_says_what_it_cannot_know(foreign: Project) -> None:
    foreign.must("mlflow-unlearn", "request", "add", "--subjects", "-", "--basis", "gdpr_17", stdin="u3\n", cwd="unlearn")
    foreign.must("dvc", "repro", "-q", cwd="unlearn")
    verdict = json.loads((foreign.folder / "unlearn/build/verdict.json").read_bytes())
    removal = next(each for each in verdict["verdicts"] if each["effect"] == "removal")
    assert removal["outcome"] != "PASS"
    assert any(reason.startswith("committed canaries: not measured") for reason in removal["reasons"])
    assert foreign.client().get_model_version("faq", "2").tags["unlearn.parent"] == "faq/1"


def test_the_teams_own_stages_did_not_run_again(foreign: Project) -> None:
    assert "Data and pipelines are up to date." in foreign.must("dvc", "repro")


def test_nothing_raw_is_staged(foreign: Project) -> None:
    foreign.must("git", "add", "-A")
    staged = foreign.must("git", "diff", "--cached", "--name-only").split()
    assert not [path for path in staged if "build/" in path or ".unlearn" in path]
