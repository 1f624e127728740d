"""Tokens that may not come next, whoever chooses: a draw, a search, or the most likely one.

What counts is the answer alone. An answer may repeat its prompt, which is what a summary or a completion of code is for; where
prompt and answer are one sequence `transformers` forbids that too, with an encoder-decoder it does not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from finetrial.errors import UserError


@dataclass(frozen=True)
class Constraints:
    """No n-gram of `no_repeat_ngram_size` tokens twice in an answer (Paulus et al. 2018, arXiv 1705.04304; 0: any may be),
    and no end before `min_new_tokens`."""

    no_repeat_ngram_size: int = 0
    min_new_tokens: int = 0

    def __post_init__(self) -> None:
        for name in ("no_repeat_ngram_size", "min_new_tokens"):
            if (value := getattr(self, name)) < 0:
                raise UserError(f"{name} is {value}; expected 0 or more", "0 forbids nothing")

    def forbid(self, scores: Tensor, answers: Sequence[Sequence[int]], end_tokens: Collection[int]) -> None:
        """Lower the scores (R, V) of what may not follow `answers`, R of them, to minus infinity, in place."""
        known = [token for token in end_tokens if 0 <= token < scores.shape[1]]  # a model may name ends that it cannot say
        places = [(row, token) for row, answer in enumerate(answers) for token in self._forbidden(answer, known)]
        if places:
            rows, tokens = zip(*places, strict=True)
            scores[list(rows), list(tokens)] = float("-inf")

    def _forbidden(self, answer: Sequence[int], end_tokens: Collection[int]) -> Iterator[int]:
        if len(answer) < self.min_new_tokens:
            yield from end_tokens
        size = self.no_repeat_ngram_size
        if 0 < size <= len(answer):
            last = answer[len(answer) - size + 1:]
            yield from (answer[start + size - 1] for start in range(len(answer) - size + 1)
                        if answer[start:start + size - 1] == last)
