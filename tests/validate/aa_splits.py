"""Equal arms that are really trained: how often does a trial find a difference between an arm and itself?

    python tests/validate/aa_splits.py [--runs runs]

Ten seeds of full fine-tuning on tiny-gpt at one rate, and ten at ten times that rate (about 8 minutes on two cores the first
time, seconds from the store). Each of the 126 ways to split ten seeds into five and five, paired in seed order, is judged
as a trial of two arms: at most 5 % may be SUPPORTED or REFUTED. The same splits with the destroyed arm on one side: at
least 80 % must be SUPPORTED. The 126 share their seeds, so the shares are not 126 independent trials. Exit code 1 if
either bound is missed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

from finetrial.analysis.assay import assay
from finetrial.analysis.findings import findings
from finetrial.analysis.looks import look_at
from finetrial.analysis.trial import Trial
from finetrial.catalog import find
from finetrial.plan.build import build
from finetrial.records.table import CellKey, ItemScores, Table
from finetrial.run.collect import collect
from finetrial.run.options import RunOptions
from finetrial.run.provenance import environment
from finetrial.run.remote_store import open_store
from finetrial.run.trial import lookup_in_store, run_study
from finetrial.spec import Arm, Contrast, Hypothesis, Study
from finetrial.spec.evaluation import Evaluation

SEEDS = 10
SAME, WORSE = "full", "full-x10"
NEW, METRIC = "pydoc-chat", "nats-per-token"
RATE = 3e-4


def trained_study() -> Study:
    """What is trained: one arm at its rate, and at ten times that."""
    return Study(
        name="aa-splits", question="Does an arm differ from itself?", scale="embedded", bases=({"name": "tiny-gpt"},),
        tasks=({"name": NEW, "task": NEW, "num_val": 20, "num_test": 200, "metrics": (METRIC,)},),
        arms=(Arm(name=SAME, components="full", learning_rates=(RATE,)),
              Arm(name=WORSE, components="full", learning_rates=(10 * RATE,))),
        training={"budget": "40 steps", "sequence_length": 192, "batch_sequences": 4, "evaluations": 0},
        evaluation=Evaluation(splits=("test",)), seeds=tuple(range(SEEDS)), factors=("method", "learning_rate"))


def item_scores(runs: Path) -> dict[tuple[str, int], ItemScores]:
    """The test scores of every arm and seed; trains what is not recorded."""
    study = trained_study()
    options = RunOptions(runs=runs, figures=False, accept=("unequal-tuning", "undeclared-difference"))
    run_study(study, options, command="tests/validate/aa_splits.py")
    plan, here = build(study), environment("cpu")
    table = collect(study, plan, lookup_in_store(plan, open_store(options.store_location(), trusting=True), here), {})
    return {(row.cell.arm, row.cell.seed): row for row in table.scores if row.cell.seed is not None}


def verdicts(scores: dict[tuple[str, int], ItemScores], right: str) -> Iterator[str]:
    """The verdict of every split: five seeds of SAME against the other five of `right`."""
    study = Study(
        name="split", question="Does it differ?", bases=({"name": "tiny-gpt"},), training={"budget": "40 steps"},
        tasks=({"name": NEW, "task": NEW, "metrics": (METRIC,)},), seeds=tuple(range(SEEDS // 2)),
        arms=tuple(Arm(name=name, components="full", learning_rates=(RATE,)) for name in ("left", "right")),
        hypotheses=(Hypothesis(name="H1", statement="Left is better.",
                               contrast=Contrast(left="left", right="right", task=NEW, metric=METRIC)),))
    metric = {METRIC: find("scorer", METRIC)().metric()}
    for others in combinations(range(1, SEEDS), SEEDS // 2 - 1):
        first = (0, *others)
        second = tuple(seed for seed in range(SEEDS) if seed not in first)
        rows = [renamed(scores[arm, seed], name, place) for name, arm, seeds in (("left", SAME, first), ("right", right, second))
                for place, seed in enumerate(seeds)]
        trial = Trial(study, Table(scores=rows, metrics=metric))
        yield findings(trial, assay(trial), look_at(SEEDS // 2, (), (), 0.05))[0].verdict


def renamed(row: ItemScores, arm: str, seed: int) -> ItemScores:
    """The same scores as those of another arm and seed, at one rate."""
    point = row.cell.point.model_copy(update={"learning_rate": RATE})
    return replace(row, cell=CellKey(row.cell.base, arm, row.cell.sequence, seed, point))


def main(arguments: Sequence[str] | None = None) -> int:
    """Print both shares; the exit code."""
    parser = argparse.ArgumentParser(description="Verdicts on an arm against itself.")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    scores = item_scores(parser.parse_args(arguments).runs)
    same, worse = list(verdicts(scores, SAME)), list(verdicts(scores, WORSE))
    found = sum(verdict in ("SUPPORTED", "REFUTED") for verdict in same) / len(same)
    seen = worse.count("SUPPORTED") / len(worse)
    print(f"an arm against itself: {found:.1%} of {len(same)} splits SUPPORTED or REFUTED (at most 5 %)")
    print(f"against ten times its rate: {seen:.1%} SUPPORTED (at least 80 %)")
    return 0 if found <= 0.05 and seen >= 0.8 else 1


if __name__ == "__main__":
    sys.exit(main())
