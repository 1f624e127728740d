"""The four scorers over losses: their values, what is missing, and what the catalog knows."""

from __future__ import annotations

import math

import numpy as np
import pytest

from finetrial import catalog
from finetrial.errors import DataError
from finetrial.scorers.base import Scorer

PREDICTIONS = {"item": ["a", "b", "c"], "cluster": ["x", "x", "y"], "nll": [6.0, 20.0, 3.0], "num_tokens": [2, 10, 3],
               "num_bytes": [8, 44, 12]}
VALUES = {"nats-per-token": 29 / 15, "perplexity": math.exp(29 / 15), "bits-per-byte": 29 / math.log(2) / 64,
          "ppl-document-mean": math.exp((3 + 2 + 1) / 3)}


def scorer(name: str) -> Scorer:
    found = catalog.find("scorer", name)()
    assert isinstance(found, Scorer)
    return found


def test_the_catalog_knows_them() -> None:
    assert set(VALUES) <= set(catalog.names("scorer"))


@pytest.mark.parametrize("name", VALUES)
def test_values(name: str) -> None:
    metric = scorer(name).metric()
    statistics = scorer(name).statistics(PREDICTIONS)
    assert statistics.shape == (3, 2) and statistics.dtype == np.float64
    assert metric.aggregate(statistics.sum(axis=0)) == pytest.approx(VALUES[name])
    assert metric.aggregate(np.stack([statistics.sum(axis=0)] * 2)).shape == (2,)
    assert (metric.name, metric.higher_is_better, metric.sign) == (name, False, -1.0)
    assert scorer(name).needs == "losses" and scorer(name).best < scorer(name).worst and metric.unit


@pytest.mark.parametrize("name", VALUES)
def test_an_item_without_loss_or_target_is_missing(name: str) -> None:
    predictions = {**PREDICTIONS, "nll": [None, float("nan"), 3.0], "num_tokens": [2, 10, 0], "num_bytes": [8, 44, 0]}
    assert np.isnan(scorer(name).statistics(predictions)).all()


@pytest.mark.parametrize("name", VALUES)
def test_an_absent_column_is_named(name: str) -> None:
    with pytest.raises(DataError, match="no column 'nll'"):
        scorer(name).statistics({key: value for key, value in PREDICTIONS.items() if key != "nll"})


@pytest.mark.parametrize("name", VALUES)
def test_nothing_summed_is_no_value(name: str) -> None:
    assert np.isnan(scorer(name).aggregate(np.zeros(2)))


@pytest.mark.parametrize("name", ["perplexity", "ppl-document-mean"])
def test_a_hopeless_loss_is_infinite_without_warning(name: str) -> None:
    assert scorer(name).aggregate(np.array([1e4, 1.0])) == math.inf
