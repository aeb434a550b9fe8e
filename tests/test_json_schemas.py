"""The published schemas are those of the code, take what is really written, and refuse what our readers refuse."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from certified import LATER, NOW, REGISTERED, Certified, certified, payload, signed
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from mlflow_unlearn.json_schemas import schemas
from mlflow_unlearn.records import Claim
from mlflow_unlearn.statements import REVIEW, Review, ReviewKind
from mlflow_unlearn.verifier import verify

PUBLISHED = Path(__file__).parents[1] / "docs/schemas"


@cache
def validator(name: str) -> Draft202012Validator:
    return Draft202012Validator(schemas()[f"{name}-v1.json"])


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Certified:
    return certified(tmp_path_factory.mktemp("schemas"))


def review() -> Any:
    said = Review(kind=ReviewKind.APPROVAL, registered=REGISTERED, alias="champion", reason="reviewed", issued_at=NOW, expires_at=LATER)
    return payload(signed(said, [{"name": "certificate", "digest": {"sha256": "0" * 64}}], "reviewer", REVIEW))


def test_docs_schemas_is_up_to_date() -> None:
    """Else: python -m mlflow_unlearn.json_schemas docs/schemas."""
    assert {path.name: json.loads(path.read_text()) for path in PUBLISHED.glob("*.json")} == schemas()


@pytest.mark.parametrize("name", schemas())
def test_every_schema_is_one(name: str) -> None:
    Draft202012Validator.check_schema(schemas()[name])
    assert schemas()[name]["$id"].endswith(f"/{name}")


def test_what_is_written_is_valid(case: Certified, tmp_path: Path) -> None:
    exact = certified(tmp_path, Claim.EXACT)
    for name, document in (
        ("certificate", payload(case.case.certificate)),
        ("certificate", payload(exact.case.certificate)),
        ("envelope", json.loads(case.case.certificate)),
        ("envelope", json.loads(case.case.trust or b"")),
        ("trust", payload(case.case.trust or b"")),
        ("review", review()),
        ("report", json.loads(json.dumps(asdict(verify(case.case, NOW))))),
        ("report", json.loads(json.dumps(asdict(verify(replace(case.case, certificate=b""), NOW))))),
    ):
        validator(name).validate(document)


MISSING, WORDS = object(), r"required property|unexpected|is not|does not match|was expected|non-empty|too short"
DAMAGE: dict[str, tuple[str, tuple[Any, ...], Any]] = {
    "a field that is missing": ("certificate", ("predicate", "not_claimed"), MISSING),
    "a field deep inside that is missing": ("certificate", ("predicate", "evaluation", "after", "canaries", 0, "order"), MISSING),
    "a field that nobody knows": ("certificate", ("predicate", "evaluation", "unheard_of"), 1),
    "another type": ("certificate", ("predicate", "evaluation", "attempt"), "first"),
    "a whole number that is none": ("certificate", ("predicate", "unlearned", "steps"), 1.5),
    "another effect": ("certificate", ("predicate", "requests", 0, "effect"), "deletion"),
    "a moment without its zone": ("certificate", ("predicate", "issued_at"), "2026-11-24T18:00:00"),
    "another kind of statement": ("certificate", ("predicateType",), REVIEW),
    "no subject": ("certificate", ("subject",), []),
    "a digest that is none": ("certificate", ("subject", 0, "digest", "sha256"), "F" * 64),
    "a role that nobody knows": ("trust", ("keys", 0, "roles", 0), "root"),
    "a trust file of another schema": ("trust", ("schema",), "mlflow-unlearn.trust/2"),
    "a payload that is no base64": ("envelope", ("payload",), "not base64!"),
    "another payload type": ("envelope", ("payloadType",), "text/plain"),
    "no signature": ("envelope", ("signatures",), []),
    "a short key id": ("envelope", ("signatures", 0, "keyid"), "0" * 63),
    "a key beside the envelope's": ("envelope", ("more",), 1),
    "a decision that nobody knows": ("review", ("predicate", "kind"), "veto"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_what_is_damaged_is_not_valid(case: Certified, name: str) -> None:
    kind, path, value = DAMAGE[name]
    made = {"certificate": lambda: payload(case.case.certificate), "trust": lambda: payload(case.case.trust or b""), "review": review}
    document = holder = made.get(kind, lambda: json.loads(case.case.certificate))()
    for key in path[:-1]:
        holder = holder[key]
    holder.pop(path[-1]) if value is MISSING else holder.__setitem__(path[-1], value)
    with pytest.raises(ValidationError, match=WORDS):
        validator(kind).validate(document)
