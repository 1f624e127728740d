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
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from finetrial.records.table import Floats, Items, ItemScores


@dataclass(frozen=True)
class Shared:
    """The items that all of some cells have: their order, the cluster of each, and how many had to be left out."""

    ids: tuple[str, ...]
    clusters: tuple[str, ...]
    num_missing: int  # items that some cell has and another lacks, or that one has no score for

    @cached_property
    def num_clusters(self) -> int:
        """Distinct clusters."""
        return len(set(self.clusters))

    @cached_property
    def cluster_index(self) -> NDArray[np.intp]:
        """The cluster of each item, as a position in the sorted clusters, [n]."""
        names = sorted(set(self.clusters))
        position = {name: at for at, name in enumerate(names)}
        return np.array([position[name] for name in self.clusters], dtype=np.intp)


def shared_items(cells: Sequence[ItemScores]) -> Shared:
    """The items with a score in every cell, in the order of the first cell."""
    first = cells[0].items
    if all(cell.items is first or cell.items == first for cell in cells):
        scored = np.logical_and.reduce([_scored(cell) for cell in cells])
        keep = np.flatnonzero(scored)
        return Shared(tuple(first.ids[at] for at in keep), tuple(first.clusters[at] for at in keep),
                      len(first) - len(keep))
    present = [{cell.items.ids[at] for at in np.flatnonzero(_scored(cell))} for cell in cells]
    common = set.intersection(*present)
    every = {name for cell in cells for name in cell.items.ids}
    kept = [(name, cluster) for name, cluster in zip(first.ids, first.clusters, strict=True) if name in common]
    return Shared(tuple(name for name, _ in kept), tuple(cluster for _, cluster in kept), len(every) - len(kept))


def cluster_statistics(scores: ItemScores, shared: Shared | None = None) -> Floats:
    """Statistics summed over each cluster's items, [I, k], clusters in sorted order.

    `shared` restricts and orders the items; without it, all items that have a score are used.
    """
    assert scores.statistics is not None
    shared = shared or shared_items([scores])
    rows = scores.statistics[_positions(scores.items, shared)]  # [n, k]
    sums = np.zeros((shared.num_clusters, rows.shape[1]))
    np.add.at(sums, shared.cluster_index, rows)
    return sums


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


def _scored(scores: ItemScores) -> NDArray[np.bool_]:
    assert scores.statistics is not None
    return np.asarray(np.isfinite(scores.statistics).all(axis=-1), dtype=np.bool_)


def _positions(items: Items, shared: Shared) -> NDArray[np.intp]:
    if items.ids == shared.ids:
        return np.arange(len(shared.ids))
    where = {name: at for at, name in enumerate(items.ids)}
    return np.array([where[name] for name in shared.ids], dtype=np.intp)
