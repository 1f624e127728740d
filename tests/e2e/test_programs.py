"""A trial whose outputs are programs: sampled, run in the sandbox, counted, on a task of which there are only test rows."""

from __future__ import annotations

from pathlib import Path

import pytest
from programs import NUM_PROBLEMS, content_with_problems

from finetrial.run.options import RunOptions
from finetrial.run.trial import run_study
from finetrial.sandbox import probe
from finetrial.spec.io import parse_study
from finetrial.stages.score import read_columns


@pytest.mark.skipif(bool(probe().missing), reason=f"no sandbox on this machine: {probe().missing}")
@pytest.mark.slow
def test_pass_at_k(tmp_path: Path) -> None:
    sampling = {"num_samples": 3, "temperature": 0.8, "pass_at": 2}
    content = content_with_problems(tmp_path, sampling=sampling)
    study = parse_study({**content, "arms": content["arms"][:1], "seeds": 2}, "programs")
    trial = run_study(study, RunOptions(runs=tmp_path / "runs", view=False, figures=False), relative_to=tmp_path)
    assert trial.results.status == "complete"
    scores = [row for row in trial.results.scores if row.metric == "pass-at-k" and row.task == "problems"]
    assert {row.arm for row in scores} == {"base", "full", "floor:copy"}
    assert all(row.n == NUM_PROBLEMS and row.n_missing == 0 for row in scores)
    assert all(row.value == 0.5 for row in scores if row.arm in ("base", "full"))
    written = [read_columns(path) for path in (tmp_path / "runs" / ".store").glob("generate/*/*/outputs.parquet")]
    assert len(written) == 3 and all(columns["sample"] == [0, 1, 2] * NUM_PROBLEMS for columns in written)
    assert any(len(set(columns["output"][:3])) > 1 for columns in written)
