"""Rows of a data file in any of the usual formats, read strictly: every error names the file and the line.

`.jsonl`, `.json` (a list of objects) and `.csv` (with a header; an empty cell is None, any other a text), each also with `.gz` behind it,
and `.parquet`. Only the columns asked for are kept.
"""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from finetrial.errors import DataError, nearest
from finetrial.tasks.local import decoded

FORMATS = (".jsonl", ".json", ".csv", ".parquet")
FORMATS_TOLD = ".jsonl, .json or .csv (also with .gz), or .parquet"
TRUTH = {"true": True, "1": True, "false": False, "0": False}
UNREADABLE = (ValueError, RecursionError)  # what json.loads raises: no JSON, a number of over 4,300 digits, lists too deep
SEPARATORS = {"semicolons": ";", "tabs": "\t", "vertical bars": "|"}
BATCH_ROWS = 1_000
MOST_CELL_CHARACTERS = (1 << 31) - 1  # a cell of a .csv may hold an article


@dataclass(frozen=True)
class Record:
    """One row: `values` by column, where a person finds it, and every column that the file has there."""

    values: Mapping[str, Any]
    where: str
    there: Collection[str] = ()

    def text(self, column: str) -> str:
        """A text that must be there. Raises DataError otherwise."""
        value = self.values.get(column)
        if not isinstance(value, str) or not value.strip():
            raise DataError(f'{self.where}: "{column}" is {_shown(value)}, expected a text',
                            f'write it as a text: "{value}"' if isinstance(value, (int, float)) else
                            "every row needs it; leave out rows without")
        return value.replace("\r\n", "\n")

    def optional_text(self, column: str) -> str:
        """A text, or '' where there is none or a blank one. Raises DataError for a value of another kind."""
        value = self.values.get(column)
        return "" if value is None or (isinstance(value, str) and not value.strip()) else self.text(column)

    def texts(self, column: str) -> list[str]:
        """A list of texts, perhaps empty; in a .csv it is written as JSON. Raises DataError for anything else."""
        value = self.values.get(column)
        if isinstance(value, str):
            try:
                value = whole_texts(json.loads(value), self.where)
            except UNREADABLE:
                value = [value]
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise DataError(f'{self.where}: "{column}" is {_shown(value)}, expected a list of texts', "mend the row")
        return [item.replace("\r\n", "\n") for item in value]

    def integer(self, column: str) -> int | None:
        """A whole number, or None where there is none. Raises DataError for anything else."""
        value = self.values.get(column)
        if value is None or value == "":
            return None
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            number = float("nan")
        if not number.is_integer():
            raise DataError(f'{self.where}: "{column}" is {_shown(value)}, expected a whole number', "mend the row")
        return int(number)

    def truth(self, column: str) -> bool | None:
        """True or false, in a .csv as that word; None where there is none. Raises DataError for anything else."""
        value = self.values.get(column)
        if value is None or value == "":
            return None
        if str(value).lower() not in TRUTH:
            raise DataError(f'{self.where}: "{column}" is {_shown(value)}, expected true or false', "mend the row")
        return TRUTH[str(value).lower()]


def read_records(path: Path, required: Sequence[str], optional: Sequence[str] = (),
                 names: Mapping[str, str] | None = None) -> list[Record]:
    """The rows of a file, as `iterate_records` gives them one by one."""
    return list(iterate_records(path, required, optional, names))


def iterate_records(path: Path, required: Sequence[str], optional: Sequence[str] = (),
                    names: Mapping[str, str] | None = None) -> Iterator[Record]:
    """The rows of a file with these columns; `names` says how the file calls a column, where it differs.

    A .jsonl, .csv or .parquet is read as it goes, so that it may be larger than the memory. Raises DataError for an
    unknown format, a damaged file, a row that cannot be read, and a missing column (with the columns that are there).
    """
    named = {column: (names or {}).get(column, column) for column in (*required, *optional)}
    is_empty = True
    for values, where in _found(path, list(named.values())):
        is_empty = False
        for column in required:
            if named[column] not in values:
                raise missing_column(column, named[column], values, place_of_columns(path, where))
        yield Record({column: whole_texts(values.get(name), where) for column, name in named.items()}, where, values.keys())
    if is_empty:
        raise DataError(f"{path} has no rows", f"expected the columns {', '.join(named[name] for name in required or named)}")


def columns_of(path: Path) -> tuple[Collection[str], str]:
    """The columns of a file's first row, and where they are written: of a .csv, the header. Raises DataError for a file without
    rows, and for a .csv that is not separated by commas."""
    for values, where in _found(path, []):
        return values.keys(), place_of_columns(path, where)
    raise DataError(f"{path} has no rows", "it is empty, or holds a header only")


def place_of_columns(path: Path, where: str) -> str:
    """Where the columns of a row are named: of a .csv in its header."""
    return f"{path}, line 1" if _format(path) == ".csv" else where


def _found(path: Path, wanted: Sequence[str]) -> Iterable[tuple[dict[str, Any], str]]:
    """(row, where it is) one after the other; of a parquet file only the columns that are wanted have values."""
    suffix = _format(path)
    if not is_table(path):
        raise DataError(f"{path}: a data file is {FORMATS_TOLD}, not {path.suffix or 'nothing'!r}",
                        "save it as .csv, separated by commas" if suffix == ".tsv" else "rename or convert it")
    if suffix == ".parquet":
        return _parquet(path, wanted)
    return _csv(path, wanted) if suffix == ".csv" else {".jsonl": _json_lines, ".json": _json_list}[suffix](path)


