"""`perplexity` as published with a made-up score in every place: every claim is answered, and the report stands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from synthetic import metrics

from finetrial.analysis.analyse import analyse
from finetrial.catalog import find
from finetrial.records.results import Point, Results
from finetrial.records.table import CellKey, Items, ItemScores, Table
from finetrial.report import build
from finetrial.spec import Study
from finetrial.spec.study import BASE_ARM
from finetrial.spec.uses import TaskUse
from finetrial.studies.as_published import perplexity

LOSS = {"full": 3.0, "r8": 3.4, "lora-r8": 3.4, "r32": 3.2, "lora-r32": 3.2}  # by the beginning of an arm's name
METRICS = ("nats-per-token", "perplexity", "ppl-document-mean")


def scored(cell: CellKey, phase: int, use: TaskUse, split: str, mean: float) -> Iterator[ItemScores]:
    generator = np.random.default_rng([sum(map(ord, cell.arm + use.name + split)), cell.seed or 0])
    items = Items(tuple(f"{use.name}-{split}-{item}" for item in range(30)), tuple(f"file-{item}" for item in range(30)))
    losses = mean + generator.normal(0, 0.02, 30) + np.linspace(-0.5, 0.5, 30)
    predictions = {"item": items.ids, "cluster": items.clusters, "nll": losses * 20, "num_tokens": np.full(30, 20),
                   "num_bytes": np.full(30, 80)}
    for metric in METRICS:
        statistics = find("scorer", metric)().statistics(predictions)  # type: ignore[attr-defined]
        yield ItemScores(cell, phase, use.name, split, metric, items, statistics)


def every_score(study: Study) -> Iterator[ItemScores]:
    base = CellKey("tiny-gpt", BASE_ARM, "", None, Point())
    for use in (use for use in study.tasks if use.evaluate):
        for split in ("val", "test"):
            yield from scored(base, 0, use, split, 4.0)
    for path in study.paths:
        judged = {use.name: use for use in (study.task(path.tasks[-1]), *study.evaluated_along(path))}
        for arm in study.arms_along(path):
            mean = next(loss for start, loss in LOSS.items() if arm.name.startswith(start))
            for seed in study.seeds:
                for rate in arm.learning_rates:
                    cell = CellKey("tiny-gpt", arm.name, path.name, seed, Point(learning_rate=rate))
                    for use in judged.values():
                        for split in ("val", "test") if use.evaluate else ("val",):
                            yield from scored(cell, 1, use, split, mean)


@pytest.fixture(scope="module")
def answered() -> tuple[Study, Results]:
    study = perplexity.study()
    return study, analyse(study, Table(scores=list(every_score(study)), metrics=metrics(), curves=[], costs=[],
                                       num_stages=1, num_done=1, provenance={}))


def test_every_claim_is_answered(answered: tuple[Study, Results]) -> None:
    study, results = answered
    assert results.status == "complete"
    standings = {spec.name: row.standing for spec, row in zip(study.claims, results.claims, strict=True)}
    assert all(standing == "survives" for name, standing in standings.items() if name[-1].isdigit())
    assert standings["parameters"] == standings["memory"] == "cannot be tested at this scale"
    assert all(row.worth is not None for row in results.claims if row.mended is not None)


def test_nothing_is_missed_that_a_sequence_does_not_score(answered: tuple[Study, Results]) -> None:
    study, results = answered
    along = {path.name: {use.name for use in study.evaluated_along(path)} for path in study.paths}
    assert all(row.task in along[row.sequence] for row in results.measures if row.sequence and row.task)
    assert not [row for row in results.measures if row.measure == "score" and row.value is None]


def test_the_report_shows_the_claims(answered: tuple[Study, Results], tmp_path: Path) -> None:
    build(*answered, tmp_path, figures=False)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "13.97 against 25.7" in page and "padding trained on" in page and "worth of the flaw" in page
    assert "finetrial run perplexity --as-published" in page
