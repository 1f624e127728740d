"""The data stage: what it says where a split has too few rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from audit_designs import documents, fair_content, prepared, write_text

from finetrial.errors import DataError
from finetrial.spec.io import parse_study


def content(folder: Path, texts: list[str]) -> dict[str, Any]:
    write_text(folder / "long.txt", texts)
    return fair_content(tasks=[{"name": "new", "task": {"kind": "text", "path": "long.txt"}, "num_val": 5, "num_test": 5}], controls=None)


@pytest.mark.parametrize(("texts", "problem", "mend"), [
    (["\n".join(documents(300))], "it is one document", "separate documents by blank lines"),
    (documents(30), "usable rows", "give more data")])
def test_too_few_rows_of_a_split(texts: list[str], problem: str, mend: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=problem) as caught:
        prepared(parse_study(content(tmp_path, texts), "study"), tmp_path)
    assert mend in caught.value.mend
