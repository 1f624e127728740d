"""Score: what every metric reads in generated outputs, item by item, without a model.

With the input `outputs` the outputs of a model are scored; without it the task's floors (copying the input, ...), one
after the other. Where a model answered an item several times, its statistics are the means over the samples that the
metric can judge. Metrics of programs read what became of them from the input `executed`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from finetrial.records.parquet import read_table
from finetrial.records.table import Floats
from finetrial.scorers.base import Columns, Scorer
from finetrial.spec.hypothesis import FLOOR
from finetrial.spec.model import plugin_of_spec
from finetrial.stages.base import StageContext, StageKind
from finetrial.stages.generate import OUTPUTS

EXECUTED = "executed.parquet"
SCORES = "scores.npz"  # arrays "<who>/<metric>", [n, k]; who is "model" or "floor:<name>"
MODEL = "model"


class Score(StageKind):
    """Writes `scores.npz`; returns for each scored text (`model`, `floor:copy`, ...) items and missing per metric."""

    version: ClassVar[int] = 1

    def run(self, context: StageContext) -> Mapping[str, Any]:
        """Raises UserError for a metric whose package is missing."""
        texts = read_texts(context.inputs["data"].folder, context.spec["split"])
        outputs = context.inputs.get("outputs")
        if outputs is not None:
            written = {MODEL: samples(texts, read_columns(outputs.folder / OUTPUTS))}
        else:
            written = {name: [{**_plain(texts), "output": texts[name]}] for name in texts if name.startswith(FLOOR)}
        executed = context.inputs.get("executed")
        counts = read_columns(executed.folder / EXECUTED) if executed is not None else {}
        found: dict[str, Floats] = {}
        missing: dict[str, dict[str, int]] = {}
        for who, answers in written.items():
            for row in context.spec["metrics"]:
                scorer = scorer_of(row)
                read = [_counts(texts, counts, who, row.get("k", 1))] if scorer.executes else answers
                statistics = _mean([np.asarray(scorer.statistics(columns), np.float64) for columns in read])
                found[f"{who}/{row['kind']}"] = statistics
                missing.setdefault(who, {})[row["kind"]] = int(np.isnan(statistics).any(axis=1).sum())
        with (context.folder / SCORES).open("wb") as file:
            np.savez(file, allow_pickle=False, **found)
        return {"num_items": len(texts["item"]), "missing": missing}


def scorer_of(row: Mapping[str, Any]) -> Scorer:
    """The scorer that a row of a stage's `metrics` names."""
    scorer: Scorer = plugin_of_spec("scorer", row)
    return scorer


def read_scores(folder: Path) -> dict[str, dict[str, Floats]]:
    """who -> metric -> statistics [n, k]."""
    found: dict[str, dict[str, Floats]] = {}
    with np.load(folder / SCORES) as saved:
        for name in saved.files:
            who, _, metric = name.rpartition("/")
            found.setdefault(who, {})[metric] = saved[name]
    return found


def read_texts(data: Path, split: str) -> dict[str, list[Any]]:
    """Columns item, cluster, input, reference and `floor:<name>` of a data stage, in the order of its rows."""
    return read_columns(data / f"{split}-texts.parquet")


def read_columns(path: Path) -> dict[str, list[Any]]:
    """A parquet file as lists by column."""
    columns: dict[str, list[Any]] = read_table(path).to_pydict()
    return columns


def joined(texts: Columns, outputs: Columns) -> dict[str, list[Any]]:
    """Outputs with the texts of their items. A row for each item, the first sample where there are several."""
    return samples(texts, outputs)[0]


def samples(texts: Columns, outputs: Columns) -> list[dict[str, list[Any]]]:
    """Outputs with the texts of their items: the first sample of every item, the second, ...; None where there is none."""
    places: dict[str, list[int]] = {item: [] for item in texts["item"]}
    for place, item in enumerate(outputs["item"]):
        places[item].append(place)
    found = []
    for number in range(max((len(own) for own in places.values()), default=0) or 1):
        taken = [own[number] if number < len(own) else None for own in places.values()]
        columns = {name: [None if place is None else column[place] for place in taken]
                   for name, column in outputs.items() if name not in ("item", "cluster")}
        found.append({**_plain(texts), **columns})
    return found


def _counts(texts: Columns, executed: Columns, who: str, k: int) -> dict[str, list[Any]]:
    """Samples and passes of each item. A floor gives the same answer every time: k times, where k are asked for."""
    rows = {item: (num_samples, num_passed) for name, item, num_samples, num_passed in zip(
        executed["who"], executed["item"], executed["num_samples"], executed["num_passed"], strict=True) if name == who}
    times = k if who.startswith(FLOOR) else 1
    found = [rows.get(item, (0, 0)) for item in texts["item"]]
    return {**_plain(texts), "num_samples": [times * count for count, _ in found],
            "num_passed": [times * count for _, count in found]}


def _mean(statistics: Sequence[Floats]) -> Floats:
    """Over samples, each [n, k], item by item: of those that are not missing."""
    if len(statistics) == 1:
        return statistics[0]
    table = np.stack(statistics)  # [samples, n, k]
    known = np.isfinite(table).all(axis=2, keepdims=True)
    sums, number = np.where(known, table, 0.0).sum(axis=0), known.sum(axis=0)
    mean: Floats = np.divide(sums, number, out=np.full_like(sums, np.nan), where=np.broadcast_to(number > 0, sums.shape))
    return mean


def _plain(texts: Columns) -> dict[str, list[Any]]:
    return {name: list(column) for name, column in texts.items() if not name.startswith(FLOOR)}
