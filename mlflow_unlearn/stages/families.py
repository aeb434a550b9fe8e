"""What the stages of the exact route share: the family that params.yaml describes, and where its files lie."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from ..digests import key_id, sha256_json
from ..documents import decode, encode
from ..errors import ConfigError, TamperedError
from ..exactness import Family, ShardLog
from ..params import ExactParams
from .workbench import Workbench, stage_schema

if TYPE_CHECKING:
    from ..adapters.bases import BaseFiles

TRAINING = "training"
REPLACED = "replaced"
WEIGHTS = "weights.safetensors"


def exact_params(bench: Workbench) -> ExactParams:
    """The section `exact` of params.yaml.

    Raises:
        ConfigError: it is not there.
    """
    if bench.params.exact is None:
        raise ConfigError(f"{bench.folder / 'params.yaml'}: no section `exact`: shards, base, optimiser; `mlflow-unlearn plan` suggests one")
    return bench.params.exact


def base_of(bench: Workbench) -> BaseFiles:
    """The files of `exact.base`; a relative folder is one beside params.yaml."""
    from ..adapters.bases import fetch

    reference = exact_params(bench).base
    local = bench.folder / reference
    return fetch(str(local) if local.is_dir() else reference)


def described(bench: Workbench) -> Family:
    """The family that params.yaml, the tag key and the base make."""
    params = exact_params(bench)
    base = encode(base_of(bench).pinned) | {"reference": params.base}
    settings = family_settings(bench, params)
    content = {"shards": len(params.shards), "slices": params.slices, "base": base, "settings": settings}
    known = {key: value for key, value in base.items() if key != "reference"}  # the same model under another name is the same family
    return decode(Family, {"family": sha256_json([key_id(bench.key), bench.params.data.name, content | {"base": known}]), **content}, "exact")


def family_settings(bench: Workbench, exact: ExactParams) -> dict[str, object]:
    """`Family.settings` of params.yaml; the base is not looked at."""
    return {
        "optimiser": encode(exact.optimiser),
        "lora": encode(exact.lora),
        "seed": exact.seed,
        "dtype": bench.params.unlearn.dtype,
        "template": bench.params.data.template,
    }


def shards_folder(bench: Workbench) -> Path:
    """Rows of each shard: git-ignored, never cached by DVC."""
    return bench.folder / "build/raw/shards"


def shard_folder(bench: Workbench, shard: int) -> Path:
    """Weights, log and slice checkpoints of one shard."""
    return bench.route / "shards" / str(shard)


def shard_log(bench: Workbench, shard: int) -> ShardLog | None:
    """How the weights that are there were trained; None where there are none, or their log cannot be read."""
    path = shard_folder(bench, shard) / f"{TRAINING}.json"
    try:
        document = json.loads(path.read_bytes())
        document.pop("schema")
        return decode(ShardLog, document, str(path))
    except (OSError, ValueError, KeyError, ConfigError):
        return None


def replaced(folder: Path) -> dict[str, str]:
    """md5 -> path of a shard's files that saw a record which has left since, and are no longer there."""
    try:
        found: dict[str, str] = json.loads((folder / f"{REPLACED}.json").read_bytes())["files"]
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError):
        raise TamperedError(f"{folder / REPLACED}.json: damaged; it lists what has to be purged. Restore it, e.g. by `dvc checkout`") from None
    return found


def log_schema() -> str:
    """The schema of training.json."""
    return stage_schema("shard-training")
