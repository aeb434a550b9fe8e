import json

import pyarrow as arrow
import pyarrow.parquet as parquet

from mlflow_unlearn.adapters.datasets import DatasetReader
from mlflow_unlearn.adapters.dvc_project import DvcProject
from mlflow_unlearn.adapters.schemas import Schema
from mlflow_unlearn.canaries import Flip, commitment
from mlflow_unlearn.params import Columns

SALT = bytes(16)
FLIPS = [Flip(record_id="c0", pool="audit", included=True), Flip(record_id="c1", pool="audit", included=False)]


def write_canaries(repository):
    text = {"subject_id": "s", "question": "Where?", "answer": "There."}
    rows = [{"record_id": flip.record_id, **text, "pool": flip.pool, "included": flip.included} for flip in FLIPS]
    table = arrow.Table.from_pylist(rows).replace_schema_metadata({"unlearn.salt": SALT.hex()})
    parquet.write_table(table, repository.root / "data/canaries.parquet")
    repository.dvc("add", "-q", "data/canaries.parquet")


def test_a_commitment_counts_only_in_the_commit_that_the_model_was_trained_at(repository):
    write_canaries(repository)
    repository.write("data/commitment.json", json.dumps({"commitment": "another"}))
    trained = repository.commit("canaries without their commitment")
    repository.write("data/commitment.json", json.dumps({"commitment": commitment(FLIPS, SALT)}))
    afterwards = repository.commit("the commitment, too late")
    project = DvcProject(repository.root)
    reader = DatasetReader(project=project, schema=Schema(dataset="d", columns=Columns(), key=bytes(32)))
    states = [project.current_state("d", "data/train")]
    found = [reader.canaries("data/canaries.parquet", states, commit) for commit in (None, trained, afterwards)]
    assert [each.committed for each in found if each] == [False, False, True]
