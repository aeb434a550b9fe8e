"""Laws over the directory listings: whoever adds a component is held to them without touching this file."""

from __future__ import annotations

from pathlib import Path

import pytest

import mlflow_unlearn
from mlflow_unlearn import catalog
from mlflow_unlearn.testing import METHOD_LAWS

METHODS = catalog.names("methods")


@pytest.mark.parametrize("words", METHOD_LAWS)
@pytest.mark.parametrize("name", METHODS)
def test_every_method(name: str, words: str) -> None:
    METHOD_LAWS[words](name)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_s_file_ends_with_its_export(name: str) -> None:
    source = (Path(mlflow_unlearn.__file__).parent / "methods" / f"{name}.py").read_text()
    assert source.rstrip().endswith(f"EXPORT = {catalog.load('methods', name, 'law').__name__}")
