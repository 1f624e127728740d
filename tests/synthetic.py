"""Synthetic studies with planted truths: a study and the table that its run would have left, one for each case.

The study is the shape of `perplexity`: the untouched base, full fine-tuning, LoRA r=8 and r=32, three learning rates,
a task to learn (`new`) and old text (`old`), a positive control and an A/A arm. Losses per item are drawn as
item + seed + item-by-seed effects around a planted mean, so that the right answer is known.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from finetrial.catalog import find
from finetrial.records.record import Outcome
from finetrial.records.results import Cost, Point
from finetrial.records.table import CellKey, CurvePoint, Items, ItemScores, Metric, Table
from finetrial.spec import Arm, Contrast, Controls, Hypothesis, PositiveControl, Study

METRICS = ("nats-per-token", "perplexity", "ppl-document-mean", "bits-per-byte")
SPLITS = {"val": 24, "test": 60}
ITEMS_PER_CLUSTER = 2
BASE_LOSS = {"new": 4.0, "old": 2.7}
GRIDS = {"full": (1e-4, 3e-4, 1e-3), "lora-r8": (1e-3, 3e-3, 1e-2), "lora-r32": (1e-3, 3e-3, 1e-2)}
PARAMETERS = {"full": 6_900_000, "lora-r8": 73_728, "lora-r32": 294_912}
FORGETTING = {"full": (0.3, 0.6, 0.9), "lora-r8": (0.1, 0.2, 0.4), "lora-r32": (0.15, 0.3, 0.6)}
RUN_STEPS = (20, 40, 60, 80)
MARGIN = 0.05

Run = tuple[str, int | None, float | None]  # arm, seed, learning rate


@dataclass(frozen=True)
class Case:
    """A planted truth. `effect`: how many nats per token lora-r8 loses to full on the new task."""

    effect: float = 0.3
    seed_noise: float = 0.01
    num_seeds: int = 5
    best_rate: int = 1  # position in the grid
    control_harm: float = 1.0  # nats per token that ten times the rate costs on old text
    outcome: Callable[[Run], Outcome] = lambda run: Outcome.OK
    exists: Callable[[Run], bool] = lambda run: True


CASES: dict[str, Case] = {
    "supported": Case(),
    "refuted": Case(effect=-0.3),
    "equivalent": Case(effect=0.0),
    "inconclusive": Case(effect=0.02, seed_noise=0.15),
    "assay-failed": Case(control_harm=0.0),
    "missing-cells": Case(exists=lambda run: run[:2] != ("lora-r8", 4)),
    "oom-arm": Case(outcome=lambda run: Outcome.OOM if run[0] == "lora-r32" else Outcome.OK),
    "diverged-rate": Case(outcome=lambda run: Outcome.DIVERGED if run[0] == "full" and run[2] == 1e-3 else Outcome.OK),
    "best-at-edge": Case(best_rate=2),
    "two-seeds": Case(num_seeds=2),
    "base-only": Case(exists=lambda run: run[0] == "base"),
    "nothing": Case(exists=lambda run: False),
}


def make_study(num_seeds: int = 5) -> Study:
    """The study of every case."""
    return Study(
        name="synthetic", question="When does LoRA approach full fine-tuning?", seeds=tuple(range(num_seeds)),
        bases=({"name": "tiny"},), training={"budget": "80 steps"},
        tasks=({"name": "new", "task": "pydoc-chat"}, {"name": "old", "task": "python-text", "role": "outside"}),
        arms=tuple(Arm(name=name, components=_METHODS[name], learning_rates=GRIDS[name], label=_LABELS[name])
                   for name in GRIDS),
        controls=Controls(reference="full", positive=PositiveControl(arm="full", task="old")),
        hypotheses=(
            Hypothesis(name="H1", statement="Full fine-tuning learns more than LoRA r=8.",
                       contrast=Contrast(left="full", right="lora-r8", task="new", margin=MARGIN)),
            Hypothesis(name="H2", statement="LoRA r=8 forgets less than full fine-tuning.",
                       contrast=Contrast(left="lora-r8", right="full", quantity="forgetting", task="old",
                                         expect="less")),
            Hypothesis(name="H3", statement="LoRA wants 5 to 20 times the learning rate of full fine-tuning.",
                       contrast=Contrast(left="lora-r8", right="full", quantity="learning-rate-ratio",
                                         expect="within", bounds=(5.0, 20.0))),
            Hypothesis(name="H4", statement="Rank 32 beats rank 8 and trains fewer parameters than full fine-tuning.",
                       all_of=(Contrast(left="lora-r32", right="lora-r8", task="new"),
                               Contrast(left="lora-r32", right="full", quantity="cost", cost="params_trainable",
                                        expect="less"))),
            Hypothesis(name="H5", statement="At equal learning, LoRA r=8 forgets less.", primary=False,
                       contrast=Contrast(left="lora-r8", right="full", quantity="forgetting-at-matched-plasticity",
                                         task="old", learned="new", expect="less"))))


def make_table(case: str) -> tuple[Study, Table]:
    """The study and the table of one of `CASES`, the same at every call."""
    truth = CASES[case]
    study = make_study(truth.num_seeds)
    planned = list(_runs(study))
    runs = [run for run in planned if truth.exists(run)]
    items = {(task, split): _items(task, split) for task in BASE_LOSS for split in SPLITS}
    scores = [row for run in runs for row in _scores(run, truth, items)]
    return study, Table(scores=scores, metrics=metrics(), curves=[p for run in runs for p in _curve(run, truth)],
                        costs=[_cost(arm) for arm in GRIDS if any(run[0] == arm for run in runs)],
                        num_stages=len(planned), num_done=len(runs), provenance={"case": case})


def metrics() -> dict[str, Metric]:
    """The four scorers over losses."""
    return {name: find("scorer", name)().metric() for name in METRICS}


_METHODS: dict[str, Any] = {"full": "full", "lora-r8": "lora:rank=8", "lora-r32": "lora:rank=32"}
_LABELS = {"full": "full fine-tuning", "lora-r8": "LoRA r=8", "lora-r32": "LoRA r=32"}


def _runs(study: Study) -> Iterator[Run]:
    yield "base", None, None
    assert study.controls is not None and study.controls.positive is not None
    centre = study.arm("full").centre_rate("new")
    for seed in study.seeds:
        for name, rates in GRIDS.items():
            yield from ((name, seed, rate) for rate in rates)
        yield study.controls.positive_name, seed, centre * study.controls.positive.rate_factor
        yield study.controls.aa_name, seed, centre


def _loss(run: Run, task: str, truth: Case) -> float:
    """The planted mean loss of a run, nats per token, without noise."""
    arm, _, rate = run
    if arm == "base":
        return BASE_LOSS[task]
    if arm == "full-x10":
        return _loss(("full", 0, 3e-4), task, truth) + truth.control_harm
    if arm == "full-aa":
        arm = "full"
    assert rate is not None
    at = GRIDS[arm].index(rate)
    if task == "old":
        return BASE_LOSS["old"] + FORGETTING[arm][at]
    best = 3.0 + {"full": 0.0, "lora-r8": truth.effect, "lora-r32": truth.effect / 2}[arm]
    away = at - truth.best_rate
    return best + (0.5 if away < 0 else 0.3) * away**2


def _items(task: str, split: str) -> tuple[Items, np.ndarray, np.ndarray]:
    """Items with their target tokens and their own difficulty (nats per token), the same for every run."""
    generator = np.random.default_rng([len(task), sum(map(ord, task + split))])
    number = SPLITS[split]
    items = Items(tuple(f"{task}-{split}-{index}" for index in range(number)),
                  tuple(f"file-{index // ITEMS_PER_CLUSTER}" for index in range(number)))
    return items, generator.integers(10, 120, number), generator.normal(0.0, 0.5, number)


def _scores(run: Run, truth: Case, items: dict[tuple[str, str], Any]) -> Iterator[ItemScores]:
    arm, seed, rate = run
    outcome = truth.outcome(run)
    cell = CellKey("tiny", arm, "" if arm == "base" else "new", seed, Point(learning_rate=rate))
    for (task, split), (listed, num_tokens, difficulty) in items.items():
        generator = np.random.default_rng([sum(map(ord, arm + task + split)), seed or 0, int((rate or 0) * 1e6)])
        of_seed = np.random.default_rng([7, sum(map(ord, arm)), seed or 0]).normal(0, truth.seed_noise)
        mean = _loss(run, task, truth) + (0.0 if arm == "base" else of_seed)
        losses = mean + difficulty + generator.normal(0, 0.03, len(listed))
        predictions = {"item": listed.ids, "cluster": listed.clusters, "nll": losses * num_tokens,
                       "num_tokens": num_tokens, "num_bytes": 4 * num_tokens}
        for metric in METRICS:
            statistics = find("scorer", metric)().statistics(predictions) if outcome is Outcome.OK else None
            yield ItemScores(cell, 0 if arm == "base" else 1, task, split, metric, listed, statistics, outcome=outcome)


def _curve(run: Run, truth: Case) -> Iterator[CurvePoint]:
    arm, seed, rate = run
    if arm == "base" or truth.outcome(run) is not Outcome.OK:
        return
    cell = CellKey("tiny", arm, "new", seed, Point(learning_rate=rate))
    final = _loss(run, "new", truth)
    for step in RUN_STEPS:
        value = final + (BASE_LOSS["new"] - final) * math.exp(-step / 20)
        for split, gap in (("train", 0.1), ("val", 0.0)):
            yield CurvePoint(cell, 1, step, "new", split, "nats-per-token", value - gap, SPLITS["val"])


def _cost(arm: str) -> Cost:
    trained = PARAMETERS[arm]
    return Cost(base="tiny", arm=arm, task="new", params_total=6_900_000 + (0 if arm == "full" else trained),
                params_trainable=trained, stored_bytes=4 * trained, optimizer_bytes=8 * trained, device="cpu",
                precision="fp32", train_seconds=60.0, tuning_seconds=900.0, predict_seconds=5.0, train_tokens=160_000,
                tokens_per_second=2_700.0, peak_host_bytes=400_000_000 + 12 * trained)
