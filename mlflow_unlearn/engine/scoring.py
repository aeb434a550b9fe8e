"""A set of records as one model sees it: one teacher-forced pass and one greedy generation, each at most once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, UnmeasurableError
from ..protocols import Example, Shadows, Subject
from .classifying import class_names
from .examples import padding
from .generation import end_of, greedy
from .gradient_norms import gradient_norms
from .teacher_forcing import GroupScores, answer_scores


@dataclass(frozen=True, kw_only=True, eq=False)
class Compared:
    """A set of records, and what the evaluation was given to compare it with."""

    tokenizer: Any
    examples: Sequence[Example]
    answers: Sequence[str]
    """Per record, the true answer."""
    paraphrased: Sequence[Example | None] = ()
    """Per record, the same prompt with the true answer in other words; None where the data have none. Empty: no record has one."""
    wrong: Sequence[Sequence[Example]] = ()
    """Per record, the same prompt with wrong answers. Empty: no record has one."""
    reference: Subject | None = None
    """The same records as a model sees them that was never trained on them."""
    prefix: tuple[int, ...] = ()
    """Tokens of records that were never trained on, put before each record by `prefixed_log_probs`."""
    known_shadows: Shadows | None = None
    """What shadow models say of the same records."""
    batch_tokens: int = 16384
    """Most padded tokens in one forward pass."""
    max_new_tokens: int = 48
    """Longest greedy answer, tokens."""

    def __post_init__(self) -> None:
        found = {"answers": len(self.answers), "paraphrased": len(self.paraphrased), "wrong": len(self.wrong)}
        misfits = [f"{count} {name}" for name, count in found.items() if count != len(self.examples) and (count or name == "answers")]
        if misfits:
            raise DataError(f"a set to be scored: found {len(self.examples)} records and {', '.join(misfits)}, expected one of each a record")

    @property
    def reference_log_probs(self) -> Sequence[NDArray[np.float64]]:
        """`token_log_probs` of a reference model, which never saw the records.

        Raises:
            UnmeasurableError: there is no reference model, or it was asked about another set.
        """
        if self.reference is None:
            raise UnmeasurableError("reference_log_probs: no reference model was given; name a model that was never trained on these records")
        found = self.reference.token_log_probs
        _require_alike(len(found), len(self.examples), "reference_log_probs", "records")
        return found

    @property
    def shadows(self) -> Shadows:
        """What shadow models say of the same records.

        Raises:
            UnmeasurableError: there are no shadow models, or they were asked about another set.
        """
        if self.known_shadows is None:
            raise UnmeasurableError("shadows: no shadow models were given; train some on random halves of the records and let them forget those")
        _require_alike(self.known_shadows.confidences.shape[1], len(self.examples), "shadows", "records")
        return self.known_shadows


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoredSubject(Compared):
    """A `protocols.Subject` backed by a Hugging Face causal language model or sequence classifier; work is done on first use.

    One pass scores the true answer, the one in other words and the wrong ones, with everything that is said of their tokens: the mean and variance
    over the vocabulary come from the same logits (what that costs: docs/benchmarks.md).
    """

    model: Any

    @property
    def token_log_probs(self) -> Sequence[NDArray[np.float64]]:
        """Per record, the log-probability of each answer token including the end token, nats."""
        return self._log_probs

    @property
    def token_hits(self) -> Sequence[NDArray[np.bool_]]:
        """Per record and answer token, whether the most likely token is the true one given the true prefix."""
        return self._hits

    @property
    def token_moments(self) -> Sequence[NDArray[np.float64]]:
        """Per record (answer tokens, 2): mean and variance of log p over the vocabulary at that place; nats."""
        return self._moments

    @cached_property
    def paraphrased_log_probs(self) -> Sequence[NDArray[np.float64]]:
        """Per record, the log-probability of each token of the true answer in other words; empty where the data have none."""
        other = self.paraphrased or [None] * len(self.examples)
        return [np.empty(0) if reworded is None else scores.others[0] for reworded, scores in zip(other, self._scores, strict=True)]

    @cached_property
    def wrong_log_probs(self) -> Sequence[Sequence[NDArray[np.float64]]]:
        """Per record and wrong answer, the log-probability of each token; empty where the data have none."""
        counts = [len(answers) for answers in self.wrong] or [0] * len(self.examples)
        return [scores.others[len(scores.others) - count :] for count, scores in zip(counts, self._scores, strict=True)]

    @cached_property
    def gradient_norms(self) -> NDArray[np.float64]:
        """(records,) L2 norm of the whole gradient of the mean answer-token loss, in eval mode."""
        return gradient_norms(self.model, self.examples, padding(self.tokenizer))

    @cached_property
    def prefixed_log_probs(self) -> Sequence[NDArray[np.float64]]:
        """`token_log_probs` behind a prefix of records that were never trained on.

        Raises:
            UnmeasurableError: there is no prefix, or a record behind it is longer than the model takes.
        """
        if not self.prefix:
            raise UnmeasurableError("prefixed_log_probs: no prefix was given; name records that were never trained on")
        behind = [replace(each, tokens=self.prefix + each.tokens, prompt_length=len(self.prefix) + each.prompt_length) for each in self.examples]
        limit = getattr(self.model.config, "max_position_embeddings", None)
        longest = max((len(example.tokens) for example in behind), default=0)
        if limit is not None and longest > limit:
            raise UnmeasurableError(
                f"prefixed_log_probs: behind a prefix of {len(self.prefix)} tokens the longest record has {longest}, the model takes {limit}; "
                f"give a prefix of at most {limit - longest + len(self.prefix)} tokens"
            )
        return [scores.log_probs for scores in self._asked([[example] for example in behind])]

    @cached_property
    def generations(self) -> Sequence[str]:
        """Per record, the greedy answer to its prompt, without special tokens and outer spaces; of a classifier the name of the class.

        Raises:
            UnmeasurableError: the model cannot write answers.
            DivergedError: what it says is not a number.
        """
        if any(example.label is not None for example in self.examples):
            return class_names(self.model, self.examples, self.batch_tokens, padding(self.tokenizer))
        prompts = [example.tokens[: example.prompt_length] for example in self.examples]
        end = end_of(self.tokenizer)
        answers = greedy(self.model, prompts, end=end, max_new_tokens=self.max_new_tokens, batch_tokens=self.batch_tokens)
        return [self.tokenizer.decode(answer, skip_special_tokens=True).strip() for answer in answers]

    @cached_property
    def _log_probs(self) -> list[NDArray[np.float64]]:
        return [scores.log_probs for scores in self._scores]

    @cached_property
    def _hits(self) -> list[NDArray[np.bool_]]:
        return [scores.hits for scores in self._scores]

    @cached_property
    def _moments(self) -> list[NDArray[np.float64]]:
        return [scores.moments for scores in self._scores]

    @cached_property
    def _scores(self) -> list[GroupScores]:
        """Per record its own answer, the one in other words if there is one, and the wrong ones."""
        reworded = self.paraphrased or [None] * len(self.examples)
        wrong = self.wrong or [()] * len(self.examples)
        groups = zip(self.examples, reworded, wrong, strict=True)
        return self._asked([[own, *([] if other is None else [other]), *more] for own, other, more in groups])

    def _asked(self, groups: list[list[Example]]) -> list[GroupScores]:
        return answer_scores(self.model, groups, self.batch_tokens, padding(self.tokenizer))


def _require_alike(found: int, expected: int, where: str, what: str) -> None:
    if found != expected:
        raise UnmeasurableError(f"{where}: found {found} {what}, expected the {expected} of this set; ask about the same records in the same order")
