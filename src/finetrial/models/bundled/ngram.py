"""An interpolated modified Kneser-Ney 5-gram model: what a bundled base must beat on unseen text.

Chen and Goodman 1999, "An empirical study of smoothing techniques for language modeling", eq. 17 and 26. For a context
h of n-1 tokens, h' being h without its oldest token:

    p_n(w | h) = max(c(hw) - D(c(hw)), 0) / c(h.) + gamma(h) p_{n-1}(w | h')
    gamma(h)   = (D_1 N_1(h.) + D_2 N_2(h.) + D_3 N_3+(h.)) / c(h.)

c is a count of occurrences for the highest order and a count of distinct left neighbours below it; D_1, D_2, D_3 come
from the counts of counts of each order; below the unigram stands the uniform distribution. The training text is read
as a ring, so that every n-gram has a left and a right neighbour and no edge needs a rule of its own. An unseen context
hands its whole mass to the shorter one.

Every order is a sorted array of keys (index of the first n-1 tokens in the order below) * V + last token. Training on
26M tokens takes 45 CPU seconds and 2.4 GB; the model takes 0.4 GB.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

ORDER = 5
FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)  # where counts of counts are too few to estimate them, as KenLM does

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class _Level:
    """Order n >= 2. `keys` [types], sorted; `share` [types]: discounted probabilities; `backoff` [contexts]: gamma."""

    keys: Ints
    share: NDArray[np.float32]
    backoff: NDArray[np.float32]


@dataclass(frozen=True)
class NgramModel:
    """`unigram` [V] sums to 1; `levels[n - 2]` is order n."""

    vocabulary_size: int
    unigram: Floats
    levels: tuple[_Level, ...]


def train(ids: NDArray[Any], *, vocabulary_size: int | None = None, order: int = ORDER) -> NgramModel:
    """Count and smooth. `ids` [T] are token ids below `vocabulary_size` (the largest id + 1 if not given)."""
    tokens = np.asarray(ids, dtype=np.int64)
    if len(tokens) < order or tokens.min() < 0:
        raise ValueError(f"needs at least {order} token ids, none of them negative; got {len(tokens)}")
    size = int(tokens.max()) + 1 if vocabulary_size is None else vocabulary_size
    if tokens.max() >= size:
        raise ValueError(f"token id {tokens.max()} is outside the vocabulary of {size}")
    all_keys: list[Ints] = [np.arange(size, dtype=np.int64)]
    suffix_types: list[NDArray[np.int32]] = []  # of each type, the type without its oldest token, one order below
    here = tokens.astype(np.int32)  # [T] type of the n-gram that ends at each position
    occurrences: Ints = np.zeros(0, dtype=np.int64)
    for _ in range(2, order + 1):
        full = np.roll(here, 1).astype(np.int64) * size + tokens
        keys, longer, occurrences = np.unique(full, return_inverse=True, return_counts=True)
        suffix = np.empty(len(keys), dtype=np.int32)
        suffix[longer] = here
        all_keys.append(keys)
        suffix_types.append(suffix)
        here = longer.astype(np.int32)
    counts = [np.bincount(suffix, minlength=len(keys)) for suffix, keys in zip(suffix_types, all_keys, strict=False)]
    counts.append(occurrences)
    levels = tuple(_smooth(all_keys[n - 1], counts[n - 1], size, len(all_keys[n - 2])) for n in range(2, order + 1))
    return NgramModel(size, _unigram(counts[0]), levels)


def probabilities(model: NgramModel, ids: NDArray[Any]) -> Floats:
    """p of each token given up to order - 1 tokens before it in `ids`; the first has no context. [T]"""
    tokens = np.asarray(ids, dtype=np.int64)
    if len(tokens) and not 0 <= tokens.min() <= tokens.max() < model.vocabulary_size:
        raise ValueError(f"token ids must lie in 0..{model.vocabulary_size - 1}")
    result = model.unigram[tokens]
    here = tokens  # type of the n-gram that ends at each position, -1 if it was never seen
    for level in model.levels:
        context = np.concatenate([np.full(min(1, len(tokens)), -1), here[:-1]])
        wanted = context * model.vocabulary_size + tokens
        place = np.minimum(np.searchsorted(level.keys, wanted), len(level.keys) - 1)
        found = (context >= 0) & (level.keys[place] == wanted)
        interpolated = level.backoff[context] * result + np.where(found, level.share[place], 0.0)
        result = np.where(context >= 0, interpolated, result)
        here = np.where(found, place, -1)
    return result


def bits(model: NgramModel, ids: NDArray[Any]) -> Floats:
    """-log2 p of each token. [T]"""
    return -np.log2(probabilities(model, ids))


def discounts(counts: Ints) -> Floats:
    """D for counts of 0, 1, 2 and 3 or more, from the counts of counts (Chen and Goodman, eq. 26). [4]"""
    n1, n2, n3, n4 = (int((counts == number).sum()) for number in (1, 2, 3, 4))
    if min(n1, n2, n3, n4) > 0:
        share = n1 / (n1 + 2 * n2)
        estimated = (1 - 2 * share * n2 / n1, 2 - 3 * share * n3 / n2, 3 - 4 * share * n4 / n3)
        if all(0 <= value <= index for index, value in enumerate(estimated, start=1)):
            return np.asarray([0.0, *estimated])
    return np.asarray([0.0, *FALLBACK_DISCOUNTS])


def _smooth(keys: Ints, counts: Ints, size: int, num_contexts: int) -> _Level:
    context = keys // size
    removed = discounts(counts)[np.minimum(counts, 3)]
    total = np.bincount(context, weights=counts, minlength=num_contexts)
    backoff = np.bincount(context, weights=removed, minlength=num_contexts) / np.maximum(total, 1)
    backoff[total == 0] = 1.0  # a word of the vocabulary that the text does not have
    return _Level(keys, ((counts - removed) / total[context]).astype(np.float32), backoff.astype(np.float32))


def _unigram(counts: Ints) -> Floats:
    removed = discounts(counts)[np.minimum(counts, 3)]
    smoothed: Floats = (counts - removed + removed.sum() / len(counts)) / counts.sum()
    return smoothed
