"""The variance between seeds, moderated over the like comparisons of a study.

With 3 seeds a mean square of seeds has 2 degrees of freedom: one in twenty lies below a twentieth of its expectation, and
an interval that believes it is far too narrow, the more so at the small error rates of a family. The other arms'
comparisons tell what it should be. Smyth (2004, Stat. Appl. Genet. Mol. Biol. 3(1), 3) takes variances as draws from
one scaled inverse chi-square distribution, fits it (sec. 6.2), and moves each towards it; arms that truly differ in variance
make it wide, and then little is moved.

`cautious`, the default, takes the wider of the moderated and the plain interval: in simulations with five arms and 3 seeds
the family's error rate is then at most 5 % where the plain one's is up to 14 % (`tests/validate/error_rates.py`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy  # its parts are imported where they are first used

from finetrial.analysis.estimate import Estimate, fewest_freedom, spread_of

FEWEST = 3  # comparisons from which a distribution of variances can be told
UNEQUAL = 0.05  # p-value of equal variances below which `moderated` becomes `cautious`
SHARED = 0.25  # correlation of the mean squares of two comparisons with one arm in common


@dataclass(frozen=True)
class Prior:
    """The distribution of the mean squares of seeds: its scale, its degrees of freedom, and the most that all of them
    together can tell. `is_unequal`: the comparisons truly differ in variance."""

    mean_square: float
    freedom: float
    most_freedom: float
    is_unequal: bool


def fit_prior(mean_squares: Sequence[float], freedom: int) -> Prior | None:
    """The prior of some comparisons' mean squares of seeds, each of `freedom` degrees; None where it cannot be told."""
    squares = np.asarray(mean_squares, np.float64)
    if len(squares) < FEWEST or not (squares > 0).all():
        return None
    half = freedom / 2
    centred = np.log(squares) - scipy.special.digamma(half) + math.log(half)
    excess = float(centred.var(ddof=1) - scipy.special.polygamma(1, half))
    prior_freedom = 2 * _trigamma_inverse(excess) if excess > 0 else math.inf
    scale = float(squares.mean()) if math.isinf(prior_freedom) else \
        math.exp(centred.mean() + scipy.special.digamma(prior_freedom / 2) - math.log(prior_freedom / 2))
    most = freedom * len(squares) / (1 + SHARED * (len(squares) - 1))
    return Prior(scale, prior_freedom, most, _bartlett(squares, freedom) < UNEQUAL)


def moderated(estimate: Estimate, prior: Prior | None, *, cautious: bool) -> Estimate:
    """The estimate with the moderated variance: instead of its own, or (`cautious`) where that is wider."""
    if prior is None or estimate.mean_squares is None or estimate.standard_error is None:
        return estimate
    seeds, items, residual = estimate.mean_squares
    own = estimate.num_seeds - 1
    if math.isinf(prior.freedom):
        square = prior.mean_square
    else:
        square = (prior.freedom * prior.mean_square + own * seeds) / (prior.freedom + own)
    freedom = min(prior.freedom + own, prior.most_freedom)
    spread = spread_of((square, items, residual), (freedom, estimate.num_clusters - 1, own * (estimate.num_clusters - 1)),
                       estimate.num_seeds * estimate.num_clusters, fewest=fewest_freedom(estimate.num_seeds, estimate.num_clusters))
    components = estimate.components
    assert components is not None
    varies = max(0.0, (square - residual) / estimate.num_clusters)  # what a forecast of more seeds should count on
    if cautious or prior.is_unequal:
        components = replace(components, seeds=max(components.seeds, varies))
        return replace(estimate, moderated=spread, components=components).with_p_value().at(estimate.confidence)
    return replace(estimate, standard_error=spread.standard_error, degrees_of_freedom=spread.degrees_of_freedom,
                   components=replace(components, seeds=varies)).with_p_value().at(estimate.confidence)


def moderated_alike(estimates: Sequence[Estimate], choice: str) -> list[Estimate]:
    """Estimates of like comparisons, each moderated by all of them; `choice` as `Evaluation.seed_variance` says."""
    known = [(one.mean_squares[0], one.num_seeds) for one in estimates if one.mean_squares is not None]
    if choice == "own" or len({number for _, number in known}) != 1:
        return list(estimates)
    prior = fit_prior([square for square, _ in known], known[0][1] - 1)
    return [moderated(one, prior, cautious=choice == "cautious") for one in estimates]


def _trigamma_inverse(value: float) -> float:
    """x with trigamma(x) = value, by Newton's method on 1 / trigamma, as Smyth gives it."""
    x = 0.5 + 1 / value
    for _ in range(50):
        trigamma = float(scipy.special.polygamma(1, x))
        step = trigamma * (1 - trigamma / value) / float(scipy.special.polygamma(2, x))
        x += step
        if abs(step) < 1e-9 * x:
            break
    return x


def _bartlett(squares: np.ndarray, freedom: int) -> float:
    """p-value of equal variances (Bartlett 1937), as if the comparisons were independent."""
    number = len(squares)
    statistic = freedom * (number * math.log(squares.mean()) - float(np.log(squares).sum()))
    return float(scipy.special.chdtrc(number - 1, statistic / (1 + (number + 1) / (3 * number * freedom))))
