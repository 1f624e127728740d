"""MinHash against exact Jaccard similarity."""

from __future__ import annotations

import numpy as np
import pytest

from finetrial.tasks.sources.minhash import NUM_HASHES, run_hashes, signatures, similar_pairs


def _tokens(length: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**32, size=length, dtype=np.uint64)


def _jaccard(first: np.ndarray, second: np.ndarray) -> float:
    a, b = set(first.tolist()), set(second.tolist())
    return len(a & b) / len(a | b)


def test_run_hashes_tell_runs_apart_and_find_equal_ones() -> None:
    tokens = np.asarray([1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5], dtype=np.uint64)
    hashes = run_hashes(tokens, 5)
    assert len(hashes) == 7
    assert hashes[0] == hashes[6]
    assert len(set(hashes.tolist())) == 6
    assert run_hashes(tokens[::-1].copy(), 5)[6] != hashes[0]  # order counts
    assert len(run_hashes(tokens[:2], 5)) == 1
    assert run_hashes(tokens[:2], 5)[0] != run_hashes(tokens[1:3], 5)[0]


@pytest.mark.parametrize("changed", [0, 20, 60, 150])
def test_signatures_estimate_jaccard(changed: int) -> None:
    first = run_hashes(_tokens(400, 1), 5)
    second = np.concatenate([first[:len(first) - changed], run_hashes(_tokens(changed + 4, 2), 5)[:changed]])
    rows = signatures([first, second])
    estimate = float((rows[0] == rows[1]).mean())
    assert estimate == pytest.approx(_jaccard(first, second), abs=3 * 0.5 / np.sqrt(NUM_HASHES))


def test_a_set_has_one_signature_in_any_company_and_order() -> None:
    sets = [run_hashes(_tokens(40 + seed, seed), 5) for seed in range(30)]
    together = signatures(sets)
    for index in (0, 7, 29):
        np.testing.assert_array_equal(signatures([sets[index][::-1].copy()])[0], together[index])


def test_similar_pairs_finds_near_duplicates_only() -> None:
    sets = [run_hashes(_tokens(200, seed), 5) for seed in range(200)]
    copies = [np.concatenate([item[:-10], run_hashes(_tokens(14, 1_000 + place), 5)])
              for place, item in enumerate(sets[:50])]  # similarity about 0.9
    pairs = {tuple(pair) for pair in similar_pairs(signatures(sets + copies)).tolist()}
    assert pairs == {(place, 200 + place) for place in range(50)}


def test_a_crowd_of_copies_is_connected() -> None:
    item = run_hashes(_tokens(100, 3), 5)
    pairs = similar_pairs(signatures([item] * 100)).tolist()
    reached = {0}
    for _ in range(100):
        reached |= {j for i, j in pairs if i in reached} | {i for i, j in pairs if j in reached}
    assert reached == set(range(100))
