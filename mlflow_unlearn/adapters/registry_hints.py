"""What tags, params, inputs and files of a version, run or logged model say it was made from, as references."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping

from ..lineage import Relation
from .registry_references import LOGGED, Reference
from .registry_rows import BASE_MODEL_TAG, RELATION_TAG, DatasetRow, LoggedModelRow, RunRow
from .registry_texts import Hint

_SHORT = re.compile(r"[^/\s:]+/\d+")
"""`NAME/VERSION`, as `unlearn.parent` is written, where `models:/NAME/VERSION` is meant."""
_STATED = frozenset({Relation.FINE_TUNED, Relation.ADAPTER, Relation.MERGED, Relation.QUANTISED})


def stated(parts: Iterable[Mapping[str, str]], problems: dict[str, None]) -> list[Reference]:
    """What `unlearn.base_model` says, wherever it was written; a relation that is none is added to the problems."""
    found: list[Reference] = []
    for tags in parts:
        if BASE_MODEL_TAG not in tags:
            continue
        listed = [base.strip() for base in tags[BASE_MODEL_TAG].split(",") if base.strip()]
        bases = [f"models:/{base}" if _SHORT.fullmatch(base) else base for base in listed]
        said = tags.get(RELATION_TAG) or (Relation.MERGED if len(bases) > 1 else Relation.FINE_TUNED)
        relation = next((each for each in _STATED if each == said), None)
        if bases and relation is None:
            problems[f"tag {RELATION_TAG}: expected one of {', '.join(sorted(_STATED))}"] = None
        found += [Reference(text=base, relation=relation or Relation.FINE_TUNED, evidence=f"tag {BASE_MODEL_TAG}") for base in bases]
    return found


def inputs(run: RunRow | None, logged: LoggedModelRow | None) -> list[Reference]:
    """Models that the run read; its metrics about a model it made are inputs too, and no origin."""
    if run is None:
        return []
    own = {*run.made, *((logged.model_id,) if logged else ())}
    read = [Reference(text=each, relation=Relation.FINE_TUNED, evidence="model input of its run") for each in run.read if each not in own]
    sources = [source for each in run.datasets if (source := model_source(each)) is not None]
    return read + [Reference(text=each, relation=Relation.FINE_TUNED, evidence="dataset input whose source is a model") for each in sources]


def model_source(dataset: DatasetRow) -> str | None:
    """The model that a dataset input says it comes from."""
    if "models:/" not in dataset.source and LOGGED.search(dataset.source) is None:
        return None
    try:
        document = json.loads(dataset.source)
    except (ValueError, RecursionError):
        return None
    values = [value for value in document.values() if isinstance(value, str)] if isinstance(document, dict) else []
    return next((value for value in values if value.startswith("models:/") or LOGGED.search(value)), None)


def params_of(params: Mapping[str, str]) -> list[Reference]:
    """What params name; a checkpoint that training went on from is a path, even if it looks like a public model."""
    found: list[Reference] = []
    for key, value in sorted(params.items()):
        checkpoint = key.endswith("resume_from_checkpoint") and value.lower() not in ("", "none", "true", "false") and ":" not in value
        text = f"./{value}" if checkpoint and not value.startswith(("/", ".")) else value
        found.append(Reference(text=text, relation=Relation.FINE_TUNED, evidence=f"param {key}"))
    return found


def hinted(hint: Hint) -> Reference:
    """What a model's own file names."""
    relation = Relation.ADAPTER if hint.adapter else Relation.FINE_TUNED
    return Reference(text=hint.text, relation=relation, evidence=hint.evidence, certain=hint.certain)
