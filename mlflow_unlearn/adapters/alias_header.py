"""The version that a promotion replaces, told to MLflow's server in a header: MLflow's own request to set an alias has no place for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

REPLACES = "X-Mlflow-Unlearn-Replaces"
"""A version's number, or `none` where the alias points at nothing as far as the client knows."""
replaced: ContextVar[str | None] = ContextVar("replaced", default=None)
"""What requests of this context say; None says nothing."""


@contextmanager
def replacing(version: str | None) -> Iterator[None]:
    """Let requests within name the version that they replace; None where there is none."""
    token = replaced.set(version or "none")
    try:
        yield
    finally:
        replaced.reset(token)
