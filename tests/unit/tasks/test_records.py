"""Data files in every format give the same rows; bad ones give errors that name file, line and columns."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finetrial.errors import DataError
from finetrial.tasks.sources.records import Record, read_records

ROWS = [{"a": "one, \"two\"\nthree", "b": True, "c": None}, {"a": "f\u00fcnf", "b": False, "c": "x" * 200_000}]


def _csv_cell(value: Any) -> str:
    return '"' + ("" if value is None else str(value)).replace('"', '""') + '"'


def _write(folder: Path, name: str) -> Path:
    path = folder / name
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(ROWS), path)
        return path
    text = {"jsonl": "\n".join(map(json.dumps, ROWS)) + "\n\n", "json": json.dumps(ROWS, indent=1),
            "csv": "a,b,c\n" + "".join(",".join(map(_csv_cell, row.values())) + "\n" for row in ROWS)
            }[name.split(".")[1]]
    data = text.encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


@pytest.mark.parametrize("name", ["x.jsonl", "x.json", "x.csv", "x.parquet", "x.jsonl.gz", "x.json.gz", "x.csv.gz"])
def test_formats(name: str, tmp_path: Path) -> None:
    records = read_records(_write(tmp_path, name), ["a"], ["b", "c", "d"])
    wanted = [{**row, "b": str(row["b"])} for row in ROWS] if ".csv" in name else ROWS  # a cell is a text
    assert [record.values for record in records] == [{**row, "d": None} for row in wanted]
    assert [record.truth("b") for record in records] == [True, False] and records[0].truth("c") is None
    assert str(tmp_path / name) in records[0].where


def test_columns_of_other_names(tmp_path: Path) -> None:
    for name in ("x.jsonl", "x.parquet"):
        (record, _) = read_records(_write(tmp_path, name), ["text"], names={"text": "a"})
        assert record.values == {"text": ROWS[0]["a"]}


@pytest.mark.parametrize(("name", "data", "message"), [
    ("x.jsonl", b'{"a": "1"}\n{"a": \n', "x.jsonl, line 2: not JSON"),
    ("x.jsonl", b'{"a": "1"}\n[]\n', "x.jsonl, line 2: a list, expected an object"),
    ("x.jsonl", b'{"a": "1"}\n\xff\n', "x.jsonl, line 2: byte 0xff is not UTF-8"),
    ("x.jsonl", b"\n", "x.jsonl has no rows"),
    ("x.jsonl", b'{"A": "1", "b": "2"}\n', "x.jsonl, line 1: no column 'a'; there are 'A', 'b'"),
    ("x.json", b'[{"a": "1"},\n{"a"}]', "x.json, line 2: not JSON"),
    ("x.json", b'{"a": "1"}', "x.json holds a dict, expected a list of objects"),
    ("x.json", b'[{"a": "1"}, 3]', "x.json, row 2: a int, expected an object"),
    ("x.csv", b"a,b\n1,2\n3\n", "x.csv, line 3: 1 cells, the header has 2"),
    ("x.csv", b'a,b\n1,"2" 3\n', "x.csv, line 2: "),
    ("x.csv", b"text,b\n1,2\n", "x.csv, line 1: no column 'a'; there are 'b', 'text'"),
    ("x.csv", b"", "x.csv has no rows"),
    ("x.csv", b"b,a,a,b\n1,2,3,4\n", "x.csv, line 1: two columns are called 'b', 'a'"),
    ("x.jsonl", b'{"a": "1"}\n{"a": "broken \\ud83d here"}\n', "x.jsonl, line 2: \\ud83d is half of a character"),
    ("x.jsonl", b'{"a": [{"b": ["\\uDE00"]}]}\n', "x.jsonl, line 1: \\ude00 is half of a character"),
    ("x.json", b'[{"a": "1"}, {"a": "\\ud83d"}]', "x.json, row 2: \\ud83d is half of a character"),
    ("x.jsonl", b'{"a": "1"}\n{"a": ' + b"9" * 5_000 + b"}\n", "x.jsonl, line 2: JSON that cannot be read (Exceeds the limit"),
    ("x.jsonl", b'{"a": ' + b"[" * 200_000 + b"]" * 200_000 + b"}\n", "x.jsonl, line 1: JSON that cannot be read ("),
    ("x.json", b'[{"a": ' + b"9" * 5_000 + b"}]", "x.json: JSON that cannot be read (Exceeds the limit"),
    ("x.json", b"[" * 200_000, "x.json: JSON that cannot be read ("),
    ("x.jsonl.gz", b"{}", "x.jsonl.gz is no intact gzip file"),
    ("x.jsonl.gz", gzip.compress(b'{"a": "1"}\n' * 99, mtime=0)[:-9], "x.jsonl.gz is no intact gzip file"),
    ("x.parquet", b"PAR1 and more", "x.parquet is no intact parquet file"),
    ("x.txt", b"a", "a data file is .jsonl, .json or .csv"),
    ("x.parquet.gz", b"a", "a data file is .jsonl, .json or .csv"),
    ("x", b"a", "not 'nothing'"),
])
def test_bad_files(name: str, data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError) as caught:
        read_records(tmp_path / name, ["a"])
    assert message in caught.value.problem and caught.value.mend


def test_a_missing_column_of_a_parquet_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no column 'article'; there are 'a', 'b', 'c'") as caught:
        read_records(_write(tmp_path, "x.parquet"), ["article"])
    assert "columns: {article: " in caught.value.mend


def test_characters_in_two_halves_and_columns_that_nobody_reads(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes(b'{"a": "whole \\ud83d\\ude00", "b": "half \\ud83d"}\n')
    assert read_records(tmp_path / "x.jsonl", ["a"])[0].values == {"a": "whole \U0001f600"}
    (tmp_path / "x.csv").write_text("a,,\n1,2,3\n")
    assert read_records(tmp_path / "x.csv", ["a"])[0].values == {"a": "1"}
    with pytest.raises(DataError, match="two columns are called ''"):
        read_records(tmp_path / "x.csv", ["b"], names={"b": ""})
    for value in ('["\\ud83d"]', '[["\\ud83d"]]'):
        with pytest.raises(DataError, match=r"here: \\ud83d is half of a character"):
            Record({"j": value}, "here").texts("j")
    assert Record({"j": "9" * 5_000}, "here").texts("j") == ["9" * 5_000]


def test_values() -> None:
    record = Record({"t": "a\r\nb", "e": "", "n": 3, "f": 2.0, "s": "7", "l": ["a\r\n"], "j": '["x", "y"]', "w": "one",
                     "nan": float("nan"), "inf": float("inf"), "large": 10 ** 400, "no": "False"}, "here")
    assert record.text("t") == "a\nb" and record.optional_text("e") == record.optional_text("absent") == ""
    assert [record.integer(name) for name in ("n", "f", "s", "e")] == [3, 2, 7, None]
    assert [record.texts(name) for name in ("l", "j", "w", "absent")] == [["a\n"], ["x", "y"], ["one"], []]
    assert [record.truth(name) for name in ("no", "e", "absent")] == [False, None, None]
    for ask in (lambda: record.text("e"), lambda: record.text("n"), lambda: record.integer("t"), lambda: record.truth("w"),
                lambda: record.integer("nan"), lambda: record.integer("inf"), lambda: record.integer("large"),
                lambda: record.texts("n"), lambda: record.optional_text("n")):
        with pytest.raises(DataError, match=r'here: ".*" is .*, expected (a|true)'):
            ask()
