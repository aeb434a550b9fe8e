"""One thing among thousands that goes wrong, kept away from the others."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

_logger = logging.getLogger(__name__)


@dataclass
class apart:  # noqa: N801 - reads as `with apart() as tried:`
    """Whatever is raised within ends there and is in `error` afterwards: what any client may write beside a version has no end of mistakes."""

    what: str
    """For the log."""
    but: tuple[type[Exception], ...] = ()
    """What is raised all the same: a store that does not answer is no mistake in one version."""
    error: Exception | None = field(default=None, init=False)

    def __enter__(self) -> apart:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, Exception) or isinstance(error, self.but):
            return False
        _logger.warning("%s: %s", self.what, type(error).__name__)
        self.error = error
        return True
