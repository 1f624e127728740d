"""What a scorer is: statistics per item, and the value as a function of their sums.

Predictions are kept raw, as columns; a scorer reads them and needs no model. Each item becomes a vector of k numbers
(for nats per token: its loss and its number of target tokens). Any set of items is scored by summing the vectors and
calling `aggregate`, so that means, ratios and corpus metrics all have the same form. An item that cannot be scored is
a row of NaN: missing, never zero.

Predictions of losses have the columns `item`, `cluster`, `nll` (nats, summed over the item's target tokens),
`num_tokens` (target tokens) and `num_bytes` (UTF-8 bytes of the target text). Generated outputs have `item`,
`cluster`, `sample`, `input`, `reference`, `output`, `num_new_tokens` and `finished` (`scorers/outputs.py`). Programs that
were run have `item`, `cluster`, `num_samples` and `num_passed`. Probes have `item`, `cluster`, `kl` and `num_tokens`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from finetrial.catalog import name_of
from finetrial.errors import DataError, UserError
from finetrial.records.table import Floats, Metric
from finetrial.settings import Settings

if TYPE_CHECKING:
    from finetrial.tasks.base import Task

Columns = Mapping[str, Sequence[Any]]


class Scorer(Settings, ABC):
    """A metric. The file's name is the registered name (`bits_per_byte.py` -> `bits-per-byte`).

    `version` is bumped when the same predictions get another value. `packages` are those that compute for it: their
    versions are part of the key of what it scores. `best` and `worst` are the ends of the scale (infinite where there is
    none).
    """

    version: ClassVar[int] = 1
    packages: ClassVar[tuple[str, ...]] = ()
    unit: ClassVar[str]
    higher_is_better: ClassVar[bool]
    best: ClassVar[float]
    worst: ClassVar[float]
    needs: ClassVar[Literal["losses", "outputs", "probe"]] = "losses"
    executes: ClassVar[bool] = False  # True: it reads what became of the outputs as programs (`stages/execute.py`)
    summary: ClassVar[str] = ""

    @abstractmethod
    def statistics(self, predictions: Columns) -> Floats:
        """Statistics per item, [n, k]; NaN rows are items without a score. Raises DataError for a missing column."""

    @abstractmethod
    def aggregate(self, sums: Floats) -> Floats:
        """The metric of summed statistics: [..., k] -> [...]. NaN where nothing was summed."""

    @classmethod
    def check(cls, task: Task) -> None:
        """Raise UserError if this metric cannot be read from what is predicted on `task`."""
        if cls.needs == "outputs" and not task.generates:
            raise UserError(f"the metric {name_of(cls)} reads generated outputs, and the task {name_of(type(task))} "
                            "generates none", "name a metric of losses (nats-per-token, perplexity, bits-per-byte), or "
                            "a task that generates", code="metric")
        if cls.executes and not task.is_tested:
            raise UserError(f"the metric {name_of(cls)} runs programs with their tests, and the items of the task "
                            f"{name_of(type(task))} have none", "name another metric, or a task with tests: humaneval, mbpp, or "
                            "rows of one's own with a `test` (prompt-completion with `program`)", code="metric")

    def metric(self) -> Metric:
        """What the analysis needs to know of this scorer."""
        return Metric(name=name_of(type(self)), version=self.version, unit=self.unit,
                      higher_is_better=self.higher_is_better, aggregate=self.aggregate,
                      least=min(self.ends), most=max(self.ends))

    @property
    def ends(self) -> tuple[float, float]:
        """Between which every value lies: `best` and `worst`, unless the best lies in the middle of the scale."""
        return self.best, self.worst


def column(predictions: Columns, name: str) -> Floats:
    """A numeric column as float64 [n]; None becomes NaN. Raises DataError if the column is absent."""
    if name not in predictions:
        raise DataError(f"the predictions have no column {name!r} (they have: {', '.join(sorted(predictions))})",
                        "score them with a metric that needs what was predicted, or predict again")
    return np.asarray(predictions[name], dtype=np.float64)


def rows(*columns: Floats) -> Floats:
    """Columns side by side, [n, k]; an item with any value missing or infinite is missing in all of them."""
    table = np.stack(columns, axis=-1)
    table[~np.isfinite(table).all(axis=-1)] = np.nan
    return table


def ratio(numerator: Floats, denominator: Floats) -> Floats:
    """numerator / denominator, NaN where the denominator is not positive."""
    unknown = np.full(np.shape(denominator), np.nan)
    quotient: Floats = np.divide(numerator, denominator, out=unknown, where=denominator > 0)
    return quotient
