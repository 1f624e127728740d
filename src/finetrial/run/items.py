"""`records.parquet`: every score of every item, for analyses of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from finetrial.records.table import Table


def write_items(table: Table, path: Path) -> None:
    """One row for each cell, phase, task, split, metric and item, with the item's own value."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    types, parts = _item_types(), []
    for score in table.scores:
        if score.statistics is None:
            continue
        count, key = len(score.items), score.cell
        constant = {"base": key.base, "arm": key.arm, "sequence": key.sequence, "seed": key.seed,
                    "phase": score.phase, "learning_rate": key.point.learning_rate, "rank": key.point.rank,
                    "num_train": key.point.num_train, "task": score.task, "split": score.split,
                    "routing": score.routing, "metric": score.metric}
        values = table.metrics[score.metric].aggregate(score.statistics)
        columns = {name: pa.repeat(pa.scalar(value, types[name]), count) for name, value in constant.items()}
        parts.append(pa.table({**columns, "item": pa.array(score.items.ids), "cluster": pa.array(score.items.clusters),
                               "value": pa.array(values)}))
    if parts:
        pq.write_table(pa.concat_tables(parts), path, compression="zstd")


def _item_types() -> dict[str, Any]:
    import pyarrow as pa

    text, whole, number = pa.string(), pa.int64(), pa.float64()
    return {"base": text, "arm": text, "sequence": text, "seed": whole, "phase": whole, "learning_rate": number,
            "rank": whole, "num_train": whole, "task": text, "split": text, "routing": text, "metric": text}
