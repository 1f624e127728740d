"""Score: what every metric reads in generated outputs, item by item, without a model.

With the input `outputs` the outputs of a model are scored; without it the task's floors (copying the input, ...), one
after the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from finetrial import catalog
from finetrial.records.table import Floats
from finetrial.scorers.base import Columns, Scorer
from finetrial.stages.base import StageContext, StageKind

OUTPUTS = "outputs.parquet"
SCORES = "scores.npz"  # arrays "<who>/<metric>", [n, k]; who is "model" or "floor:<name>"
MODEL, FLOOR = "model", "floor:"


class Score(StageKind):
    """Writes `scores.npz`; returns for each scored text (`model`, `floor:copy`, ...) items and missing per metric."""

    version: ClassVar[int] = 1

    def run(self, context: StageContext) -> Mapping[str, Any]:
        """Raises UserError for a metric whose package is missing."""
        texts = read_texts(context.inputs["data"].folder, context.spec["split"])
        outputs = context.inputs.get("outputs")
        if outputs is not None:
            written = {MODEL: joined(texts, read_columns(outputs.folder / OUTPUTS))}
        else:
            written = {name: {**_plain(texts), "output": texts[name]} for name in texts if name.startswith(FLOOR)}
        found: dict[str, Floats] = {}
        missing: dict[str, dict[str, int]] = {}
        for who, columns in written.items():
            for row in context.spec["metrics"]:
                statistics = np.asarray(scorer_of(row).statistics(columns), np.float64)
                found[f"{who}/{row['kind']}"] = statistics
                missing.setdefault(who, {})[row["kind"]] = int(np.isnan(statistics).any(axis=1).sum())
        with (context.folder / SCORES).open("wb") as file:
            np.savez(file, allow_pickle=False, **found)
        return {"num_items": len(texts["item"]), "missing": missing}


def scorer_of(row: Mapping[str, Any]) -> Scorer:
    """The scorer that a row of a stage's `metrics` names."""
    options = {name: value for name, value in row.items() if name not in ("kind", "version")}
    scorer: Scorer = catalog.find("scorer", row["kind"])(**options)
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
    import pyarrow.parquet as pq

    columns: dict[str, list[Any]] = pq.read_table(path).to_pydict()
    return columns


def joined(texts: Columns, outputs: Columns) -> dict[str, list[Any]]:
    """Outputs with the texts of their items. A row for each item, the first sample where there are several."""
    first: dict[str, int] = {}
    for place, item in enumerate(outputs["item"]):
        first.setdefault(item, place)
    places = [first.get(item) for item in texts["item"]]
    taken = {name: [None if place is None else column[place] for place in places]
             for name, column in outputs.items() if name not in ("item", "cluster")}
    return {**_plain(texts), **taken}


def _plain(texts: Columns) -> dict[str, list[Any]]:
    return {name: list(column) for name, column in texts.items() if not name.startswith(FLOOR)}
