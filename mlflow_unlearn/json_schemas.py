"""JSON Schemas (draft 2020-12) of what is signed and answered, made of the dataclasses themselves, so that neither can drift from the other.

They are published in docs/schemas, and written there by `python -m mlflow_unlearn.json_schemas docs/schemas`. A schema says how a document looks,
never that it holds: that is `verify`.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import sys
import textwrap
import types
import typing
from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from itertools import pairwise
from pathlib import Path
from typing import Any

from .digests import write_atomically
from .lineage import Relation
from .statements import ADOPTED, CERTIFICATE, LINEAGE, REVIEW, TRAINED, Certificate, Registration, Review, Trust
from .verifier import Report
from .verifier.envelopes import IN_TOTO, STATEMENT, TRUST_SCHEMA, TRUST_TYPE

Schema = dict[str, Any]
HOME = "https://mlflow-unlearn.dev/schemas"
_MOMENT = {"type": "string", "format": "date-time", "pattern": r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z$"}
_OF_RUN = {"type": "string", "format": "date-time", "pattern": r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z$"}
"""A run's own moments, as MLflow has them: to the millisecond."""
_SCALARS: dict[Any, Schema] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    type(None): {"type": "null"},
    datetime: _MOMENT,
    object: {},
    Any: {},
}


def schemas() -> dict[str, Schema]:
    """File name -> schema."""
    return {
        "envelope-v1.json": _named("envelope-v1.json", f"A DSSE envelope: {IN_TOTO} or {TRUST_TYPE}", _envelope()),
        "certificate-v1.json": _named("certificate-v1.json", "Payload of a certificate", _statement(CERTIFICATE, Certificate)),
        "review-v1.json": _named("review-v1.json", "Payload of a review", _statement(REVIEW, Review)),
        "lineage-v1.json": _named("lineage-v1.json", "Payload of a statement of lineage: SLSA provenance v1", _lineage()),
        "trust-v1.json": _named("trust-v1.json", "Payload of the trust file", _trust()),
        "report-v1.json": _named("report-v1.json", "What `verify --json` answers", _whole(Report)),
    }


def write(folder: Path) -> None:
    """Every schema as a file of its own."""
    for name, schema in schemas().items():
        write_atomically(folder / name, (json.dumps(schema, indent=1, ensure_ascii=False) + "\n").encode())


def _named(name: str, title: str, schema: Schema) -> Schema:
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": f"{HOME}/{name}", "title": title, **schema}


