"""The data stage: what it says where a split has too few rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from audit_designs import documents, fair_content, prepared, write_text

from finetrial.errors import DataError, SpecError
from finetrial.spec.io import parse_study


def content(folder: Path, texts: list[str]) -> dict[str, Any]:
    write_text(folder / "long.txt", texts)
    return fair_content(tasks=[{"name": "new", "task": {"kind": "text", "path": "long.txt"}, "num_val": 5, "num_test": 5}], controls=None)


@pytest.mark.parametrize(("texts", "problem", "mend"), [
    (["\n".join(documents(300))], "it is one document", "separate documents by blank lines"),
    (documents(30), "usable rows", "give more data"),
    ([*documents(30), *documents(30)], r"30 \(exact duplicate\) were left out", "give more data"),
    (documents(80), "usable rows", "lower num_test to at most")])
def test_too_few_rows_of_a_split(texts: list[str], problem: str, mend: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=problem) as caught:
        prepared(parse_study(content(tmp_path, texts), "study"), tmp_path)
    assert mend in caught.value.mend


TASK = """
from finetrial.tasks.base import Example, Examples, Segment, Task


class Own(Task):
    def source_digest(self):
        return "source"

    def load(self):
        return Examples([Example(id=f"doc{number % 40}", cluster=str(number), split="SPLIT", source="a, line 1", fields={"text": "x"})
                         for number in range(60)], "digest")

    def render(self, example):
        return (Segment("x", True),)
"""


@pytest.mark.parametrize(("split", "message"), [("train", "the task own gives two rows for train the id 'doc0'"),
                                                ("valid", "the task own gives the row 'doc0' the split 'valid'")])
def test_a_tasks_rows_have_ids_and_splits(split: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(TASK.replace("SPLIT", split))
    made = fair_content(tasks=[{"name": "new", "task": "own", "num_val": 5, "num_test": 5}], controls=None, plugins=["own.py"])
    with pytest.raises(DataError, match=message):
        prepared(parse_study(made, "study", plugins_in=tmp_path), tmp_path)


def test_a_task_that_is_not_finished_says_what_it_lacks(tmp_path: Path) -> None:
    (tmp_path / "half.py").write_text("from finetrial.tasks.base import Task\n\n\nclass Half(Task):\n    pass\n")
    with pytest.raises(SpecError, match="the task 'half' is not finished: its class lacks load, render, source_digest"):
        parse_study(fair_content(tasks=[{"name": "new", "task": "half"}], plugins=["half.py"]), "study", plugins_in=tmp_path)
