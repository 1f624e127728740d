"""Rows of one set that are in another, exactly or nearly, by the runs of tokens that they share.

The measure is that of `tasks/sources/minhash.py`, runs of 5 tokens compared as sets (Jaccard), but exact: held-out sets
are small enough for an inverted index. Runs that many held-out rows share (instructions, licence headers, a rhythm of
the text) tell nothing about a single row and are left out. A large family of near-duplicates, such as copies that
differ in a word, shares nearly all of its runs: so rows are compared once more with those runs, without those of forms
only, which stand in most of the held-out rows or in many of the other set's. What a task of local files takes for a
form and leaves apart (`tasks/near_duplicates.py`: in a quarter of its texts), counts as one here, from a fifth on, and
as no row's own even where few held-out rows have it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import scipy  # its parts are imported where they are first used
from numpy.typing import NDArray

from finetrial.plan.audit.views import Tokens
from finetrial.tasks.sources.minhash import THRESHOLD, Hashes, runs_of

COMMON_SHARE = 0.1  # a run in more than this share of the held-out rows belongs to none in particular, ...
COMMON_ROWS = (2, 10)  # ... but never one in so few of them, and always one in more than so many
MIN_RUNS = 5  # rows with fewer runs of their own are compared exactly only
ALMOST = 1 - 1e-9  # the most that rows can be alike which are not equal
FORM_SHARES = (0.5, 0.2)  # a run in more than these shares of the held-out rows, or of the others, is of a form, ...
FORM_ROWS = 5  # ... but never one in so few of the others
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
        self._hashes, self._row_of = runs_of(rows)
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
        hashes, rows = _unique(*runs_of(held_out))
        of_many, common = self._of_many(hashes), _common(hashes, len(held_out))
        best = self._best(hashes, rows, len(held_out), np.union1d(common, of_many))
        form = np.union1d(common[_rows_with(common, hashes) > FORM_SHARES[0] * len(held_out)], of_many)
        if not np.isin(common, form).all():
            for row, near in self._best(hashes, rows, len(held_out), form).items():
                best[row] = max(best.get(row, near), near, key=lambda found: found[1])
        return best

    def _best(self, hashes: Hashes, rows: Places, num_rows: int, left_out: Hashes) -> dict[int, tuple[int, float]]:
        """For each held-out row the row that is most like it, where one is enough, without the runs that are left out."""
        telling = ~np.isin(hashes, left_out, kind="sort")
        hashes, rows = hashes[telling], rows[telling]
        sizes = np.bincount(rows, minlength=num_rows)
        best: dict[int, tuple[int, float]] = {}
        for part in self._parts():
            for other, row, resemblance in self._alike(hashes, rows, sizes, part, left_out):
                if resemblance > best.get(row, (0, 0.0))[1]:
                    best[row] = (other, min(resemblance, ALMOST))
        return best

    def _of_many(self, hashes: Hashes) -> Hashes:
        """Those of some runs that many rows of this set have, however few held-out rows have them."""
        here = np.isin(self._hashes, hashes)
        found, num_here = np.unique(_unique(self._hashes[here], self._row_of[here])[0], return_counts=True)
        return found[num_here > max(FORM_ROWS, FORM_SHARES[1] * len(self._rows))]

    def _parts(self) -> Iterator[slice]:
        """The runs in parts of bounded size, whole rows each."""
        start = 0
        while start < len(self._row_of):
            last = self._row_of[min(start + PART_RUNS, len(self._row_of)) - 1]
            stop = int(np.searchsorted(self._row_of, last, side="right"))
            yield slice(start, stop)
            start = stop

    def _alike(self, hashes: Hashes, rows: Places, sizes: Places, part: slice,
               left_out: Hashes) -> Iterator[tuple[int, int, float]]:
        """(row of this set, held-out row, resemblance), where it is enough. `hashes` are sorted."""
        seen = np.zeros(FILTER_SIZE, np.bool_)
        seen[hashes % FILTER_SIZE] = True
        maybe = seen[self._hashes[part] % FILTER_SIZE]
        own_hashes, own_rows = _unique(self._hashes[part][maybe], self._row_of[part][maybe])
        runs, run = np.unique(np.concatenate([hashes, own_hashes]), return_inverse=True)
        others, other = np.unique(own_rows, return_inverse=True)
        ours = _incidence(rows, run[:len(hashes)], (len(sizes), len(runs)))
        shared = (_incidence(other, run[len(hashes):], (len(others), len(runs))) @ ours.T).tocoo()
        enough = (sizes >= MIN_RUNS)[shared.coords[1]] & (shared.data >= THRESHOLD * sizes[shared.coords[1]])
        own, held_out, count = others[shared.coords[0][enough]], shared.coords[1][enough], shared.data[enough]
        resemblance = count / (sizes[held_out] + self._sizes(own, part, left_out) - count)
        enough = resemblance >= THRESHOLD
        yield from zip(own[enough].tolist(), held_out[enough].tolist(), resemblance[enough].tolist(), strict=True)

    def _sizes(self, rows: Places, part: slice, left_out: Hashes) -> Places:
        """How many different runs these rows have, without those that are left out. Their runs are in `part`."""
        wanted = np.zeros(len(self._rows), np.bool_)
        wanted[rows] = True
        here = wanted[self._row_of[part]]
        hashes, row_of = _unique(self._hashes[part][here], self._row_of[part][here])
        return np.bincount(row_of[~np.isin(hashes, left_out, kind="sort")], minlength=len(self._rows))[rows]


def _incidence(rows: Places, runs: Places, shape: tuple[int, int]) -> scipy.sparse.csr_array:
    """1 where a row has a run. [R, N]"""
    return scipy.sparse.csr_array((np.ones(len(rows), np.int32), (rows, runs)), shape)


def _unique(hashes: Hashes, rows: Places) -> tuple[Hashes, Places]:
    """Each run once for each row, sorted by hash."""
    order = np.lexsort((rows, hashes))
    hashes, rows = hashes[order], rows[order]
    fresh = np.ones(len(hashes), np.bool_)
    fresh[1:] = (hashes[1:] != hashes[:-1]) | (rows[1:] != rows[:-1])
    return hashes[fresh], rows[fresh]


def _rows_with(runs: Hashes, hashes: Hashes) -> Places:
    """How many rows have each of some runs. `hashes`: each once for each row, sorted."""
    return np.searchsorted(hashes, runs, side="right") - np.searchsorted(hashes, runs, side="left")


def _common(hashes: Hashes, num_rows: int) -> Hashes:
    """The runs that too many rows have."""
    values, counts = np.unique(hashes, return_counts=True)
    fewest, most = COMMON_ROWS
    return values[counts > max(fewest, min(most, COMMON_SHARE * num_rows))]
