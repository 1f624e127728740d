"""Several samples an item: what a score is made of, for models and for floors."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finetrial.sandbox import probe
from finetrial.sandbox.languages import runtime_version
from finetrial.stages.base import StageContext
from finetrial.stages.execute import Execute
from finetrial.stages.score import Score, joined, read_columns, read_scores, samples

TEXTS = {"item": ["a", "b", "c"], "cluster": ["1", "2", "3"], "input": ["x", "y", "z"], "reference": ["one", "two", "three"],
         "prompt": ["", "", ""], "test": ["\nassert f() == 1"] * 3, "floor:copy": ["f = lambda: 1", "f = lambda: 2", "f"]}
OUTPUTS = {"item": ["a", "a", "b"], "cluster": ["1", "1", "2"], "sample": [0, 1, 0], "output": ["one", "none", "two"]}
EXACT, PASS = {"kind": "exact-match"}, {"kind": "pass-at-k", "k": 2}


def context(folder: Path, spec: dict[str, Any], **inputs: Path) -> StageContext:
    own = folder / f"own-{len(list(folder.iterdir()))}"
    own.mkdir()
    pq.write_table(pa.table(TEXTS), folder / "test-texts.parquet")
    found: Any = {name: SimpleNamespace(folder=place) for name, place in {"data": folder, **inputs}.items()}
    return StageContext("stage", {"split": "test", **spec}, found, own, folder / "checkpoint", "cpu", None,
                        logging.getLogger(), lambda _: None, {})


def test_an_item_has_the_mean_of_its_samples(tmp_path: Path) -> None:
    pq.write_table(pa.table(OUTPUTS), tmp_path / "outputs.parquet")
    here = context(tmp_path, {"metrics": [EXACT]}, outputs=tmp_path)
    values = Score().run(here)
    assert read_scores(here.folder)["model"]["exact-match"][:2].tolist() == [[0.5, 1.0], [1.0, 1.0]]
    assert values["missing"] == {"model": {"exact-match": 1}}  # c was not answered
    assert [columns["output"] for columns in samples(TEXTS, OUTPUTS)] == [["one", "two", None], ["none", None, None]]
    assert joined(TEXTS, OUTPUTS)["output"] == ["one", "two", None]


def test_counts_of_programs_are_read_item_by_item(tmp_path: Path) -> None:
    pq.write_table(pa.table(OUTPUTS), tmp_path / "outputs.parquet")
    pq.write_table(pa.table({"who": ["model"] * 2, "item": ["b", "a"], "cluster": ["2", "1"], "num_samples": [2, 3],
                             "num_passed": [0, 1]}), tmp_path / "executed.parquet")
    here = context(tmp_path, {"metrics": [PASS, EXACT]}, outputs=tmp_path, executed=tmp_path)
    Score().run(here)
    found = read_scores(here.folder)["model"]["pass-at-k"]
    assert np.allclose(found[:2], [[2 / 3, 1.0], [0.0, 1.0]]) and np.isnan(found[2]).all()


@pytest.mark.skipif(bool(probe().missing), reason=f"no sandbox on this machine: {probe().missing}")
def test_a_floor_gives_the_same_answer_each_time(tmp_path: Path) -> None:
    executed = context(tmp_path, {"language": "python", "runtime": runtime_version("python")})
    assert Execute().run(executed)["num_passed"] == 1
    assert read_columns(executed.folder / "executed.parquet")["who"] == ["floor:copy"] * 3
    scored = context(tmp_path, {"metrics": [PASS]}, executed=executed.folder)
    Score().run(scored)
    assert read_scores(scored.folder)["floor:copy"]["pass-at-k"][:, 0].tolist() == [1.0, 0.0, 0.0]
