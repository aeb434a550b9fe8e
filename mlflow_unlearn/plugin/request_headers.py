"""`mlflow.request_header_provider`: names the version that a promotion replaces, so that a server with the gate can tell who came too late."""

from __future__ import annotations

from mlflow.tracking.request_header.abstract_request_header_provider import RequestHeaderProvider

from ..adapters.alias_header import REPLACES, replaced


class ReplacedVersion(RequestHeaderProvider):  # type: ignore[misc]  # MLflow has no types
    """Adds a header to the requests of `mlflow-unlearn promote`, and to no other."""

    def in_context(self) -> bool:
        """Whether a promotion is under way here."""
        return replaced.get() is not None

    def request_headers(self) -> dict[str, str]:
        """The header."""
        return {REPLACES: replaced.get() or "none"}
