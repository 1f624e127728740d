"""How far apart the best learning rates of two arms lie: the log ratio of per-seed best rates.

The best rate of a seed is the vertex of the parabola in log rate through its best validation score and that score's
two neighbours. At the edge of the grid, or beside a run that failed, there is no parabola: not estimated. Averages
are taken in log rate, so that the ratio's interval is exp of the log ratio's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from finetrial.analysis.estimate import Estimate, crossed
from finetrial.analysis.missing import NotMeasured


def best_log_rate(rates: Sequence[float], scores: Sequence[float | None]) -> float:
    """Natural log of the best rate, from signed scores at ascending rates. Raises NotMeasured if it is not inside."""
    measured = [(score, -at) for at, score in enumerate(scores) if score is not None]
    if not measured:
        raise NotMeasured("no learning rate finished")
    centre = -max(measured)[1]
    if centre in (0, len(rates) - 1):
        raise NotMeasured(f"the best learning rate, {rates[centre]:g}, lies at the edge of its grid")
    before, best, after = scores[centre - 1 : centre + 2]
    if before is None or after is None or best is None:
        raise NotMeasured(f"a run beside the best learning rate, {rates[centre]:g}, did not finish")
    return _vertex([math.log(rate) for rate in rates[centre - 1 : centre + 2]], [before, best, after])


def log_ratio(left: Mapping[int, float], right: Mapping[int, float], confidence: float = 0.95) -> Estimate:
    """Mean over seeds of left - right log rates, paired: the t interval over seeds."""
    seeds = sorted(left.keys() & right.keys())
    return crossed(np.array([[left[seed] - right[seed]] for seed in seeds]), confidence)


def _vertex(x: Sequence[float], y: Sequence[float]) -> float:
    """Where the parabola through three points peaks (successive parabolic interpolation, Brent 1973, ch. 5)."""
    rise, fall = x[1] - x[0], x[2] - x[1]
    gain, loss = y[1] - y[0], y[1] - y[2]  # > 0 and >= 0: y[1] is the best, the lower of equals
    return x[1] + (fall**2 * gain - rise**2 * loss) / (2 * (fall * gain + rise * loss))
