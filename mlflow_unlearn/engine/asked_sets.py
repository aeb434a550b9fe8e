"""The sets of a benchmark as a model sees them: questions with their answers, and running texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import DataError
from ..protocols import Example, Record
from .examples import encode, require_fit
from .scoring import ScoredSubject


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A model and how much it is given at a time."""

    model: Any
    tokenizer: Any
    batch_tokens: int
    """Most padded tokens in one forward pass."""

    def questions(self, records: Sequence[Record], template: str, max_new_tokens: int, where: str) -> ScoredSubject:
        """Records with their other wordings and wrong answers, where they have them.

        Args:
            records: at least their prompts and answers.
            template: text with `{prompt}` in it, or `chat`.
            max_new_tokens: longest greedy answer.
            where: what complaints call the set.

        Raises:
            ConfigError: what `encode` raises about template and tokenizer.
            DataError: a record is longer than the model takes.
        """
        own = self._encoded([(record.prompt, record.answer) for record in records], template)
        reworded = self._encoded([(record.prompt, record.paraphrased_answer) for record in records if record.paraphrased_answer], template)
        wrong = self._encoded([(record.prompt, answer) for record in records for answer in record.wrong_answers], template)
        for examples in (own, reworded, wrong):
            require_fit(self.model, examples, where)
        others, false = iter(reworded), iter(wrong)
        return ScoredSubject(
            model=self.model,
            tokenizer=self.tokenizer,
            examples=own,
            answers=[record.answer for record in records],
            paraphrased=[next(others) if record.paraphrased_answer else None for record in records],
            wrong=[[next(false) for _ in record.wrong_answers] for record in records],
            batch_tokens=self.batch_tokens,
            max_new_tokens=max_new_tokens,
        )

    def texts(self, texts: Sequence[str], longest: int, where: str) -> ScoredSubject:
        """Running texts, each token of which but the first is predicted; no end token is added, since they may have been cut anywhere.

        Args:
            texts: one a record.
            longest: tokens that are looked at; the model's own limit where that is less.
            where: what complaints call the set.

        Raises:
            DataError: a text of fewer than two tokens.
        """
        longest = min(longest, getattr(self.model.config, "max_position_embeddings", None) or longest)
        tokens = [tuple(ids[:longest]) for ids in self.tokenizer(list(texts))["input_ids"]] if texts else []
        short = sum(len(each) < 2 for each in tokens)
        if short:
            raise DataError(f"{where}: {short} of {len(tokens)} texts have fewer than two tokens, so that nothing in them is predicted; drop them")
        examples = [Example(tokens=each, prompt_length=1) for each in tokens]
        require_fit(self.model, examples, where)
        return ScoredSubject(
            model=self.model, tokenizer=self.tokenizer, examples=examples, answers=list(texts), batch_tokens=self.batch_tokens, max_new_tokens=1
        )

    def begun(self, records: Sequence[Record], most: int, where: str) -> ScoredSubject:
        """Texts whose beginning is the prompt, as it is; their true continuation and the model's own are cut after `most` tokens.

        Raises:
            DataError: a beginning and its continuation are longer than the model takes.
        """
        tails = self.tokenizer([record.answer for record in records], add_special_tokens=False)["input_ids"] if records else []
        cut = [self.tokenizer.decode(ids[:most], skip_special_tokens=True) if len(ids) > most else None for ids in tails]
        answers = [record.answer if shorter is None else shorter for record, shorter in zip(records, cut, strict=True)]
        examples = self._encoded([(record.prompt, answer) for record, answer in zip(records, answers, strict=True)], "{prompt}")
        require_fit(self.model, examples, where)
        return ScoredSubject(
            model=self.model, tokenizer=self.tokenizer, examples=examples, answers=answers, batch_tokens=self.batch_tokens, max_new_tokens=most
        )

    def _encoded(self, pairs: Sequence[tuple[str, str | None]], template: str) -> list[Example]:
        return encode(self.tokenizer, template, [prompt for prompt, _ in pairs], [answer or "" for _, answer in pairs])
