"""Answers in flight, and how their next tokens are chosen: the most likely one, a draw, or a search with beams.

An answer takes one slot of the batch, with beams as many. Shapes: A answers, R slots (A times slots an answer), V vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from finetrial.errors import UserError
from finetrial.generate.beams import Beams, BeamSearch, Candidate, Move
from finetrial.generate.constraints import Constraints
from finetrial.generate.sampling import Sampling, check_numbers


@dataclass(frozen=True)
class Generation:
    """The new tokens of one prompt, the end token included where it was reached."""

    ids: tuple[int, ...]
    finished: bool  # an end token was reached

    @property
    def without_end(self) -> tuple[int, ...]:
        """The tokens before the end token."""
        return self.ids[:-1] if self.finished else self.ids


class Answer(ABC):
    """The answer to prompt `number`, as far as it goes."""

    number: int

    @property
    @abstractmethod
    def tokens(self) -> Sequence[int]:
        """The newest token of each of its slots."""

    @property
    @abstractmethod
    def done(self) -> Generation | None:
        """All of it, once it has ended or is full."""


AnswerT = TypeVar("AnswerT", bound=Answer)


@dataclass(frozen=True)
class Chooser(ABC, Generic[AnswerT]):
    """Chooses for all answers in flight."""

    end_tokens: Collection[int]
    room: int  # the most new tokens
    constraints: Constraints

    @property
    def slots(self) -> int:
        """How many slots an answer takes."""
        return 1

    @abstractmethod
    def begin(self, number: int) -> AnswerT:
        """An answer to prompt `number` without any token."""

    @abstractmethod
    def choose(self, logits: Tensor, answers: Sequence[AnswerT]) -> None:
        """Give each slot its next token, from logits (R, V), which may be changed."""

    def moves(self, answers: Sequence[AnswerT]) -> Sequence[Move]:
        """The slots that go on from another one."""
        return ()


@dataclass
class _Single(Answer):
    number: int
    generator: np.random.Generator | None
    end_tokens: Collection[int]
    room: int
    ids: list[int] = field(default_factory=list)

    @property
    def tokens(self) -> Sequence[int]:
        return self.ids[-1:]

    @property
    def done(self) -> Generation | None:
        finished = self.ids[-1] in self.end_tokens
        return Generation(tuple(self.ids), finished) if finished or len(self.ids) == self.room else None


@dataclass(frozen=True)
class _OneByOne(Chooser[_Single]):
    """The most likely token each time, or a draw from the answer's own stream."""

    names: Sequence[str]  # of the prompts
    sampling: Sampling | None

    def begin(self, number: int) -> _Single:
        stream = None if self.sampling is None else self.sampling.streams.generator(f"sampling/{self.names[number]}")
        return _Single(number, stream, self.end_tokens, self.room)

    def choose(self, logits: Tensor, answers: Sequence[_Single]) -> None:
        self.constraints.forbid(logits, [answer.ids for answer in answers], self.end_tokens)
        if self.sampling is None:
            best, chosen = logits.max(1)
            check_numbers(best)
        else:
            uniforms = [answer.generator.random() for answer in answers if answer.generator is not None]
            exact = logits.cpu() if logits.device.type == "mps" else logits  # which has no float64
            chosen = self.sampling.draw(exact, torch.tensor(uniforms, dtype=torch.float64, device=exact.device))
        for answer, token in zip(answers, chosen.tolist(), strict=True):
            answer.ids.append(token)


@dataclass
class _Searched(Answer):
    number: int
    search: BeamSearch

    @property
    def tokens(self) -> Sequence[int]:
        return [ids[-1] for ids in self.search.ids]

    @property
    def done(self) -> Generation | None:
        if not self.search.is_over:
            return None
        best = self.search.best
        return Generation(best.ids, best.finished)


@dataclass(frozen=True)
class _Searching(Chooser[_Searched]):
    """Beam search."""

    beams: Beams

    @property
    def slots(self) -> int:
        return self.beams.num_beams

    def begin(self, number: int) -> _Searched:
        return _Searched(number, BeamSearch(self.beams, self.end_tokens, self.room))

    def choose(self, logits: Tensor, answers: Sequence[_Searched]) -> None:
        searches = [answer.search for answer in answers]
        scores, vocabulary = logits.log_softmax(1), logits.shape[1]
        self.constraints.forbid(scores, [ids for search in searches for ids in search.ids], self.end_tokens)
        scores += torch.tensor([score for search in searches for score in search.scores], device=scores.device)[:, None]
        together = scores.view(len(answers), self.slots * vocabulary)
        ranked = together.topk(min(searches[0].num_candidates, together.shape[1]))
        check_numbers(ranked.values[:, 0])
        for search, values, places in zip(searches, ranked.values.tolist(), ranked.indices.tolist(), strict=True):
            search.advance([Candidate(value, place // vocabulary, place % vocabulary)
                            for value, place in zip(values, places, strict=True)])

    def moves(self, answers: Sequence[_Searched]) -> Sequence[Move]:
        return [Move(place * self.slots + move.slot, place * self.slots + move.source, move.num_tokens)
                for place, answer in enumerate(answers) if not answer.search.is_over for move in answer.search.moves]


def chooser(end_tokens: Collection[int], room: int, names: Sequence[str], sampling: Sampling | None, beams: Beams | None,
            constraints: Constraints) -> Chooser[Any]:
    """Who chooses. Raises UserError for sampling with beams."""
    if beams is None or beams.num_beams == 1:
        return _OneByOne(end_tokens, room, constraints, names, sampling)
    if sampling is not None:
        raise UserError(f"outputs are sampled, and searched for with {beams.num_beams} beams", "leave out one of the two")
    return _Searching(end_tokens, room, constraints, beams)
