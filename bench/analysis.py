"""Time and memory of the analysis of a large trial: 10,000 items x 10 seeds x 20 contrasts, from item scores to verdicts.

    .venv/bin/python bench/analysis.py

No model, no report: the table is drawn at random, then analysed. The peer is scipy's paired t-test over seeds of the same
differences, which knows nothing of items.
"""

from __future__ import annotations

import resource
import time

import numpy as np
from scipy import stats

from finetrial.analysis.analyse import analyse
from finetrial.catalog import find
from finetrial.records.results import Point
from finetrial.records.table import CellKey, Items, ItemScores, Table
from finetrial.spec import Arm, Contrast, Hypothesis, Study

ITEMS, SEEDS, CONTRASTS = 10_000, 10, 20
METRIC, RATE = "nats-per-token", 1e-3


def main() -> None:
    """Print seconds and peak memory."""
    generator = np.random.default_rng(0)
    names = [f"arm-{number}" for number in range(CONTRASTS + 1)]
    study = Study(
        name="large", question="How long does it take?", seeds=tuple(range(SEEDS)), bases=({"name": "tiny"},),
        tasks=({"name": "new", "task": "pydoc-chat", "metrics": (METRIC,)},), training={"budget": "10 steps"},
        arms=tuple(Arm(name=name, components="full", learning_rates=(RATE,)) for name in names),
        hypotheses=tuple(Hypothesis(name=f"H{number}", statement=f"{name} is better.",
                                    contrast=Contrast(left=name, right=names[0], task="new", metric=METRIC))
                         for number, name in enumerate(names[1:], start=1)))
    items = Items(tuple(map(str, range(ITEMS))), tuple(str(number // 2) for number in range(ITEMS)))
    tokens = generator.integers(20, 400, ITEMS).astype(float)
    common = 3 + generator.normal(size=ITEMS)
    rows = [ItemScores(CellKey("tiny", name, "new", seed, Point(learning_rate=RATE)), 1, "new", "test", METRIC, items,
                       np.stack([(common + 0.3 * generator.normal(size=ITEMS)) * tokens, tokens], axis=-1))
            for name in names for seed in range(SEEDS)]
    table = Table(scores=rows, metrics={METRIC: find("scorer", METRIC)().metric()})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    began = time.perf_counter()
    results = analyse(study, table)
    ours = time.perf_counter() - began
    assert len(results.findings) == 2 * CONTRASTS

    began = time.perf_counter()
    means = {name: np.array([(row.statistics[:, 0].sum() / row.statistics[:, 1].sum()) for row in rows  # type: ignore[index]
                             if row.cell.arm == name]) for name in names}
    for name in names[1:]:
        stats.ttest_rel(means[name], means[names[0]])
    peer = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{ITEMS:,} items x {SEEDS} seeds x {CONTRASTS} contrasts: {ours:.2f} s; peak memory {peak:,.0f} MiB, "
          f"of which {peak - before:,.0f} MiB beyond the table")
    print(f"scipy's ttest_rel over seeds of the same: {peer:.2f} s")


if __name__ == "__main__":
    main()
