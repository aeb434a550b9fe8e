"""Asks what may not answer, such as a ledger on another machine, so that nobody waits long, and nobody behind somebody else."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ..adapters.ledger_book import NoAnswerError
from .unanswered import UNANSWERED, foreseen

T = TypeVar("T")
PATIENCE_S = 2.0
"""So long somebody waits for an answer."""
REMEMBERED = 5.0
"""That there was none is remembered this many times as long as it took to find out: whoever asks then is told at once."""

_ANSWERS = (float("-inf"), "")


@dataclass(kw_only=True)
class Patience:
    """One question at a time; who gets no answer goes on, while the question may still wait for its own."""

    _turn: threading.Lock = field(default_factory=threading.Lock)
    _silent: tuple[float, str] = _ANSWERS
    """Until when it counts as silent, and in which words."""

    def ask(self, question: Callable[[], T], place: str) -> T:
        """The answer to a question.

        Args:
            question: asks.
            place: what is asked, for the words.

        Raises:
            NoAnswerError: there is none, or was none a moment ago.
            UnlearnError: whatever the question raises.
        """
        self._refuse_silent()
        answered: Future[T] = Future()
        threading.Thread(target=self._ask, args=(question, answered), name="mlflow-unlearn-ledger", daemon=True).start()
        try:
            return answered.result(PATIENCE_S)
        except TimeoutError:
            answered.cancel()
            self._remember(
                PATIENCE_S, f"ledger {place}: no answer for {PATIENCE_S:g} s; check MLFLOW_UNLEARN_LEDGER_URI and that the database answers"
            )
        raise NoAnswerError(self._silent[1])

    def _ask(self, question: Callable[[], Any], answered: Future[Any]) -> None:
        if not self._turn.acquire(timeout=PATIENCE_S):
            return  # whoever asked has gone by now
        try:
            if answered.set_running_or_notify_cancel():
                with foreseen("the ledger"):
                    answered.set_result(self._answer(question))
        except UNANSWERED as error:  # whoever asked is told
            answered.set_exception(error)
        finally:
            self._turn.release()

    def _answer(self, question: Callable[[], T]) -> T:
        self._refuse_silent()
        began = time.monotonic()
        try:
            found = question()
        except NoAnswerError as error:
            self._remember(time.monotonic() - began, str(error))
            raise
        self._silent = _ANSWERS
        return found

    def _refuse_silent(self) -> None:
        until, words = self._silent
        if time.monotonic() < until:
            raise NoAnswerError(words)

    def _remember(self, took_s: float, words: str) -> None:
        self._silent = (time.monotonic() + REMEMBERED * took_s, words)
