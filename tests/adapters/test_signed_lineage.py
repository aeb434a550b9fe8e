"""From what a run recorded to what is signed, and back: the same lineage, or a word about why it cannot be attested."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from registered_models import MD5, OTHER, Maker, dataset, registry_at
from signed_versions import files, version
from trusted_keys import BO, NOW, trust_bytes, trusting

from mlflow_unlearn import dsse
from mlflow_unlearn.adapters.signed_lineage import Attested, provenance, require_weights
from mlflow_unlearn.adapters.stated_lineage import StatedAncestor, StatedLineage, lineage_of, registration_of, weights_of
from mlflow_unlearn.adapters.statements import Statements
from mlflow_unlearn.digests import sha256_json
from mlflow_unlearn.documents import encode
from mlflow_unlearn.errors import LineageError, TamperedError
from mlflow_unlearn.lineage import Descent, ModelVersion, Relation, VersionLineage
from mlflow_unlearn.statements import CERTIFICATE, LINEAGE, Registration, Role
from mlflow_unlearn.verifier import Statement, read_statement, read_trust, subject_of
from mlflow_unlearn.verifier.envelopes import IN_TOTO

GIT = {"unlearn.git.commit": "c" * 40, "unlearn.git.dirty": "true", "unlearn.git.repository": "https://example.org/x"}
WHERE = json.dumps({"path": "data/train", "rev": "c" * 40, "repository": "https://example.org/x", "dirty": False})


@pytest.fixture
def statements(mlflow_store: str, tmp_path: Path) -> Statements:
    return Statements(registry_at(tmp_path, mlflow_store))


@pytest.fixture
def make(statements: Statements) -> Maker:
    client = statements.registry.client
    return Maker(client, client.get_experiment_by_name("customers").experiment_id)


def attested(statements: Statements, model: ModelVersion, lineage: VersionLineage | None = None) -> Attested:
    return Attested(
        registered=statements.registration(model),
        lineage=lineage or statements.registry.closure(model)[0],
        code="d" * 64,
        issued_at=NOW,
        expires_at=NOW + timedelta(days=365),
    )


def predicate(statements: Statements, model: ModelVersion) -> dict[str, Any]:
    return provenance(statements, attested(statements, model), statements.folder(model))


def signed(statements: Statements, model: ModelVersion) -> Statement:
    payload = dsse.statement(LINEAGE, subject_of(statements.folder(model)), predicate(statements, model))
    trust = read_trust(trust_bytes(trusting(BO.line(Role.TRAINER))), NOW)
    return read_statement(dsse.seal(payload, IN_TOTO, [BO]), trust, "trainer", NOW)


def trained(make: Maker, folder: Path, *inputs: Any, **run: Any) -> ModelVersion:
    return version(make.client, "customers", files(folder), make.run(*(inputs or (dataset("customers", MD5, source=WHERE),)), **run))


def test_what_was_signed_is_what_the_registry_says(statements: Statements, make: Maker, tmp_path: Path) -> None:
    parent = trained(make, tmp_path / "one")
    child = trained(make, tmp_path / "two", dataset("calls", OTHER), tags={"unlearn.base_model": f"models:/{parent}", "unlearn.relation": "adapter"})
    statement = signed(statements, child)
    stated, weights = lineage_of(statement), subject_of(tmp_path / "one")[0]["digest"]["tensors"]
    made_from = StatedAncestor(relation=Relation.ADAPTER, registered=statements.registration(parent), tensors=weights)
    assert stated == StatedLineage(datasets={"calls": OTHER}, ancestors={parent: made_from})
    assert stated.contradictions(statements.registry.closure(child)[0]) == ()
    assert stated.exchanged(statements.registration, {parent: weights_of(signed(statements, parent))}) == ()
    assert registration_of(statement) == encode(statements.registration(child))


def test_it_has_the_shape_of_slsa_and_names_data_code_and_model_by_their_digests(statements: Statements, make: Maker, tmp_path: Path) -> None:
    model = trained(make, tmp_path / "one", tags={**GIT, "unlearn.base_model": "hf://org/base@1"})
    found = predicate(statements, model)["buildDefinition"]["resolvedDependencies"]
    assert found[0]["uri"] == "dvc:data/train"
    assert found[0]["digest"] == {"md5": MD5.removesuffix(".dir")}
    assert found[0]["annotations"] == {"kind": "dataset", "md5": MD5, **json.loads(WHERE)}
    assert found[1] == {"uri": "hf://org/base@1", "annotations": {"kind": "base"}}
    assert found[2] == {"uri": "git+https://example.org/x", "digest": {"gitCommit": "c" * 40}, "annotations": {"kind": "code", "dirty": True}}


def test_it_keeps_seeds_params_environment_record_and_run(statements: Statements, make: Maker, tmp_path: Path) -> None:
    params = {"seed": "3", "lr": "0.1", "data_seed": "4", "shuffle": "True"}
    model = trained(make, tmp_path / "one", tags=GIT | {"unlearn.stage": "train"}, params=params)
    made = predicate(statements, model)
    inner = made["buildDefinition"]["internalParameters"]
    assert (inner["seeds"], inner["params"], inner["params_digest"]) == ({"data_seed": "4", "seed": "3"}, params, sha256_json(params))
    assert inner["environment"] == {"python": "3.12.1", "mlflow": "3.17.0", "numpy": "2.3.1"}
    assert (inner["record"]["stage"]["name"], inner["record"]["git"]["commit"]) == ("train", "c" * 40)
    assert made["runDetails"]["metadata"]["invocationId"] == statements.registration(model).run_id


def test_words_among_params_are_in_a_digest_alone(statements: Statements, make: Maker, tmp_path: Path) -> None:
    words = {"subject_ids": "bo,ana", "note": "on Bo Olsen", "base_model": "Bo Olsen", "my_seed": "bo", "day": "1e5 bo", "of bo": "1"}
    model = trained(make, tmp_path / "one", tags={"unlearn.base_model": "none"}, params={**words, "lr": "1e-5"})
    made = predicate(statements, model)
    assert made["buildDefinition"]["internalParameters"]["params"] == {"lr": "1e-5"}
    assert not [word for word in ("bo", "Bo", "ana") if re.search(rf"\b{word}\b", json.dumps(made))]


def test_a_parent_is_named_by_its_weights_and_one_without_cannot_be(statements: Statements, make: Maker, tmp_path: Path) -> None:
    parent = trained(make, tmp_path / "one")
    child = trained(make, tmp_path / "two", tags={"unlearn.base_model": f"models:/{parent}"})
    (found,) = [each for each in predicate(statements, child)["buildDefinition"]["resolvedDependencies"] if each["annotations"]["kind"] == "model"]
    assert (found["name"], found["digest"]) == ("customers/1", {"tensors": subject_of(tmp_path / "one")[0]["digest"]["tensors"]})
    (tmp_path / "one/model/model.safetensors").unlink()
    with pytest.raises(LineageError, match="its ancestor customers/1 has no safetensors"):
        predicate(statements, child)


@pytest.mark.parametrize("inputs", [(dataset("web", "1", "http", '{"url": "http://x"}'),), (dataset("web", "no md5"),)])
def test_what_is_not_complete_cannot_be_attested(statements: Statements, make: Maker, tmp_path: Path, inputs: Any) -> None:
    model = trained(make, tmp_path / "one", *inputs)
    with pytest.raises(LineageError, match=r"customers/1: .*(not under DVC|expected an md5 as DVC writes it)"):
        predicate(statements, model)


def test_weights_that_are_not_the_registered_ones_are_refused(tmp_path: Path) -> None:
    subject, model = subject_of(files(tmp_path / "one")), ModelVersion(name="m", version="1")
    require_weights(model, None, subject)
    require_weights(model, subject[0]["digest"]["tensors"], subject)
    with pytest.raises(TamperedError, match=r"m/1: the weights in the artifact store are .* registered were 0{16}; restore them"):
        require_weights(model, "0" * 64, subject)


PARENT = ModelVersion(name="m", version="1")
FIRST = Registration(name="m", version="1", run_id="7" * 32, created_at=1_764_590_000_000)
MADE_FROM = StatedAncestor(relation=Relation.ADAPTER, registered=FIRST, tensors="e" * 64)
SAID = VersionLineage(
    model=ModelVersion(name="m", version="2"),
    datasets={"a": MD5, "b": OTHER},
    ancestors=(Descent(parent=PARENT, relation=Relation.ADAPTER, evidence="tag"),),
    adopted=True,
)
STATED = StatedLineage(datasets={"x": MD5, "y": OTHER}, ancestors={PARENT: MADE_FROM}, adopted=True)


@pytest.mark.parametrize(
    ("lineage", "words"),
    [
        (replace(SAID, datasets={"a": MD5}), "dataset state bbbbbbbb was signed and is not in the registry"),
        (replace(SAID, datasets={**SAID.datasets, "c": "e" * 32}), "dataset state eeeeeeee is in the registry and not in what was signed"),
        (replace(SAID, ancestors=()), "m/1 was signed as an ancestor and is none in the registry"),
        (replace(SAID, adopted=False), "stated by a person, and the registry no longer says so"),
        (replace(SAID, ancestors=(replace(SAID.ancestors[0], relation=Relation.COPIED),)), "m/1: copied in the registry, adapter signed"),
        (replace(SAID, ancestors=(*SAID.ancestors, replace(SAID.ancestors[0], parent=SAID.model))), "m/2 is an ancestor in the registry and not"),
    ],
)
def test_every_difference_from_the_registry_is_told(lineage: VersionLineage, words: str) -> None:
    assert STATED.contradictions(SAID) == ()
    (told,) = STATED.contradictions(lineage)
    assert words in told


@pytest.mark.parametrize(
    ("registered", "weights", "words"),
    [
        (replace(FIRST, run_id="8" * 32), {}, "m/1 was registered again since it was signed as an ancestor"),
        (replace(FIRST, created_at=FIRST.created_at + 1), {}, "another version under the same name and number"),
        (FIRST, {PARENT: "f" * 64}, "m/1: its own statement is about the weights f{16}, signed as an ancestor are e{16}"),
        (FIRST, {PARENT: "none"}, "is about the weights none, signed"),
        (None, {}, "m/1 was signed as an ancestor and is registered no longer"),
    ],
)
def test_an_ancestor_that_was_exchanged_is_told(registered: Registration | None, weights: dict[ModelVersion, str], words: str) -> None:
    def look(model: ModelVersion) -> Registration:
        if registered is None:
            raise LineageError(f"{model}: no such version")
        return registered

    assert STATED.exchanged(lambda _: FIRST, {PARENT: "e" * 64}) == ()
    (told,) = STATED.exchanged(look, weights)
    assert re.search(words, told)


def statement(kind: str, predicate: Any, **subject: Any) -> Statement:
    common = {"digest": "9" * 64, "signers": (), "holders": frozenset(), "issued_at": NOW, "expires_at": NOW}
    return Statement(kind=kind, subject=[subject] if subject else [], predicate=predicate, **common)  # type: ignore[arg-type]


@pytest.mark.parametrize("subject", [{}, {"name": "."}, {"name": ".", "digest": "x"}, {"name": "a", "digest": {"tensors": "e"}}])
def test_a_subject_without_tensors_has_none(subject: Any) -> None:
    assert weights_of(statement(LINEAGE, {}, **subject)) == "none"


def test_a_certificate_says_the_parent_and_what_it_saw() -> None:
    datasets = [{"name": "a", "md5": MD5}, {"name": "a", "md5": OTHER}]
    parent = {"model": {"name": "m", "version": "1"}, "tensor_digest": "e" * 64, "datasets": datasets}
    found = lineage_of(statement(CERTIFICATE, {"unlearned": {"parent": parent}, "parent": encode(FIRST)}))
    assert (set(found.datasets.values()), found.whole) == ({MD5, OTHER}, False)
    assert found.ancestors == {PARENT: replace(MADE_FROM, relation=Relation.UNLEARNED)}
    less = VersionLineage(model=SAID.model, datasets={"a": MD5}, ancestors=(Descent(parent=PARENT, relation=Relation.UNLEARNED, evidence=""),))
    assert found.contradictions(less) == ()


@pytest.mark.parametrize("predicate", [{}, {"buildDefinition": []}, {"buildDefinition": {"buildType": "x", "resolvedDependencies": []}}, {"a": None}])
@pytest.mark.parametrize("kind", [LINEAGE, CERTIFICATE, "https://example.org/other"])
def test_any_other_shape_is_an_error_of_ours(kind: str, predicate: Any) -> None:
    with pytest.raises(LineageError, match=r"statement 9{16}: (not in the shape of|expected)"):
        lineage_of(statement(kind, predicate))
    assert registration_of(statement(kind, predicate)) == {}