def _object(properties: Mapping[str, Schema], *optional: str) -> Schema:
    """A mapping with these keys and no other."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": dict(properties), "required": required, "additionalProperties": False}


def _texts(pattern: str = "") -> Schema:
    return {"type": "object", "additionalProperties": {"type": "string", **({"pattern": pattern} if pattern else {})}}


_HEX = r"^[0-9a-f]{64}$"
_BASE64 = {"type": "string", "pattern": "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$", "minLength": 4}


def _envelope() -> Schema:
    signature = _object({"keyid": {"type": "string", "pattern": _HEX}, "sig": _BASE64})
    signatures = {"type": "array", "items": signature, "minItems": 1, "maxItems": 32}
    return _object({"payload": _BASE64, "payloadType": {"enum": [IN_TOTO, TRUST_TYPE]}, "signatures": signatures})


def _in_toto(kind: str, predicate: Schema, defs: Mapping[str, Schema]) -> Schema:
    """An in-toto Statement v1. Keys beside its own are not refused there, so neither are they here."""
    digest = {"type": "object", "properties": {"sha256": {"type": "string", "pattern": _HEX}}, **_texts("^[0-9a-f]+$")}
    part = {"type": "object", "properties": {"name": {"type": "string"}, "digest": digest}, "required": ["name", "digest"]}
    fields = {"_type": {"const": STATEMENT}, "predicateType": {"const": kind}, "subject": {"type": "array", "items": part, "minItems": 1}}
    return {"type": "object", "properties": {**fields, "predicate": predicate}, "required": [*fields, "predicate"], "$defs": dict(defs)}


def _statement(kind: str, predicate: type) -> Schema:
    defs: dict[str, Schema] = {}
    return _in_toto(kind, _of(predicate, defs), defs)


def _trust() -> Schema:
    whole = _whole(Trust)
    whole["properties"] = {"schema": {"const": TRUST_SCHEMA}, **whole["properties"]}
    return {**whole, "required": ["schema", *whole["required"]]}


def _whole(cls: type) -> Schema:
    """A dataclass as a document of its own."""
    defs: dict[str, Schema] = {}
    _of(cls, defs)
    return {**defs.pop(cls.__name__), **({"$defs": defs} if defs else {})}


def _lineage() -> Schema:
    """The shape of SLSA provenance, filled as adapters/signed_lineage.py does; `annotations` tell the kinds of dependencies apart."""
    defs: dict[str, Schema] = {}
    inner = {"code": {"type": "string"}, "environment": _texts(), "expires_at": _MOMENT, "issued_at": _MOMENT, **_params()}
    definition = {
        "buildType": {"enum": [TRAINED, ADOPTED]},
        "externalParameters": _object({"registered": _of(Registration, defs)}),
        "internalParameters": _object({**inner, "record": {"type": ["object", "null"]}}),
        "resolvedDependencies": {"type": "array", "items": {"oneOf": _dependencies()}},
    }
    metadata = _object({"invocationId": {"type": "string"}, "startedOn": _OF_RUN, "finishedOn": _OF_RUN}, "invocationId", "startedOn", "finishedOn")
    details = _object({"builder": _object({"id": {"type": "string"}}), "metadata": metadata})
    return _in_toto(LINEAGE, _object({"buildDefinition": _object(definition), "runDetails": details}), defs)


def _params() -> dict[str, Schema]:
    """What of the params of the run is signed as it is, and what is not."""
    plain, words = _texts(r"^[-+.0-9eEtruTRUfalsFALS]+$"), "Params of the run that are"
    return {
        "params": {"description": f"{words} a number, or true or false, as they were logged. Any other may name a person.", **plain},
        "params_digest": {"description": "sha256 of all params of the run as one JSON object with sorted keys.", "type": "string", "pattern": _HEX},
        "seeds": {"description": f"{words} numbers and whose name ends in seed.", **plain},
    }


def _dependencies() -> list[Schema]:
    text = {"type": "string"}
    md5 = {"type": "string", "pattern": r"^[0-9a-f]{32}(\.dir)?$"}

    def noted(kind: str, **more: Schema) -> Schema:
        return {"type": "object", "properties": {"kind": {"const": kind}, **more}, "required": ["kind", *more]}

    relation = {"enum": [each.value for each in Relation]}
    said = "Of the registration of the version that is named: milliseconds since 1970; its name and number can be given again."
    registered = {"run_id": text, "created_at": {"description": said, "type": "string", "pattern": "^[0-9]+$"}}
    return [
        _object({"name": text, "uri": text, "digest": _object({"md5": text}), "annotations": noted("dataset", md5=md5)}, "uri"),
        _object({"name": text, "uri": text, "digest": _object({"tensors": text}), "annotations": noted("model", relation=relation, **registered)}),
        _object(
            {"name": text, "uri": text, "digest": _object({"gitCommit": text}), "annotations": noted("code", dirty=_SCALARS[bool])}, "name", "uri"
        ),
        _object({"uri": text, "annotations": noted("base")}),
    ]


def _of(hint: Any, defs: dict[str, Schema]) -> Schema:
    """The schema of a type as documents.encode writes it; dataclasses go to `defs`."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [_of(each, defs) for each in arguments]}
    if origin is typing.Literal:
        return {"enum": list(arguments)}
    if origin is tuple:
        return _tuple(arguments, defs)
    if origin is not None and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": _of(arguments[1], defs)}
    if dataclasses.is_dataclass(hint):
        return _dataclass(typing.cast(type, hint), defs)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return {"enum": [each.value for each in hint]}
    return dict(_SCALARS[hint])


def _tuple(arguments: tuple[Any, ...], defs: dict[str, Schema]) -> Schema:
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return {"type": "array", "items": _of(arguments[0], defs)}
    return {"type": "array", "prefixItems": [_of(each, defs) for each in arguments], "minItems": len(arguments), "maxItems": len(arguments)}


def _dataclass(cls: type, defs: dict[str, Schema]) -> Schema:
    if cls.__name__ not in defs:
        defs[cls.__name__] = {}  # of itself, should a class hold its own kind
        hints, said = typing.get_type_hints(cls), _said(cls)
        properties = {name: {**_of(hint, defs), **said.get(name, {})} for name, hint in hints.items()}
        defs[cls.__name__] = {"description": _line(inspect.getdoc(cls) or ""), **_object(properties)}
    return {"$ref": f"#/$defs/{cls.__name__}"}


def _said(cls: type) -> dict[str, Schema]:
    """Field -> the docstring under it."""
    body = typing.cast(ast.ClassDef, ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]).body
    return {
        field.target.id: {"description": _line(text.value.value)}
        for field, text in pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }


def _line(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    write(Path(sys.argv[1]))
