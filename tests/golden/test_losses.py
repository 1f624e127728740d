"""Loss curves of tiny models against the numbers in losses.json."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest


def _make() -> Any:
    spec = importlib.util.spec_from_file_location("golden_make", Path(__file__).parent / "make.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MAKE = _make()
GOLDEN = json.loads(MAKE.FILE.read_text())


@pytest.mark.parametrize("case", MAKE.CASES, ids=MAKE.name_of)
def test_losses(case: tuple[str, str, str], one_thread: None) -> None:
    found = MAKE.curve(case)
    assert found == pytest.approx(GOLDEN[MAKE.name_of(case)], abs=1e-4)
    assert found[-1] < found[0]