def is_table(path: Path) -> bool:
    """Whether a file's name is one of a format that has columns."""
    return _format(path) in FORMATS and not path.name.lower().endswith(".parquet.gz")


def _format(path: Path) -> str:
    return Path(path.name.lower().removesuffix(".gz")).suffix


def text_lines(path: Path) -> Iterator[str]:
    """The lines of a text file, perhaps compressed, without their ends. Raises DataError for what is not UTF-8."""
    return (line.removesuffix("\n") for line in _lines(path))


def _lines(path: Path) -> Iterator[str]:
    """The lines of a text file, perhaps compressed, with their ends, which are \\n."""
    with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as stream:
        try:
            for number, line in enumerate(stream, start=1):
                yield decoded(line, path, first_line=number)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise DataError(f"{path} is no intact gzip file: {error}", "fetch or make it again") from error


def _json_lines(path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    for number, line in enumerate(_lines(path), start=1):
        if line.strip():
            where = f"{path}, line {number}"
            try:
                value = json.loads(line.rstrip("\n"))
            except json.JSONDecodeError as error:
                raise DataError(f"{where}: not JSON ({error.msg} at column {error.colno})",
                                "expected one object a line") from error
            except UNREADABLE as error:
                raise DataError(f"{where}: JSON that cannot be read ({error})", "mend the row, or leave it out") from error
            yield _object(value, where), where


def _json_list(path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    try:
        rows = json.loads("".join(_lines(path)))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}: not JSON ({error.msg} at column {error.colno})",
                        "expected one list of objects; objects line by line go into a .jsonl") from error
    except UNREADABLE as error:
        raise DataError(f"{path}: JSON that cannot be read ({error})", "as a .jsonl it would be told in which line") from error
    if not isinstance(rows, list):
        raise DataError(f"{path} holds a {type(rows).__name__}, expected a list of objects", "write [{...}, {...}]")
    for number, row in enumerate(rows, start=1):
        where = f"{path}, row {number}"
        yield _object(row, where), where


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f"{where}: a {type(value).__name__}, expected an object", 'for example {"text": "..."}')
    return value


def whole_texts(value: Any, where: str) -> Any:
    """A value of a row, if UTF-8 can hold its texts. Raises DataError for half of a surrogate pair, as JSON may have it."""
    inside = [value]
    while inside:
        item = inside.pop()
        if isinstance(item, str):
            try:
                item.encode()
            except UnicodeEncodeError as error:
                half = f"\\u{ord(item[error.start]):04x}"
                raise DataError(f"{where}: {half} is half of a character, which UTF-8 cannot hold",
                                f"write both halves, or leave {half} out; cut texts between characters") from error
        elif isinstance(item, Mapping):
            inside += [*item.keys(), *item.values()]
        elif isinstance(item, list):
            inside += item
    return value


def _csv(path: Path, wanted: Sequence[str]) -> Iterator[tuple[dict[str, Any], str]]:
    before = csv.field_size_limit(MOST_CELL_CHARACTERS)
    lines = _lines(path)
    first = next(lines, "")
    _check_separated(first, path)
    reader = csv.reader(chain([first], lines), strict=True)
    try:
        header = next(reader, [])
        twice = [name for name, number in Counter(header).items() if number > 1 and (name or name in wanted)]
        if twice:  # columns without a name are usual, and nobody asks for them
            raise DataError(f"{path}, line {reader.line_num}: two columns are called {', '.join(map(repr, twice))}",
                            "rename one of them, or leave it out")
        for cells in filter(None, reader):
            where = f"{path}, line {reader.line_num}"
            if len(cells) != len(header):
                raise DataError(f"{where}: {len(cells)} cells, the header has {len(header)}",
                                "quote cells that hold commas or line ends")
            yield {name: cell or None for name, cell in zip(header, cells, strict=True)}, where
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}", "save it as CSV with quoted cells") from error
    finally:
        csv.field_size_limit(before)


def _check_separated(header: str, path: Path) -> None:
    """Raise DataError for a header without a comma that holds another separator."""
    separator = next((name for name, sign in SEPARATORS.items() if sign in header and "," not in header), None)
    if separator is not None:
        raise DataError(f"{path}, line 1: the header is {_shown(header.strip())}: the file seems to be separated by {separator}",
                        "save it as CSV separated by commas")


def _parquet(path: Path, wanted: Sequence[str]) -> Iterator[tuple[dict[str, Any], str]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            there = file.schema_arrow.names
            chosen = [name for name in wanted if name in there] or there[:1]
            number = 0
            for batch in file.iter_batches(BATCH_ROWS, columns=chosen):
                for row in batch.to_pylist():
                    number += 1
                    yield {**dict.fromkeys(there), **row}, f"{path}, row {number}"
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is no intact parquet file: {error}", "fetch or make it again") from error


def missing_column(column: str, name: str, there: Iterable[str], where: str) -> DataError:
    """The error for a column that a row lacks, with those that it has."""
    names = sorted(there)
    its_name = (nearest(name, names) or ["its name in the file"])[0]
    return DataError(f"{where}: no column {name!r}; there are {', '.join(map(repr, names)) or 'none'}",
                     f"rename it, or say what it is called: columns: {{{column}: {its_name}}}")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
