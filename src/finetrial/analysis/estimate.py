"""The estimator: the mean of paired differences over seeds crossed with item clusters, and its interval.

Model: d[s, i] = mean + a[s] + b[i] + e[s, i], seeds s and clusters i both random and crossed, since every seed is
scored on the same test items. An interval must speak of other seeds and of other items; one that resamples only items,
or rows as if they were independent, is too narrow. With the two-way mean squares of seeds, items and the rest
(Searle, Casella & McCulloch 1992, "Variance Components", ch. 4), E[MS_S] = Ve + I Va, E[MS_I] = Ve + S Vb,
E[MS_E] = Ve, and the variance of the mean is (MS_S + MS_I - MS_E) / (S I). It is taken as the largest of that and of
each single mean square, so that an estimate of a variance below zero never narrows an interval.
Degrees of freedom: Satterthwaite (1946), Biometrics Bulletin 2(6), eq. 17, not below the smaller of S - 1 and I - 1.

Shapes: S seeds, I clusters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import scipy  # its parts are imported where they are first used

from finetrial.records.table import Floats
from finetrial.spec.study import FEWEST_SEEDS


@dataclass(frozen=True)
class Components:
    """Variances of one observation d[s, i], by source; those that the data put below zero are 0."""

    seeds: float
    items: float
    residual: float


@dataclass(frozen=True)
class Spread:
    """How far a mean may lie from the truth."""

    standard_error: float
    degrees_of_freedom: float


@dataclass(frozen=True)
class Estimate:
    """A mean with its uncertainty. Without an interval (`low` is None) `reason` says why.

    With a `moderated` spread beside its own (`analysis/moderation.py`), the wider interval and the larger p-value count.
    """

    mean: float
    standard_error: float | None
    degrees_of_freedom: float | None
    low: float | None
    high: float | None
    confidence: float
    p_value: float | None  # two-sided, of mean = 0
    num_seeds: int  # 0 where seeds play no part (untouched bases)
    num_clusters: int
    components: Components | None = None
    reason: str = ""
    mean_squares: tuple[float, float, float] | None = None  # of seeds, items and the rest
    moderated: Spread | None = None

    @property
    def spreads(self) -> tuple[Spread, ...]:
        """Its own and the moderated one; none without an interval."""
        if self.standard_error is None or self.degrees_of_freedom is None:
            return ()
        own = Spread(self.standard_error, self.degrees_of_freedom)
        return (own,) if self.moderated is None else (own, self.moderated)

    def at(self, confidence: float) -> Estimate:
        """The same estimate with the interval of another confidence."""
        if not self.spreads:
            return replace(self, confidence=confidence)
        half = max(float(scipy.special.stdtrit(spread.degrees_of_freedom, (1 + confidence) / 2)) * spread.standard_error
                   for spread in self.spreads)
        return replace(self, low=self.mean - half, high=self.mean + half, confidence=confidence)

    def with_p_value(self) -> Estimate:
        """The same with the p-value of its spreads."""
        return replace(self, p_value=1.0 if self.mean == 0 else min(1.0, 2 * min(self.p_above(0.0), self.p_below(0.0))))

    def p_above(self, bound: float) -> float:
        """One-sided p-value of the claim that the mean lies above `bound`."""
        assert self.spreads
        if self.standard_error == 0:
            return 0.0 if self.mean > bound else 1.0
        return max(float(scipy.special.stdtr(spread.degrees_of_freedom, (bound - self.mean) / spread.standard_error))
                   for spread in self.spreads)

    def p_below(self, bound: float) -> float:
        """One-sided p-value of the claim that the mean lies below `bound`."""
        return self.mirrored().p_above(-bound)

    def mirrored(self) -> Estimate:
        """The estimate of minus the quantity."""
        return replace(self, mean=-self.mean, low=None if self.high is None else -self.high,
                       high=None if self.low is None else -self.low)


def crossed(d: Floats, confidence: float = 0.95) -> Estimate:
    """The mean of d[S, I] with the interval of the crossed design.

    With one cluster this is the paired t-test over seeds. Fewer than 3 seeds: no interval, and `reason` says so.
    Raises ValueError if a value is not finite.
    """
    num_seeds, num_clusters = _checked(d)
    mean = float(d.mean())
    if num_seeds < FEWEST_SEEDS:
        plural = "seed" if num_seeds == 1 else "seeds"
        return _without_interval(mean, confidence, num_seeds, num_clusters,
                                 f"{num_seeds} {plural}: no interval below {FEWEST_SEEDS} seeds")
    squares, freedoms = _mean_squares(d)
    # Below the rounding of the values themselves, the variance is zero.
    rounding = (8 * np.finfo(float).eps * float(np.abs(d).max(initial=0.0))) ** 2
    spread = spread_of(squares, freedoms, d.size, fewest=fewest_freedom(num_seeds, num_clusters), rounding=rounding)
    return replace(_with_interval(mean, spread.standard_error, spread.degrees_of_freedom, confidence, num_seeds,
                                  num_clusters, _components(squares, num_seeds, num_clusters)), mean_squares=squares)


def spread_of(squares: tuple[float, float, float], freedoms: tuple[float, float, float], number: int, *, fewest: float,
              rounding: float = 0.0) -> Spread:
    """The spread of a mean of `number` values from the mean squares of seeds, items and the rest.

    The variance is the largest of their sum (seeds + items - rest) and of each; up to `rounding` it is 0. Degrees of
    freedom by Satterthwaite, at least `fewest`: which of the two decides is not known.
    """
    total = max(squares[0] + squares[1] - squares[2], *squares)
    if total <= rounding:
        total = 0.0
    spread = sum(square**2 / freedom for square, freedom in zip(squares, freedoms, strict=True) if freedom)
    return Spread(math.sqrt(total / number), max(fewest, total**2 / spread) if spread > 0 else fewest)


def fewest_freedom(num_seeds: float, num_clusters: float) -> float:
    """The degrees of freedom of whichever are fewer, seeds or clusters: either may be what varies. Of one cluster, the seeds'."""
    return float(min(num_seeds, num_clusters) if num_clusters > 1 else num_seeds) - 1.0


