"""Texts of a user's files that say nearly the same: they belong into one cluster, or one would be tested on its twin.

Runs of 5 words are compared as sets (Jaccard, estimated by MinHash: `sources/minhash.py`). The audit refuses test rows
that resemble training rows by 0.7 in the model's tokens (`plan/audit/overlap.py`); here, in words, 0.55 counts already,
so that neither the other unit nor the error of the estimate lets a pair through. `onPreReceive` is three words: as one
it would be all new where a name changes in one part, and the model's tokens see that the rest is the same.

What many texts share is either a form, such as an instruction that stands in every prompt, and tells nothing about a
pair; or a family: copies that differ in a word, questions about one article. Jaccard cannot tell them: a changed word
costs two texts of 40 words 5 runs each, as much as 5 words of their own behind an instruction. How many texts share it,
and how many words are left, can:

- a form stands in a quarter of the texts or more. Clusters as large would be four at most, too few for three splits: so
  what shares a form only stays apart, however few words follow it. So does what would be a family as large, by a chain
  of texts that overlap, such as windows of one text: the audit tells of those.
- a text is of a family if four fifths of its words, those of forms not counted, stand in runs that more than 10 texts
  have. A changed word leaves 39 of 40, a question about an article of 100 words nine tenths, an instruction of
  60 words before 20 words of one's own three quarters. Texts of families belong together if they share half of those
  runs. A long instruction before a few words, in less than a quarter of the texts, looks as an article does: those are
  joined too, for a test row too few does less harm than one that was trained on.
- all other texts are compared by what few of them share.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from finetrial.tasks.sources.minhash import SHINGLE_TOKENS, Hashes, runs_of, signatures, similar_pairs
from finetrial.tasks.splits import UnionFind

RESEMBLANCE = 0.55
COMMON_SHARE = 0.1  # a run in more than this share of the texts belongs to no pair in particular, ...
COMMON_TEXTS = (10, 100)  # ... but never one in so few of them, and always one in more than so many
FORM_SHARE = 0.25  # a run in this share of the texts, and in more than the fewest above, is of a form
FAMILY_WORDS = 0.8  # of the words of a text: as many are of its family
FAMILY_RESEMBLANCE = 0.5  # of two such texts, in the runs of their families; exact
FAMILY_CANDIDATES = (0.4, 2)  # which pairs are compared exactly: the estimate, and with how many neighbours in a band
MIN_RUNS = 5  # texts with fewer runs of their own have no twins
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|[0-9]+|[^\sA-Za-z0-9]")  # scripts without spaces: a letter is a word

Places = NDArray[np.int64]
Chosen = NDArray[np.bool_]


def near_duplicates(texts: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs of positions whose texts say nearly the same, found with a probability of 0.98 at a resemblance of 0.7.

    What says nearly the same as a third text is connected with it by such pairs; of a family not every pair is told.
    """
    hashes, rows = runs_of([_words(text) for text in texts])
    held = _texts_with(hashes, rows)
    fewest, most = COMMON_TEXTS
    own = held <= max(fewest, min(most, COMMON_SHARE * len(texts)))
    fewest_of_form = max(fewest + 1, FORM_SHARE * len(texts))
    form = held >= fewest_of_form
    shared = (held > fewest) & ~form
    of_family = shared & _is_mostly(shared, form, rows)[rows]
    return sorted({*_twins(hashes[own], rows[own]), *_relatives(hashes[of_family], rows[of_family], fewest_of_form)})


def _words(text: str) -> Hashes:
    return np.fromiter((zlib.crc32(word.encode()) for word in _WORD.findall(text)), np.uint64)


def _texts_with(hashes: Hashes, rows: Places) -> Places:
    """For each run, how many texts have it."""
    values, run = np.unique(hashes, return_inverse=True)
    size = int(rows.max(initial=0)) + 1
    pairs = np.sort(run * size + rows)  # np.unique hashes, and takes ten times as long for millions
    return np.bincount(pairs[np.diff(pairs, prepend=-1) > 0] // size, minlength=len(values))[run]


def _is_mostly(shared: Chosen, form: Chosen, rows: Places) -> Chosen:
    """For each text, whether enough of its words stand in `shared` runs; words in runs of a form do not count."""
    start = np.arange(len(rows)) + (SHINGLE_TOKENS - 1) * (np.cumsum(np.diff(rows, prepend=-1) > 0) - 1)
    row_of = np.repeat(rows, 1 + (SHINGLE_TOKENS - 1) * (np.diff(rows, append=-1) != 0))  # of each word
    in_form, in_shared = (_covered(start[runs], len(row_of)) for runs in (form, shared))
    left, covered = (np.bincount(row_of, words) for words in (~in_form, in_shared & ~in_form))
    return (covered > 0) & (covered >= FAMILY_WORDS * left)


def _covered(start: Places, num_words: int) -> Chosen:
    """For each word, whether it is in one of the runs that start at these."""
    inside = np.zeros(num_words, np.bool_)
    for offset in range(SHINGLE_TOKENS):
        inside[start + offset] = True
    return inside


def _twins(hashes: Hashes, rows: Places) -> Iterator[tuple[int, int]]:
    """Pairs of texts whose runs resemble each other."""
    positions, runs = _sets(hashes, rows)
    if len(runs) > 1:
        for first, second in similar_pairs(signatures(runs), RESEMBLANCE).tolist():
            yield positions[first], positions[second]


def _relatives(hashes: Hashes, rows: Places, fewest_of_form: float) -> list[tuple[int, int]]:
    """Pairs that connect the texts of each family, if it is smaller: none of texts that others connect already."""
    positions, runs = _sets(hashes, rows)
    if len(runs) < 2:
        return []
    joined, pairs = UnionFind(len(runs)), list[tuple[int, int]]()
    for first, second in similar_pairs(signatures(runs), *FAMILY_CANDIDATES).tolist():
        if joined.find(first) != joined.find(second) and _jaccard(runs[first], runs[second]) >= FAMILY_RESEMBLANCE:
            joined.union(first, second)
            pairs.append((first, second))
    sizes = Counter(map(joined.find, range(len(runs))))
    return [(positions[first], positions[second]) for first, second in pairs if sizes[joined.find(first)] < fewest_of_form]


def _sets(hashes: Hashes, rows: Places) -> tuple[list[int], list[Hashes]]:
    """The texts with enough of these runs, and the runs of each, once and sorted. `rows` are sorted."""
    if not len(rows):
        return [], []
    starts = np.flatnonzero(np.diff(rows, prepend=-1))
    sets = {int(row): np.unique(runs) for row, runs in zip(rows[starts], np.split(hashes, starts[1:]), strict=True)}
    kept = [row for row, runs in sets.items() if len(runs) >= MIN_RUNS]
    return kept, [sets[row] for row in kept]


def _jaccard(first: Hashes, second: Hashes) -> float:
    both = len(np.intersect1d(first, second, assume_unique=True))
    return both / (len(first) + len(second) - both)
