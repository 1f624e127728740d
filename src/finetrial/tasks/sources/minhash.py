"""MinHash signatures of token sequences, and the pairs of sequences that are near-duplicates.

Broder 1997 ("On the resemblance and containment of documents"): the share of equal minima under random hash functions
estimates the Jaccard similarity of two shingle sets. Candidates come from banding (Leskovec et al., "Mining of Massive
Datasets", 3.4): 16 bands of 4 rows find a pair of similarity 0.7 with probability 0.99, and 0.8 with 0.9998.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

SHINGLE_TOKENS = 5
NUM_HASHES = 64
NUM_BANDS = 16
THRESHOLD = 0.7
WINDOW = 16  # a member of a crowded band is compared with this many neighbours; chains of neighbours join the rest
_CHUNK_SHINGLES = 1 << 16

Hashes = NDArray[np.uint64]


def _hash_parameters() -> tuple[Hashes, Hashes]:
    generator = np.random.Generator(np.random.PCG64(20_240_501))
    draws = generator.integers(0, 2**63, size=(2, NUM_HASHES), dtype=np.uint64)
    return draws[0] * np.uint64(2) + np.uint64(1), draws[1]  # multiply-shift hashing wants odd multipliers


def run_hashes(tokens: Hashes, width: int) -> Hashes:
    """64-bit hashes of all runs of `width` consecutive tokens; one of all if they are fewer. [T] -> [T - width + 1]"""
    length = max(1, len(tokens) - width + 1)
    total = np.zeros(length, dtype=np.uint64)
    for offset in range(width):
        part = tokens[offset:offset + length]
        total[:len(part)] = total[:len(part)] * np.uint64(0x9E3779B97F4A7C15) + part
    return total ^ (total >> np.uint64(29))


def runs_of(rows: Sequence[NDArray[np.integer]]) -> tuple[Hashes, NDArray[np.int64]]:
    """The hashes of all runs of 5 tokens, in order, and the row of each; rows with fewer tokens have none."""
    long = [row for row, tokens in enumerate(rows) if len(tokens) >= SHINGLE_TOKENS]
    if not long:
        return np.empty(0, np.uint64), np.empty(0, np.int64)
    flat = np.concatenate([rows[row] for row in long]).astype(np.uint64)
    hashes = run_hashes(flat, SHINGLE_TOKENS)
    row_of = np.repeat(np.asarray(long), [len(rows[row]) for row in long])
    inside = row_of[:len(hashes)] == row_of[SHINGLE_TOKENS - 1:]
    return hashes[inside], row_of[:len(hashes)][inside]


def signatures(shingles: list[Hashes]) -> NDArray[np.uint32]:
    """MinHash signatures, one row for each set of shingle hashes (none of them empty). -> [len(shingles), 64]"""
    multipliers, offsets = _hash_parameters()
    rows = np.empty((len(shingles), NUM_HASHES), dtype=np.uint32)
    start = 0
    while start < len(shingles):
        stop, total = start, 0
        while stop < len(shingles) and (stop == start or total + len(shingles[stop]) <= _CHUNK_SHINGLES):
            total += len(shingles[stop])
            stop += 1
        flat = np.concatenate(shingles[start:stop])
        bounds = np.cumsum([0] + [len(item) for item in shingles[start:stop - 1]])
        for column in range(NUM_HASHES):
            hashed = ((flat * multipliers[column] + offsets[column]) >> np.uint64(32)).astype(np.uint32)
            rows[start:stop, column] = np.minimum.reduceat(hashed, bounds)
        start = stop
    return rows


def similar_pairs(rows: NDArray[np.uint32], threshold: float = THRESHOLD, window: int = WINDOW) -> NDArray[np.int64]:
    """Pairs (i, j) whose signatures agree in at least this share of places, found by banding. -> [P, 2], sorted, unique"""
    width = NUM_HASHES // NUM_BANDS
    found = [np.empty((0, 2), dtype=np.int64)]
    for band in range(NUM_BANDS):
        part = rows[:, band * width:(band + 1) * width]
        order = np.lexsort(part.T[::-1])  # stable: equal keys keep their order
        ordered = part[order]
        for step in range(1, min(window, len(rows) - 1) + 1):
            same = np.flatnonzero((ordered[step:] == ordered[:-step]).all(axis=1))
            if not len(same):
                break
            left, right = order[same], order[same + step]
            close = (rows[left] == rows[right]).mean(axis=1) >= threshold
            pairs = np.stack([np.minimum(left, right), np.maximum(left, right)], axis=1)
            found.append(pairs[close])
    return np.unique(np.concatenate(found), axis=0)