def items_only(z: Floats, confidence: float = 0.95) -> Estimate:
    """The mean of z[I] over clusters, where there are no seeds (untouched bases): a one-sample t interval."""
    _, num_clusters = _checked(z[np.newaxis, :])
    mean = float(z.mean())
    if num_clusters < 2:
        return _without_interval(mean, confidence, 0, num_clusters, "one item cluster: no interval")
    variance = float(z.var(ddof=1))
    return _with_interval(mean, math.sqrt(variance / num_clusters), num_clusters - 1.0, confidence, 0, num_clusters,
                          Components(0.0, variance, 0.0))


def _checked(d: Floats) -> tuple[int, int]:
    if d.ndim != 2 or d.size == 0:
        raise ValueError(f"differences must be an array [seeds, clusters] with at least one value, got shape {d.shape}")
    if not np.isfinite(d).all():
        raise ValueError("differences must be finite; drop missing items from both arms first")
    return d.shape[0], d.shape[1]


def _mean_squares(d: Floats) -> tuple[tuple[float, float, float], tuple[int, int, int]]:
    """Mean squares of seeds, items and the rest, and their degrees of freedom; 0 where there are none."""
    num_seeds, num_clusters = d.shape
    by_seed, by_item, mean = d.mean(axis=1), d.mean(axis=0), d.mean()
    rest = d - by_seed[:, np.newaxis] - by_item[np.newaxis, :] + mean
    freedoms = (num_seeds - 1, num_clusters - 1, (num_seeds - 1) * (num_clusters - 1))
    sums = (num_clusters * np.sum((by_seed - mean) ** 2), num_seeds * np.sum((by_item - mean) ** 2), np.sum(rest**2))
    seeds, items, residual = (float(total) / freedom if freedom else 0.0
                              for total, freedom in zip(sums, freedoms, strict=True))
    return (seeds, items, residual), freedoms


def _components(squares: tuple[float, float, float], num_seeds: int, num_clusters: int) -> Components:
    seeds, items, residual = squares
    return Components(max(0.0, (seeds - residual) / num_clusters), max(0.0, (items - residual) / num_seeds), residual)


def _without_interval(mean: float, confidence: float, num_seeds: int, num_clusters: int, reason: str) -> Estimate:
    return Estimate(mean, None, None, None, None, confidence, None, num_seeds, num_clusters, None, reason)


def _with_interval(mean: float, standard_error: float, degrees_of_freedom: float, confidence: float, num_seeds: int,
                   num_clusters: int, components: Components) -> Estimate:
    bare = Estimate(mean, standard_error, degrees_of_freedom, None, None, confidence, None, num_seeds, num_clusters,
                    components)
    return bare.with_p_value().at(confidence)
