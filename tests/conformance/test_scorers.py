"""What every scorer promises: sums decide, order does not, worse predictions score worse, missing is never zero."""

import math
from typing import Any

import numpy as np
import pytest

from finetrial import catalog
from finetrial.scorers.base import Scorer

LOSS_SCORERS = [name for name in catalog.names("scorer") if catalog.find("scorer", name).needs == "losses"]


def predictions(num: int = 50, worse: float = 0.0) -> dict[str, Any]:
    draw = np.random.default_rng(0)
    tokens = draw.integers(3, 40, num)
    return {"item": [f"i{k}" for k in range(num)], "cluster": [f"c{k // 2}" for k in range(num)],
            "nll": tokens * (draw.gamma(4, 0.5, num) + worse), "num_tokens": tokens, "num_bytes": tokens * 4}


def value(scorer: Scorer, columns: dict[str, Any]) -> float:
    return float(scorer.aggregate(scorer.statistics(columns).sum(axis=0)))


@pytest.fixture(params=LOSS_SCORERS)
def scorer(request: pytest.FixtureRequest) -> Scorer:
    made = catalog.find("scorer", request.param)()
    assert isinstance(made, Scorer)
    return made


def test_worse_predictions_score_worse(scorer: Scorer) -> None:
    good, bad = value(scorer, predictions()), value(scorer, predictions(worse=1.0))
    assert good > bad if scorer.higher_is_better else good < bad


def test_perfect_predictions_score_best(scorer: Scorer) -> None:
    columns = {**predictions(), "nll": np.zeros(50)}
    assert value(scorer, columns) == pytest.approx(scorer.best)


def test_order_does_not_matter(scorer: Scorer) -> None:
    columns, order = predictions(), np.random.default_rng(1).permutation(50)
    shuffled = {name: [column[k] for k in order] for name, column in columns.items()}
    assert value(scorer, shuffled) == pytest.approx(value(scorer, columns), rel=1e-12)


def test_what_cannot_be_scored_is_missing(scorer: Scorer) -> None:
    columns = predictions()
    columns["nll"] = columns["nll"].copy()
    columns["nll"][3] = math.nan
    statistics = scorer.statistics(columns)
    assert np.isnan(statistics[3]).all() and np.isfinite(np.delete(statistics, 3, axis=0)).all()


def test_nothing_has_no_score(scorer: Scorer) -> None:
    assert math.isnan(float(scorer.aggregate(np.zeros(scorer.statistics(predictions()).shape[1]))))


def test_it_describes_itself(scorer: Scorer) -> None:
    metric = scorer.metric()
    assert metric.name in LOSS_SCORERS and metric.unit and metric.version >= 1
    assert (scorer.best > scorer.worst) == scorer.higher_is_better
