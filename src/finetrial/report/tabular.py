"""Tables as data: the same `Table` becomes HTML and Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from finetrial.analysis import numbers
from finetrial.report.arms import ArmMark
from finetrial.report.facts import Estimate

OUTCOMES = {"OOM": "ran out of memory", "DIVERGED": "the loss diverged", "TIMEOUT": "ran out of time",
            "FAILED": "ended in an error"}


@dataclass(frozen=True)
class Column:
    """A column: its heading, a smaller second line, and the explanation shown on hover."""

    title: str
    note: str = ""
    help: str = ""


@dataclass(frozen=True)
class Cell:
    """`text` is read first, `note` and `more` small below it. `kind`: number, text, outcome (in words) or missing."""

    text: str
    note: str = ""
    more: str = ""
    kind: str = "text"
    help: str = ""


@dataclass(frozen=True)
class TableRow:
    """One row; `arm` gives the mark shown before the first cell."""

    cells: tuple[Cell, ...]
    arm: ArmMark | None = None


@dataclass(frozen=True)
class Table:
    """A table with its caption; the first cell of a row is its heading. `is_folded`: shown when asked for."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[TableRow, ...]
    is_folded: bool = False


def estimate_cell(estimate: Estimate, decimals: int | None = None) -> Cell:
    """A mean with interval and n; the outcome's word where nothing was measured; never a number for a failure."""
    if estimate.value is None:
        if not estimate.failures:
            return Cell("missing", estimate.note, kind="missing")
        word = max(sorted(estimate.failures), key=lambda name: estimate.failures[name])
        return Cell(word, numbers.counted(estimate.failures[word], "cell"), kind="outcome", help=OUTCOMES.get(word, ""))
    failed = [f"{number} {word}" for word, number in sorted(estimate.failures.items())]
    value, interval = numbers.with_interval(estimate.value, estimate.low, estimate.high, decimals)
    more = [_support(estimate), f"failed: {numbers.listed(failed)}" if failed else ""]
    return Cell(value, interval or "no interval", ", ".join(filter(None, more)), "number", estimate.note)


def shared_decimals(intervals: Iterable[tuple[float | None, float | None]]) -> int | None:
    """One precision for a column: the median of what its intervals support. None without any interval."""
    places = [numbers.decimals_for(low, high) for low, high in intervals if low is not None and high is not None]
    return statistics.median_low(places) if places else None


def known_or_not(text: str) -> Cell:
    """A cell of a number that may be unknown."""
    return Cell(text, kind="missing" if text == numbers.UNKNOWN else "number")


def _support(estimate: Estimate) -> str:
    words = [numbers.counted(estimate.num_seeds, "seed")] if estimate.num_seeds else []
    words += [numbers.counted(estimate.num_items, "item")] if estimate.num_items else []
    words += [f"{estimate.num_missing_items:,} unscored"] if estimate.num_missing_items else []
    return " \N{MULTIPLICATION SIGN} ".join(words[:2]) + "".join(f", {word}" for word in words[2:])
