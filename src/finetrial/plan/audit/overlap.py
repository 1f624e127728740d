"""Rows of one set that are in another, exactly or nearly, by the runs of tokens that they share.

The measure is that of `tasks/sources/minhash.py`, runs of 5 tokens compared as sets (Jaccard), but exact: held-out sets
are small enough for an inverted index. Runs that many held-out rows share (instructions, licence headers, a rhythm of
the text) tell nothing about a single row and are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from finetrial.plan.audit.views import Tokens
from finetrial.tasks.sources.minhash import SHINGLE_TOKENS, THRESHOLD, Hashes, run_hashes

COMMON_SHARE = 0.1  # a run in more than this share of the held-out rows belongs to none in particular, ...
COMMON_ROWS = (2, 10)  # ... but never one in so few of them, and always one in more than so many
MIN_RUNS = 5  # rows with fewer runs of their own are compared exactly only
ALMOST = 1 - 1e-9  # the most that rows can be alike which are not equal
FILTER_SIZE = 1 << 22
PART_RUNS = 1 << 19  # of the training rows looked at together

Places = NDArray[np.int64]


@dataclass(frozen=True)
class Twin:
    """A row of the held-out set, and the row of the other set that is most like it."""

    held_out: int
    other: int
    resemblance: float  # Jaccard over runs of 5 tokens; 1.0 for equal rows

    @property
    def is_exact(self) -> bool:
        """Whether the two rows are equal."""
        return self.resemblance == 1.0


class Index:
    """The rows of one set, ready to be searched for twins of held-out rows."""

    def __init__(self, rows: Sequence[Tokens]) -> None:
        self._rows = rows
        self._hashes, self._row_of = _runs(rows)
        self._equal: dict[bytes, int] = {}
        for row, tokens in enumerate(rows):
            self._equal.setdefault(tokens.tobytes(), row)

    def twins(self, held_out: Sequence[Tokens]) -> list[Twin]:
        """The held-out rows with a twin in this set, in order: equal, or with a resemblance of at least 0.7."""
        found = {row: Twin(row, *near) for row, near in self._near(held_out).items()}
        for row, tokens in enumerate(held_out):
            if (other := self._equal.get(tokens.tobytes())) is not None:
                found[row] = Twin(row, other, 1.0)
        return [found[row] for row in sorted(found)]

    def _near(self, held_out: Sequence[Tokens]) -> dict[int, tuple[int, float]]:
        """The best near-duplicate of each held-out row: candidates share enough runs, and are then compared."""
        hashes, rows = _unique(*_runs(held_out))
        common = _common(hashes, len(held_out))
        telling = ~np.isin(hashes, common, kind="sort")
        hashes, rows = hashes[telling], rows[telling]
        sizes = np.bincount(rows, minlength=len(held_out))
        best: dict[int, tuple[int, float]] = {}
        parts = (self._sharing(hashes, rows, sizes, part) for part in self._parts())
        for other, row, count in chain.from_iterable(parts):
            theirs = np.unique(run_hashes(self._rows[other].astype(np.uint64), SHINGLE_TOKENS))
            num_theirs = len(theirs) - int(np.isin(theirs, common, kind="sort").sum())
            resemblance = count / (sizes[row] + num_theirs - count)
            if resemblance >= THRESHOLD and resemblance > best.get(row, (0, 0.0))[1]:
                best[row] = (other, min(float(resemblance), ALMOST))
        return best

    def _parts(self) -> Iterator[slice]:
        """The runs in parts of bounded size, whole rows each."""
        start = 0
        while start < len(self._row_of):
            last = self._row_of[min(start + PART_RUNS, len(self._row_of)) - 1]
            stop = int(np.searchsorted(self._row_of, last, side="right"))
            yield slice(start, stop)
            start = stop

    def _sharing(self, hashes: Hashes, rows: Places, sizes: Places, part: slice) -> list[tuple[int, int, int]]:
        """(row of this set, held-out row, how many runs they share), where these are enough. `hashes` are sorted."""
        seen = np.zeros(FILTER_SIZE, np.bool_)
        seen[hashes % FILTER_SIZE] = True
        maybe = seen[self._hashes[part] % FILTER_SIZE]
        own_hashes, own_rows = _unique(self._hashes[part][maybe], self._row_of[part][maybe])
        start, stop = (np.searchsorted(hashes, own_hashes, side="left"), np.searchsorted(hashes, own_hashes, side="right"))
        lengths = stop - start
        first = np.cumsum(lengths) - lengths
        places = np.repeat(start - first, lengths) + np.arange(int(lengths.sum()))
        pairs, counts = np.unique(np.repeat(own_rows, lengths) * len(sizes) + rows[places], return_counts=True)
        own, held_out = pairs // len(sizes), pairs % len(sizes)
        enough = (sizes[held_out] >= MIN_RUNS) & (counts >= THRESHOLD * sizes[held_out])
        return list(zip(own[enough].tolist(), held_out[enough].tolist(), counts[enough].tolist(), strict=True))


def _runs(rows: Sequence[Tokens]) -> tuple[Hashes, Places]:
    """The hashes of all runs of 5 tokens, and the row of each; rows with fewer tokens have none."""
    long = [row for row, tokens in enumerate(rows) if len(tokens) >= SHINGLE_TOKENS]
    if not long:
        return np.empty(0, np.uint64), np.empty(0, np.int64)
    flat = np.concatenate([rows[row] for row in long]).astype(np.uint64)
    hashes = run_hashes(flat, SHINGLE_TOKENS)
    row_of = np.repeat(np.asarray(long), [len(rows[row]) for row in long])
    inside = row_of[:len(hashes)] == row_of[SHINGLE_TOKENS - 1:]
    return hashes[inside], row_of[:len(hashes)][inside]


def _unique(hashes: Hashes, rows: Places) -> tuple[Hashes, Places]:
    """Each run once for each row, sorted by hash."""
    order = np.lexsort((rows, hashes))
    hashes, rows = hashes[order], rows[order]
    fresh = np.ones(len(hashes), np.bool_)
    fresh[1:] = (hashes[1:] != hashes[:-1]) | (rows[1:] != rows[:-1])
    return hashes[fresh], rows[fresh]


def _common(hashes: Hashes, num_rows: int) -> Hashes:
    """The runs that too many rows have."""
    values, counts = np.unique(hashes, return_counts=True)
    fewest, most = COMMON_ROWS
    return values[counts > max(fewest, min(most, COMMON_SHARE * num_rows))]
