"""Beam search: the answer with the highest probability among those that are followed side by side.

Of one prompt `num_beams` answers are in flight. Every step their continuations are ranked together, by the sum of log-probabilities;
those that end are kept, ranked by that sum over length ** `length_penalty`, and the best others go on. So `transformers` does it,
whose names these are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from finetrial.errors import UserError

MOST_PENALTY = 10  # either way: published ones lie between 0 and 2


@dataclass(frozen=True)
class Beams:
    """How many answers are followed, and which of those that ended is the best.

    `length_penalty` above 0 favours long answers, below 0 short ones. Once `num_beams` answers have ended, the search is over when
    none in flight has a higher score, at its length of now, than the worst of them; with `early_stopping` at once.
    """

    num_beams: int
    length_penalty: float = 1.0
    early_stopping: bool = False

    def __post_init__(self) -> None:
        if self.num_beams < 1:
            raise UserError(f"num_beams is {self.num_beams}; expected at least 1", "1 follows the most likely token each time")
        if not abs(self.length_penalty) <= MOST_PENALTY:
            raise UserError(f"length_penalty is {self.length_penalty}; expected -{MOST_PENALTY} to {MOST_PENALTY}",
                            "1 ranks answers by their mean log-probability, 0 by its sum")


@dataclass(frozen=True)
class Candidate:
    """A continuation: the beam it goes on from, its token, and the log-probability of all of it."""

    score: float
    beam: int
    token: int


@dataclass(frozen=True)
class Hypothesis:
    """An answer that has ended, or is full."""

    score: float
    ids: tuple[int, ...]
    finished: bool  # by an end token


@dataclass(frozen=True)
class Move:
    """Slot `slot` goes on from what `source` holds, from which it differs in the last `num_tokens` tokens."""

    slot: int
    source: int
    num_tokens: int


@dataclass
class BeamSearch:
    """The search for one answer of at most `room` tokens."""

    beams: Beams
    end_tokens: Collection[int]
    room: int
    ids: list[list[int]] = field(init=False)  # of every beam
    scores: list[float] = field(init=False)  # log-probability of every beam
    moves: list[Move] = field(default_factory=list)  # the beams that went on from another one in the last step
    ended: list[Hypothesis] = field(default_factory=list)  # the best, at most `num_beams`, best first
    is_over: bool = False

    def __post_init__(self) -> None:
        count = self.beams.num_beams
        self.ids = [[] for _ in range(count)]
        self.scores = [0.0] + [float("-inf")] * (count - 1)  # all are the prompt: one of them goes on

    @property
    def num_candidates(self) -> int:
        """How many continuations have to be ranked: enough for every beam to go on, however many of them end."""
        return max(2, 1 + len(self.end_tokens)) * self.beams.num_beams

    @property
    def best(self) -> Hypothesis:
        """The answer, once the search is over."""
        return self.ended[0]

    def advance(self, candidates: Iterable[Candidate]) -> None:
        """Every beam by a token: candidates come best first."""
        count, length, going = self.beams.num_beams, len(self.ids[0]) + 1, []
        weight = length ** self.beams.length_penalty
        for rank, candidate in enumerate(candidates):
            finished = candidate.token in self.end_tokens
            if not finished and length < self.room:
                going.append(candidate)
            elif rank < count:
                ids = (*self.ids[candidate.beam], candidate.token)
                self.ended.append(Hypothesis(candidate.score / weight, ids, finished))
        self.ended = sorted(self.ended, key=lambda hypothesis: -hypothesis.score)[:count]
        self._go_on(going[:count])
        full = len(self.ended) == count
        self.is_over = not going or (full and (
            self.beams.early_stopping or self.scores[0] / weight <= self.ended[-1].score))

    def _go_on(self, going: list[Candidate]) -> None:
        before = self.ids
        self.ids = [[*before[candidate.beam], candidate.token] for candidate in going]
        self.scores = [candidate.score for candidate in going]
        self.moves = [Move(beam, candidate.beam, _differing(before[beam], before[candidate.beam]))
                      for beam, candidate in enumerate(going) if beam != candidate.beam]


def _differing(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens two texts of one length have from where they part."""
    return next((len(first) - place for place in range(len(first)) if first[place] != second[place]), 0)
