"""Splits: related files stay together, and the hash of a cluster says where it goes.

The unit is the source file. Files that share anything that would let a model recognise one from the other (a
function, a description, a near-duplicate, a passage of equal lines) form one cluster by union-find; SHA-256 of the
cluster's smallest member puts it into a split. Nothing depends on the order of files, or on processes.

Code that copies itself (the model files of one large library) makes a giant component. A cluster with more than
`GIANT_SHARE` of all files goes to `pretrain` as a whole, so that no single family decides what `val` and `test` mean.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable, Mapping, Sequence

from finetrial.tasks.base import Split

CORPUS_SHARES: Mapping[Split, float] = {"pretrain": 0.60, "train": 0.25, "val": 0.05, "test": 0.10}
LOCAL_SHARES: Mapping[Split, float] = {"train": 0.80, "val": 0.10, "test": 0.10}
GIANT_SHARE = 0.01


class UnionFind:
    """Disjoint sets over 0..n-1; the representative of a set is its smallest member."""

    def __init__(self, size: int) -> None:
        self.parent = list(range(size))

    def find(self, item: int) -> int:
        """The smallest member of the item's set."""
        root = item
        while self.parent[root] != root:
            root = self.parent[root]
        while self.parent[item] != root:
            self.parent[item], item = root, self.parent[item]
        return root

    def union(self, first: int, second: int) -> None:
        """Join the sets of two items."""
        first, second = self.find(first), self.find(second)
        self.parent[max(first, second)] = min(first, second)


def cluster_names(names: Sequence[str], marks: Iterable[Iterable[Hashable]],
                  pairs: Iterable[tuple[int, int]] = ()) -> list[str]:
    """For each name its cluster: the smallest name connected with it by shared marks or by `pairs` of positions.

    `names` must be unique; `marks[i]` are what item i shares with others.
    """
    sets = UnionFind(len(names))
    first_with: dict[Hashable, int] = {}
    for position, own in enumerate(marks):
        for mark in own:
            sets.union(position, first_with.setdefault(mark, position))
    for first, second in pairs:
        sets.union(first, second)
    smallest: dict[int, str] = {}
    for position, name in enumerate(names):
        root = sets.find(position)
        smallest[root] = min(name, smallest.get(root, name))
    return [smallest[sets.find(position)] for position in range(len(names))]


def hashed_split(cluster: str, shares: Mapping[Split, float]) -> Split:
    """The split of a cluster: its SHA-256 as a number in [0, 1), compared with the cumulated shares."""
    number = int.from_bytes(hashlib.sha256(f"split/{cluster}".encode()).digest()[:8], "big") / 2**64
    total = 0.0
    for split, share in shares.items():
        total += share
        if number < total:
            return split
    return split


def file_splits(clusters: Sequence[str]) -> dict[str, Split]:
    """The split of each cluster of the embedded corpus; `clusters` has one entry for each file."""
    return cluster_splits(clusters, CORPUS_SHARES, giant="pretrain")


def cluster_splits(clusters: Sequence[str], shares: Mapping[Split, float], giant: Split) -> dict[str, Split]:
    """The split of each cluster; `clusters` has one entry for each file. A giant component goes to `giant`."""
    sizes: dict[str, int] = {}
    for cluster in clusters:
        sizes[cluster] = sizes.get(cluster, 0) + 1
    limit = GIANT_SHARE * len(clusters)
    return {cluster: giant if size > limit else hashed_split(cluster, shares) for cluster, size in sizes.items()}
