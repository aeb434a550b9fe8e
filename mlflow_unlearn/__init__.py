"""Trace erased records to model versions, make the models forget, measure how well, and gate what may be deployed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .stages.gated_loading import load_model as load_model

__all__ = ["load_model"]


def __getattr__(name: str) -> Any:
    """`load_model`, imported when it is first asked for: MLflow imports this package to look for its plugins."""
    if name != "load_model":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .stages.gated_loading import load_model

    return load_model
