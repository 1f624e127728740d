"""Packing: which documents share a row."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence

import numpy as np

IntArray = np.ndarray[tuple[int, ...], np.dtype[np.int64]]
Row = tuple[int, ...]  # the documents of a row, in order


def pack(order: Sequence[int] | IntArray, lengths: IntArray, capacity: int, *, open_rows: int = 64) -> list[Row]:
    """Best fit with a bounded look-back: each document in order goes to the open row it fills best, else opens one.

    At most `open_rows` rows are open; the oldest is closed first, so documents stay near their place in `order`.
    Rows come out in the order in which they were opened.
    """
    rows: list[list[int]] = []
    spaces: list[tuple[int, int]] = []  # (free tokens, row) of the open rows, sorted
    oldest = 0
    free: dict[int, int] = {}
    for document in order:
        length = int(lengths[document])
        at = bisect_left(spaces, (length, -1))
        if at < len(spaces):
            space, row = spaces.pop(at)
        else:
            space, row = capacity, len(rows)
            rows.append([])
        rows[row].append(int(document))
        free[row] = space - length
        insort(spaces, (free[row], row))
        if len(spaces) > open_rows:
            while (free[oldest], oldest) not in spaces:
                oldest += 1
            spaces.remove((free[oldest], oldest))
    return [tuple(row) for row in rows]
