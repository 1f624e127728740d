"""Clusters are closed under everything shared, do not depend on order, and hash into the stated shares."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetrial.tasks.splits import (
    CORPUS_SHARES,
    GIANT_SHARE,
    LOCAL_SHARES,
    UnionFind,
    cluster_names,
    file_splits,
    hashed_split,
)

marked = st.lists(st.sets(st.integers(0, 12), max_size=3), min_size=1, max_size=25)


def _names(count: int) -> list[str]:
    return [f"file{position:02d}.py" for position in range(count)]


@given(marked)
def test_files_that_share_a_mark_are_in_one_cluster(marks: list[set[int]]) -> None:
    clusters = cluster_names(_names(len(marks)), marks)
    for i, own in enumerate(marks):
        for j, other in enumerate(marks):
            if own & other:
                assert clusters[i] == clusters[j]


@given(marked)
def test_clusters_are_no_larger_than_connection_asks(marks: list[set[int]]) -> None:
    """Against reachability by repeated merging, written without union-find."""
    groups: list[tuple[set[int], set[int]]] = []
    for position, own in enumerate(marks):
        touching = [group for group in groups if group[1] & own]
        groups = [group for group in groups if not group[1] & own]
        groups.append(({position}.union(*(group[0] for group in touching)),
                       own.union(*(group[1] for group in touching))))
    names = _names(len(marks))
    expected = {position: min(names[i] for i in group[0]) for group in groups for position in group[0]}
    assert cluster_names(names, marks) == [expected[position] for position in range(len(marks))]


@given(marked, st.randoms(use_true_random=False))
def test_clusters_do_not_depend_on_the_order(marks: list[set[int]], random: object) -> None:
    names = _names(len(marks))
    expected = dict(zip(names, cluster_names(names, marks), strict=True))
    order = list(range(len(marks)))
    random.shuffle(order)  # type: ignore[attr-defined]
    shuffled = cluster_names([names[i] for i in order], [marks[i] for i in order])
    assert dict(zip([names[i] for i in order], shuffled, strict=True)) == expected


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=12))
def test_pairs_join_like_shared_marks(pairs: list[tuple[int, int]]) -> None:
    by_marks = cluster_names(_names(10), [{k for k, pair in enumerate(pairs) if i in pair} for i in range(10)])
    assert cluster_names(_names(10), [()] * 10, pairs) == by_marks


def test_union_find_represents_by_the_smallest() -> None:
    sets = UnionFind(6)
    for pair in ((5, 3), (3, 4), (1, 2)):
        sets.union(*pair)
    assert [sets.find(item) for item in range(6)] == [0, 1, 1, 3, 3, 3]


@pytest.mark.parametrize("shares", [CORPUS_SHARES, LOCAL_SHARES])
def test_hashed_shares(shares: dict[str, float]) -> None:
    assert sum(shares.values()) == pytest.approx(1.0)
    counts = Counter(hashed_split(f"cluster {number}", shares) for number in range(20_000))
    for split, share in shares.items():
        assert counts[split] / 20_000 == pytest.approx(share, abs=0.015)


def test_hashed_split_is_fixed() -> None:
    """A cluster's split must never change: bases were trained by it."""
    names = ["rich/json.py", "sympy/core/add.py", "keras/src/losses/loss.py", "peft/helpers.py"]
    assert [hashed_split(name, CORPUS_SHARES) for name in names] == ["test", "pretrain", "train", "pretrain"]


def test_giant_clusters_go_to_pretrain() -> None:
    clusters = ["giant"] * 30 + [f"small {number}" for number in range(970)]
    assert GIANT_SHARE * len(clusters) < 30
    splits = file_splits(clusters)
    assert splits["giant"] == "pretrain"
    names = [f"giant {number}" for number in range(50)]
    assert {file_splits([name] * 30 + clusters[30:])[name] for name in names} == {"pretrain"}
    assert {file_splits([name] + clusters[1:])[name] for name in names} >= {"pretrain", "train", "test"}
