"""The pyfunc flavor of the models in deployed.py: a model that says which file of weights it has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.numpy import load_file


class Weights:
    """Answers with its first weight, whatever is asked."""

    def __init__(self, folder: Path) -> None:
        self.weight = float(load_file(folder / "model.safetensors")["w"][0])

    def predict(self, data: Any, params: Any = None) -> list[float]:
        return [self.weight] * len(data)


def _load_pyfunc(path: str) -> Weights:
    return Weights(Path(path))
