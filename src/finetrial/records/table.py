"""Scores per item, in memory: what the analysis reads.

A metric is a smooth function of summed statistics. Every item contributes a vector (for nats per token: its loss and
its number of tokens), sums are taken over items or clusters, and the metric's `aggregate` maps sums to the value. This
one form serves means, ratios and corpus metrics, and gives every one of them its jackknife.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from finetrial.records.record import Outcome
from finetrial.records.results import Cost, Point, WeightChange

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Metric:
    """What a column of statistics means. `aggregate` maps sums [..., k] to values [...], none of which lies outside
    `least` to `most`."""

    name: str
    version: int
    unit: str
    higher_is_better: bool
    aggregate: Callable[[Floats], Floats]
    least: float = -math.inf
    most: float = math.inf

    @property
    def sign(self) -> float:
        """+1 where higher is better, else -1: signed scores are sign * value."""
        return 1.0 if self.higher_is_better else -1.0

    def value(self, statistics: Floats) -> float | None:
        """Over the items of `statistics`, [n, k], that have one; None where no item has, or the value is not finite."""
        kept = statistics[np.isfinite(statistics).all(axis=-1)]
        value = float(self.aggregate(kept.sum(axis=0))) if len(kept) else np.nan
        return value if np.isfinite(value) else None


@dataclass(frozen=True)
class Items:
    """The items of one task and split, shared by every cell: ids and the cluster of each."""

    ids: tuple[str, ...]
    clusters: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def cluster_names(self) -> tuple[str, ...]:
        """The distinct clusters, sorted."""
        return tuple(sorted(set(self.clusters)))

    @cached_property
    def cluster_index(self) -> NDArray[np.intp]:
        """The cluster of each item, as a position in `cluster_names`, [n]."""
        position = {name: at for at, name in enumerate(self.cluster_names)}
        return np.array([position[name] for name in self.clusters], dtype=np.intp)


@dataclass(frozen=True)
class CellKey:
    """A cell at a point: (base, arm, sequence, seed) with learning rate, rank and number of examples."""

    base: str
    arm: str
    sequence: str
    seed: int | None  # None for the untouched base
    point: Point = Point()


@dataclass(frozen=True)
class ItemScores:
    """The statistics of one cell after one phase on one task, split and metric. Missing items are rows of NaN."""

    cell: CellKey
    phase: int
    task: str
    split: str
    metric: str
    items: Items
    statistics: Floats | None  # [n, k]; None where the outcome is not OK
    routing: str = "latest"
    outcome: Outcome = Outcome.OK
    answer_digest: str | None = None  # of the weights that answered; equal digests gave equal predictions


@dataclass(frozen=True)
class Outputs:
    """What one run wrote for the items of a task after a phase, or a floor says, for people to read. Sequences are in item order [n].

    Inputs and references are the same for every arm; `item_scores` holds each metric's value item by item (NaN =
    missing).
    """

    cell: CellKey
    phase: int
    task: str
    items: Items
    inputs: Sequence[str]
    references: Sequence[str]
    outputs: Sequence[str | None]  # None = nothing was recorded for the item
    item_scores: Mapping[str, Sequence[float]] = field(default_factory=dict)  # metric -> values
    routing: str = "latest"


@dataclass(frozen=True)
class CurvePoint:
    """One evaluation during training."""

    cell: CellKey
    phase: int
    step: int
    task: str
    split: str  # "train" or "val"
    metric: str
    value: float
    n: int


@dataclass(frozen=True)
class Table:
    """Everything a study has recorded, complete or not."""

    scores: Sequence[ItemScores]
    metrics: Mapping[str, Metric]
    curves: Sequence[CurvePoint] = ()
    costs: Sequence[Cost] = ()
    num_stages: int = 0
    num_done: int = 0
    provenance: Mapping[str, object] = field(default_factory=dict)
    outputs: Sequence[Outputs] = ()
    weight_changes: Sequence[WeightChange] = ()
