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
"""So long somebody waits for a question to begin, and then for its answer."""
REMEMBERED_S = 10.0
"""That a question waited longer than that and got no answer is remembered for so long: whoever asks then is told at once."""

_ANSWERS = (float("-inf"), "")


@dataclass(kw_only=True, eq=False)
class _Asked:
    """A question that has not begun yet, and whose answer is for all who ask it until then."""

    begun: threading.Event = field(default_factory=threading.Event)
    answer: Future[Any] = field(default_factory=Future)


@dataclass(kw_only=True)
class Patience:
    """One question at a time; who gets no answer goes on, while the question may still wait for its own.

    Whoever asks while one is worked out shares the next one with all who come meanwhile: an answer that began before they came may miss what was
    written in between. To wait in that queue is no silence.
    """

    _next: dict[Callable[[], Any], _Asked] = field(default_factory=dict)
    _since: float | None = None
    """Since when a question is worked out; None while there is none."""
    _silent: tuple[float, str] = _ANSWERS
    """Until when it counts as silent, and in which words."""
    _mine: threading.Lock = field(default_factory=threading.Lock)

    def ask(self, question: Callable[[], T], place: str) -> T:
        """The answer to a question that begins after this call.

        Args:
            question: asks; who asks an equal one shares its answer.
            place: what is asked, for the words.

        Raises:
            NoAnswerError: there is none, or was none a moment ago.
            UnlearnError: whatever the question raises.
        """
        words = f"ledger {place}: no answer for {PATIENCE_S:g} s; check MLFLOW_UNLEARN_LEDGER_URI and that the database answers"
        with self._mine:
            self._refuse_silent(words)
            asked = self._next.setdefault(question, _Asked())
            if self._since is None:
                threading.Thread(target=self._work, name="mlflow-unlearn-ledger", daemon=True).start()
                self._since = time.monotonic()
        if not asked.begun.wait(PATIENCE_S):
            raise NoAnswerError(words)
        try:
            return asked.answer.result(PATIENCE_S)  # type: ignore[no-any-return]
        except TimeoutError:
            raise NoAnswerError(words) from None

    def _work(self) -> None:
        while (begun := self._begin()) is not None:
            self._answer(*begun)

    def _begin(self) -> tuple[Callable[[], Any], _Asked] | None:
        with self._mine:
            question = next(iter(self._next), None)
            self._since = None if question is None else time.monotonic()
            if question is None:
                return None
            asked = self._next.pop(question)
            asked.begun.set()
            return question, asked

    def _answer(self, question: Callable[[], Any], asked: _Asked) -> None:
        began = time.monotonic()
        try:
            with foreseen("the ledger"):
                self._refuse_remembered()  # they waited for one that got no answer
                found = question()
        except UNANSWERED as error:
            ended = time.monotonic()
            if isinstance(error, NoAnswerError) and ended - began > PATIENCE_S:
                self._silent = (ended + REMEMBERED_S, str(error))
            asked.answer.set_exception(error)
        else:
            asked.answer.set_result(found)

    def _refuse_silent(self, words: str) -> None:
        """The question of now got none within its time, or the last one did not."""
        if self._since is not None and time.monotonic() - self._since > PATIENCE_S:
            raise NoAnswerError(words)
        self._refuse_remembered()

    def _refuse_remembered(self) -> None:
        until, words = self._silent
        if time.monotonic() < until:
            raise NoAnswerError(words)
