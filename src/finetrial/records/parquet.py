"""Reading small parquet files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def read_table(path: Path) -> Any:
    """A parquet file as a pyarrow table. Not by `pyarrow.parquet.read_table`, which imports the layer for data sets of
    many files and pandas with it: as long as a whole report takes."""
    from pyarrow.parquet import ParquetFile

    with ParquetFile(path) as file:
        return file.read(use_threads=False)  # small: handing it to another thread takes longer than reading it


def numbers_of(column: Any) -> NDArray[Any]:
    """A column of numbers without nulls. Not by its own `to_numpy`, which imports pandas too."""
    return np.concatenate([np.empty(0), *map(np.from_dlpack, column.chunks)]) if column.num_chunks != 1 else \
        np.from_dlpack(column.chunks[0])
