"""Forgetting at matched plasticity over two phases, from the table to the finding."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from tests.synthetic import metrics

from finetrial.analysis.analyse import analyse
from finetrial.records.results import Finding, Point
from finetrial.records.table import CellKey, Items, ItemScores, Table
from finetrial.spec import Contrast, Hypothesis, Study
from finetrial.spec.hypothesis import MATCHED

RATES = (1e-4, 3e-4, 1e-3)
LEARNED = {"full": (0.9, 1.0, 1.1), "lora": (0.55, 0.60, 0.65)}  # of b, in nats per token, by rate
BASE = {"a": 5.0, "b": 4.0}
NUM_SEEDS, NUM_ITEMS = 3, 10


def found_with(transfer: float) -> Finding:
    """Two phases, a then b. Both arms lie on one line, F(a) = 0.5 (P(b) - transfer); P(b) = transfer is what the first left."""
    study = Study(
        name="x", question="?", bases=("tiny",), training={}, seeds=tuple(range(NUM_SEEDS)),
        tasks=({"name": "a", "task": "pydoc-chat"}, {"name": "b", "task": "pydoc-chat"}),
        arms=({"name": "full", "components": "full", "learning_rates": RATES},
              {"name": "lora", "components": "lora:rank=8", "learning_rates": RATES}),
        hypotheses=(Hypothesis(name="H", statement="s", contrast=Contrast(
            left="lora", right="full", quantity=MATCHED, task="a", learned="b", expect="less", margin=0.02)),))
    found = analyse(study, Table(scores=list(_rows(transfer)), metrics=metrics()))
    return next(finding for finding in found.findings if finding.contrast)


def _rows(transfer: float) -> Iterator[ItemScores]:
    for task, loss in BASE.items():
        yield from _scores("base", None, 0, None, task, loss)
    for arm, learned in LEARNED.items():
        for seed in range(NUM_SEEDS):
            for place, rate in enumerate(RATES):
                yield from _scores(arm, seed, 1, rate, "a", 3.0 + 0.1 * abs(place - 1))
                yield from _scores(arm, seed, 1, rate, "b", BASE["b"] - transfer)
                yield from _scores(arm, seed, 2, rate, "b", BASE["b"] - learned[place])
                yield from _scores(arm, seed, 2, rate, "a", 3.0 + 0.5 * (learned[place] - transfer))


def _scores(arm: str, seed: int | None, phase: int, rate: float | None, task: str, loss: float) -> Iterator[ItemScores]:
    names = tuple(f"{task}{number}" for number in range(NUM_ITEMS))
    tokens = np.full(NUM_ITEMS, 10.0)
    for split in ("val", "test"):
        noise = np.random.default_rng([len(arm), seed or 0, phase, ord(task), len(split)]).normal(0, 0.002)
        yield ItemScores(CellKey("tiny", arm, "a-b", seed, Point(learning_rate=rate)), phase, task, split, "nats-per-token",
                         Items(names, names), np.stack([(loss + noise) * tokens, tokens], axis=-1))


@pytest.mark.parametrize("transfer", [0.5, 0.0, -0.3])
def test_what_the_first_phase_transferred_is_no_forgetting_of_the_second(transfer: float) -> None:
    found = found_with(transfer)
    assert found.verdict == "EQUIVALENT"
    assert found.estimate == pytest.approx(0.0, abs=0.01)
    assert f"lora forgets {0.5 * (0.585 - transfer):.2g}"[:-1] in found.reason.replace("LoRA r=8", "lora")
