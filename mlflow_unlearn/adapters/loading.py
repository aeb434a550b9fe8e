"""A model from the very files that were verified, through MLflow's own loaders."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal, cast

Flavor = Literal["pyfunc", "transformers"]


def load(folder: Path, flavor: Flavor, options: dict[str, Any]) -> Any:
    """What `mlflow.pyfunc.load_model` or `mlflow.transformers.load_model` makes of a folder; imports what the model needs, torch included.

    A model that brings code is imported from the folder, and no bytecode may be left there: it would be one file more than was signed.
    """
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        return _load(folder, flavor, options)
    finally:
        sys.dont_write_bytecode = before


def _load(folder: Path, flavor: Flavor, options: dict[str, Any]) -> Any:
    if flavor == "pyfunc":
        import mlflow.pyfunc

        return cast(Any, mlflow.pyfunc.load_model(str(folder), **options))
    import mlflow.transformers

    return cast(Any, mlflow.transformers.load_model(str(folder), **options))
