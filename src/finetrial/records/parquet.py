"""Reading small parquet files."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def read_table(path: Path) -> Any:
    """A parquet file as a pyarrow table. Not by `pyarrow.parquet.read_table`, which imports the layer for data sets of
    many files and pandas with it: as long as a whole report takes."""
    from pyarrow.parquet import ParquetFile

    with ParquetFile(path) as file:
        return file.read()
