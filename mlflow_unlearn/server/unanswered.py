"""What is raised where an answer cannot be worked out: what of it is mere silence, and what nobody foresaw."""

from __future__ import annotations

import logging

from ..adapters.gate_tables import DATABASE_ERRORS, DATABASE_SILENCE
from ..adapters.ledger_book import NoAnswerError
from ..errors import StoreError, UnlearnError

UNANSWERED = (UnlearnError, OSError, *DATABASE_ERRORS)
"""What is raised where something does not answer or is not as it should be."""
SILENT = (StoreError, NoAnswerError, OSError, *DATABASE_SILENCE)
"""Of that, what says nothing against anybody: something does not answer. An old answer stands in for these alone, for a while."""
_logger = logging.getLogger("mlflow_unlearn.gate")


class ChangingError(UnlearnError):
    """What an answer rests on is another one each time it is looked at."""


class UnforeseenError(UnlearnError):
    """Something went wrong of which nobody knew that it can."""


class foreseen:  # noqa: N801 - reads as `with foreseen(model):`
    """Lets nothing out but UNANSWERED: what nobody foresaw about one version is no answer about that one, no server error and no end of a round.

    Whatever clients recorded is read within, and may raise anything; nowhere else is everything caught.

    Args:
        what: the version that is looked at, for the words.

    Raises:
        UnforeseenError: anything else was raised within; the server's log has it in full.
    """

    def __init__(self, what: object) -> None:
        self._what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None or isinstance(error, UNANSWERED) or not isinstance(error, Exception):
            return
        _logger.error("ALARM: %s cannot be decided, by a mistake of mlflow-unlearn; what is below is worth an issue", self._what, exc_info=error)
        words = "see the server's log, report what it says, and take away what was recorded last about the version"
        raise UnforeseenError(f"{self._what}: cannot be decided ({type(error).__name__}): {words}") from error
