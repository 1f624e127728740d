"""Texts of a user's files that say nearly the same: they belong into one cluster, or one would be tested on its twin.

Runs of 5 words are compared as sets (Jaccard, estimated by MinHash: `sources/minhash.py`). The audit refuses test rows
that resemble training rows by 0.7 in the model's tokens (`plan/audit/overlap.py`); here, in words, 0.55 counts already,
so that neither the other unit nor the error of the estimate lets a pair through. Runs that many texts share, such as
an instruction that stands in every prompt, tell nothing about a pair and are left out.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

import numpy as np

from finetrial.tasks.sources.minhash import SHINGLE_TOKENS, Hashes, run_hashes, signatures, similar_pairs

RESEMBLANCE = 0.55
COMMON_SHARE = 0.1  # a run in more than this share of the texts belongs to no pair in particular, ...
COMMON_TEXTS = (10, 100)  # ... but never one in so few of them, and always one in more than so many
MIN_RUNS = 5  # texts with fewer runs of their own have no twins
_WORD = re.compile(r"[A-Za-z0-9_]+|[^\sA-Za-z0-9_]")  # scripts without spaces: a letter is a word


def near_duplicates(texts: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs of positions whose texts say nearly the same, found with a probability of 0.98 at a resemblance of 0.7."""
    runs = _own_runs([_runs(text) for text in texts])
    positions = [position for position, own in enumerate(runs) if len(own) >= MIN_RUNS]
    if len(positions) < 2:
        return []
    pairs = similar_pairs(signatures([runs[position] for position in positions]), RESEMBLANCE)
    return [(positions[first], positions[second]) for first, second in pairs.tolist()]


def _runs(text: str) -> Hashes:
    """The hashes of a text's runs of words, each once; of a text with fewer words none."""
    words = np.fromiter((zlib.crc32(word.encode()) for word in _WORD.findall(text)), np.uint64)
    return np.unique(run_hashes(words, SHINGLE_TOKENS)) if len(words) >= SHINGLE_TOKENS else words[:0]


def _own_runs(runs: Sequence[Hashes]) -> list[Hashes]:
    """The runs of each text without those that too many texts have."""
    values, counts = np.unique(np.concatenate([*runs, np.empty(0, np.uint64)]), return_counts=True)
    fewest, most = COMMON_TEXTS
    common = values[counts > max(fewest, min(most, COMMON_SHARE * len(runs)))]
    return [own[~np.isin(own, common)] for own in runs] if len(common) else list(runs)
