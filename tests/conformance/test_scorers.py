"""What every scorer promises: sums decide, order does not, worse predictions score worse, missing is never zero."""

import math
from typing import Any

import numpy as np
import pytest
from real_pairs import javascript_pairs, python_pairs, text_pairs

from finetrial import catalog
from finetrial.scorers.base import Scorer

LOSS_SCORERS = [name for name in catalog.names("scorer") if catalog.find("scorer", name).needs == "losses"]
OUTPUT_SCORERS = [name for name in catalog.names("scorer") if catalog.find("scorer", name).needs == "outputs"]

# The promises of outputs hold for every metric of outputs, but for those named here, for the reason that is named.
NEARLY = {"meteor": 2e-3}  # its penalty for fragments is never quite nothing
IDENTITY_IS_NOT_BEST = {"repetition": "people repeat themselves too"}
EMPTY_IS_NOT_WORST = {"repetition": "nothing is repeated", "continuation-rate": "nothing is continued"}
ORDER_OF_OUTPUTS_IS_FREE = {
    "syntax-pass-rate": "it does not read the reference", "repetition": "it does not read the reference",
    "pass-at-k": "it does not read the reference", "length-ratio": "it compares the sums of both sides",
    "continuation-rate": "it compares lengths and beginnings, which are alike in all references"}
BEYOND_BEST = {"length-ratio": "outputs can be longer than the references"}


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


# --- metrics of outputs ---

NUM = 40
PAIRS = {"text": text_pairs, "python": python_pairs, "javascript": javascript_pairs}
ALSO_CODE = [(name, language) for name in OUTPUT_SCORERS for language in PAIRS
             if "language" in catalog.find("scorer", name).model_fields or language == "text"]
CASES = [(name, language) for name, language in ALSO_CODE
         if not (name in ("ast-similarity", "syntax-pass-rate") and language == "text")]


@pytest.fixture(params=CASES, ids=lambda case: "-".join(case))
def case(request: pytest.FixtureRequest) -> tuple[str, Scorer, dict[str, Any]]:
    """A metric's name, the metric, and columns of real references with outputs that are partly right."""
    name, language = request.param
    found = catalog.find("scorer", name)
    made = found(language=language) if "language" in found.model_fields else found()
    outputs, references = PAIRS[language]()
    if name == "syntax-pass-rate" and language == "javascript":  # windows of lines are no functions
        references = tuple(f"function f{at}(a) {{ return a + {at} }}" for at in range(NUM))
    return name, made, columns(outputs[:NUM], references[:NUM])


def columns(outputs: Any, references: Any) -> dict[str, Any]:
    """Outputs as generation writes them; ten samples each, of which as many passed as the output has right words."""
    right = [sum(word in reference.split() for word in output.split()[:10]) if output else 0
             for output, reference in zip(outputs, references, strict=True)]
    names = [str(at) for at in range(len(outputs))]
    return {"item": names, "cluster": names, "sample": [0] * len(names), "input": list(references),
            "reference": list(references), "output": list(outputs), "num_new_tokens": [9] * len(names),
            "finished": [True] * len(names), "num_samples": [10] * len(names), "num_passed": right}


def test_identity_is_best(case: tuple[str, Scorer, dict[str, Any]]) -> None:
    name, made, some = case
    if name in IDENTITY_IS_NOT_BEST:
        pytest.skip(IDENTITY_IS_NOT_BEST[name])
    identical = value(made, {**some, "output": some["reference"], "num_passed": some["num_samples"]})
    assert identical == pytest.approx(made.best, abs=NEARLY.get(name, 1e-12))
    assert better_or_equal(made, identical, value(made, some))


def test_empty_is_worst(case: tuple[str, Scorer, dict[str, Any]]) -> None:
    name, made, some = case
    if name in EMPTY_IS_NOT_WORST:
        pytest.skip(EMPTY_IS_NOT_WORST[name])
    assert value(made, {**some, "output": [""] * NUM, "num_passed": [0] * NUM}) == made.worst


def test_outputs_of_other_items_score_lower(case: tuple[str, Scorer, dict[str, Any]]) -> None:
    name, made, some = case
    if name in ORDER_OF_OUTPUTS_IS_FREE:
        pytest.skip(ORDER_OF_OUTPUTS_IS_FREE[name])
    others = some["output"][1:] + some["output"][:1]
    own, shuffled = value(made, some), value(made, {**some, "output": others})
    assert own > shuffled if made.higher_is_better else own < shuffled


def test_what_cannot_be_judged_is_missing_and_not_zero(case: tuple[str, Scorer, dict[str, Any]]) -> None:
    _, made, some = case
    hidden = {**some, "output": [None, *some["output"][1:]], "finished": [None, *some["finished"][1:]],
              "num_samples": [None, *some["num_samples"][1:]]}
    rows = made.statistics(hidden)
    assert np.isnan(rows[0]).all() and np.isfinite(rows[1:]).all()
    assert rows.shape == (NUM, made.statistics(some).shape[1]) and rows.dtype == np.float64
    np.testing.assert_array_equal(rows[1:], made.statistics(some)[1:])
    assert math.isnan(float(made.aggregate(np.zeros(rows.shape[1]))))


def test_values_lie_within_the_scale(case: tuple[str, Scorer, dict[str, Any]]) -> None:
    name, made, some = case
    low, high = sorted((made.best, made.worst))
    rows = made.statistics(some)
    for found in (made.aggregate(rows), made.aggregate(np.cumsum(rows, axis=0))):
        known = found[np.isfinite(found)]
        assert known.size and (known >= low).all() and (name in BEYOND_BEST or (known <= high).all())


def test_sums_may_be_taken_in_any_order(case: tuple[str, Scorer, dict[str, Any]]) -> None:
    """Items, then clusters, then all is the same as all at once, for many cells at a time too."""
    _, made, some = case
    rows = made.statistics(some)
    parts = np.stack([rows[:7].sum(axis=0), rows[7:30].sum(axis=0), rows[30:].sum(axis=0)])
    assert value(made, some) == pytest.approx(float(made.aggregate(parts.sum(axis=0))), rel=1e-12)
    one, two = made.aggregate(np.stack([rows.sum(axis=0), parts[0]]))
    assert one == value(made, some) and two == made.aggregate(parts[0])
    order = np.random.default_rng(1).permutation(NUM)
    turned = {name: [column[at] for at in order] for name, column in some.items()}
    assert value(made, turned) == pytest.approx(value(made, some), rel=1e-12)


@pytest.mark.parametrize("name", OUTPUT_SCORERS)
def test_a_metric_of_outputs_describes_itself(name: str) -> None:
    made = catalog.find("scorer", name)()
    metric = made.metric()
    assert metric.name == name and metric.unit and metric.version >= 1 and made.summary
    assert (made.best > made.worst) == made.higher_is_better


def better_or_equal(scorer: Scorer, one: float, other: float) -> bool:
    return one >= other if scorer.higher_is_better else one <= other
