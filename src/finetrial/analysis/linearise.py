"""From item statistics to values per cluster that average to the metric: one way for means, ratios and corpus metrics.

A metric is a function of summed statistics. Its leave-one-cluster-out values give the jackknife's pseudo-values
(Tukey 1958; Miller 1974, Biometrika 61(1); Efron & Tibshirani 1993, "An Introduction to the Bootstrap", ch. 11), one
per cluster, whose sample variance over I estimates the variance of the metric. For a mean they are the cluster's share
of it; for a ratio they agree with the delta method to first order. They are shifted so that their mean is the metric
itself, not its bias-corrected version.

Arms are compared on the items that every cell of the comparison has; what had to be left out is counted.

Shapes: S cells (seeds), n items, I clusters, k statistics.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finetrial.records.table import Floats, Items, ItemScores


@dataclass(frozen=True)
class Shared:
    """The items that all of some cells have, and how many had to be left out."""

    items: Items
    num_missing: int  # items that some cell has and another lacks, or that one has no score for

    @property
    def num_clusters(self) -> int:
        """Distinct clusters."""
        return len(self.items.cluster_names)


class Linearised:
    """Values per cluster of every cell, made once: cells, items and metrics are told apart by identity."""

    def __init__(self) -> None:
        self._scored: dict[int, NDArray[np.bool_]] = {}
        self._values: dict[int, Floats] = {}

    def shared(self, cells: Sequence[ItemScores]) -> Shared:
        """The items with a score in every cell, in the order of the first cell."""
        first = cells[0].items
        if not all(cell.items is first or cell.items == first for cell in cells):
            return shared_items(cells)
        scored = np.logical_and.reduce([self._has_score(cell) for cell in cells])
        return Shared(first, 0) if scored.all() else _kept(first, scored)

    def values(self, cell: ItemScores, shared: Shared, aggregate: Callable[[Floats], Floats]) -> Floats:
        """`linearised` of one cell over the shared items, [I]."""
        if shared.num_missing or cell.items is not shared.items:
            return _of_one(cell, shared, aggregate)
        if id(cell) not in self._values:
            self._values[id(cell)] = _of_one(cell, shared, aggregate)
        return self._values[id(cell)]

    def _has_score(self, cell: ItemScores) -> NDArray[np.bool_]:
        if id(cell) not in self._scored:
            self._scored[id(cell)] = _scored(cell)
        return self._scored[id(cell)]


def shared_items(cells: Sequence[ItemScores]) -> Shared:
    """The items with a score in every cell, in the order of the first cell."""
    first = cells[0].items
    present = [{cell.items.ids[at] for at in np.flatnonzero(_scored(cell))} for cell in cells]
    common = set.intersection(*present)
    every = {name for cell in cells for name in cell.items.ids}
    found = _kept(first, np.array([name in common for name in first.ids], dtype=np.bool_))
    return Shared(found.items, len(every) - len(found.items))


def cluster_statistics(scores: ItemScores, shared: Shared | None = None) -> Floats:
    """Statistics summed over each cluster's items, [I, k], clusters in sorted order.

    `shared` restricts and orders the items; without it, all items that have a score are used.
    """
    assert scores.statistics is not None
    shared = shared or shared_items([scores])
    rows = scores.statistics[_positions(scores.items, shared.items)]  # [n, k]
    index = shared.items.cluster_index
    sums = [np.bincount(index, weights=column, minlength=shared.num_clusters) for column in rows.T]
    return np.stack(sums, axis=-1)


def linearised(statistics: Floats, aggregate: Callable[[Floats], Floats]) -> Floats:
    """Values per cluster whose mean is the metric: cluster statistics [S, I, k] -> z [S, I].

    With t = aggregate(all) and t[-i] = aggregate(all but cluster i), z[i] = t + (I - 1) (mean(t[-.]) - t[-i]).
    """
    total = statistics.sum(axis=-2, keepdims=True)  # [S, 1, k]
    value = aggregate(total)  # [S, 1]
    num_clusters = statistics.shape[-2]
    if num_clusters == 1:
        return value
    left_out = aggregate(total - statistics)  # [S, I]
    values: Floats = value + (num_clusters - 1) * (left_out.mean(axis=-1, keepdims=True) - left_out)
    return values


def _of_one(cell: ItemScores, shared: Shared, aggregate: Callable[[Floats], Floats]) -> Floats:
    values: Floats = linearised(cluster_statistics(cell, shared)[np.newaxis], aggregate)[0]
    return values


def _scored(scores: ItemScores) -> NDArray[np.bool_]:
    assert scores.statistics is not None
    return np.asarray(np.isfinite(scores.statistics).all(axis=-1), dtype=np.bool_)


def _kept(items: Items, keep: NDArray[np.bool_]) -> Shared:
    places = np.flatnonzero(keep)
    kept = Items(tuple(items.ids[at] for at in places), tuple(items.clusters[at] for at in places))
    return Shared(kept, len(items) - len(kept))


def _positions(items: Items, wanted: Items) -> NDArray[np.intp] | slice:
    if items is wanted or items.ids == wanted.ids:
        return slice(None)
    where = {name: at for at, name in enumerate(items.ids)}
    return np.array([where[name] for name in wanted.ids], dtype=np.intp)
