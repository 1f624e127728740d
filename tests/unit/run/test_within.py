"""How many seeds fit into a time, and what is said of it."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tiny_study import tiny_content

from finetrial.run.within import fit_seeds
from finetrial.spec.study import Study


@pytest.mark.parametrize("from_before", [False, True])
def test_what_earlier_runs_computed_is_said_not_to_count(tmp_path: Path, from_before: bool) -> None:
    study = Study.model_validate({**tiny_content(tmp_path), "seeds": 5})
    said: list[str] = []

    def run(stages: Any) -> Any:
        ids = [stage.id for stage in stages]
        return SimpleNamespace(found=lambda stage: SimpleNamespace(record=SimpleNamespace(seconds=0.1)),
                               computed=frozenset(ids[len(ids) // 2:] if from_before else ids))

    found = fit_seeds(study, 180.0, run, lambda plan: {}, jobs=1, began=time.monotonic(), relative_to=tmp_path,
                      say=said.append, forecast=False)
    assert found.seeds == (0, 1, 2, 3, 4)
    assert said[0].startswith("3 seeds are done after") and said[0].endswith("; 5 of 5 fit into 3.0 minutes")
    assert ("of this run (earlier runs, in which parts of them were computed, are not counted)" in said[0]) is from_before
