"""A budget that is solved from measured times: nothing without profiles, then `profile`, then a run and its report."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from tiny_study import tiny_content

from finetrial.cli import main
from finetrial.spec.io import read_study


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    content = tiny_content(tmp_path)
    content["arms"][1]["match"] = {"arm": "full", "quantity": "train_time"}
    content["training"]["budget"] = "40 steps"
    content |= {"seeds": 1, "controls": None, "hypotheses": []}
    content["arms"] = [{**arm, "learning_rates": [0.01]} for arm in content["arms"]]
    Path("mine.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return "mine.yaml"


@pytest.mark.slow
def test_training_time_is_matched_after_a_profile(study: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", study]) == 2 == main(["run", study, "--device", "cpu"])
    assert "measure them first: finetrial profile tiny" in capfd.readouterr().err

    assert main(["profile", study, "--device", "cpu"]) == 0
    lines = [line.split() for line in capfd.readouterr().out.splitlines()]
    assert [line[:3] for line in lines[1:]] == [["full", "mine", "new"], ["lora-r2", "mine", "new"]]
    assert main(["gc"]) == 0 and "nothing to free" in capfd.readouterr().out  # what was measured is somebody's

    assert main(["plan", study]) == 0
    assert "to full on train_time: budget" in " ".join(capfd.readouterr().out.split())
    assert main(["run", study, "--device", "cpu"]) == 0
    resolved = read_study(Path("runs/tiny-custom-small/study.yaml"), Path())
    solved = resolved.arm("lora-r2").match.solved
    assert solved is not None and solved.own["mine"] == pytest.approx(solved.other["mine"], rel=0.05)  # a step is a 24th
    assert resolved.training_of(resolved.arm("lora-r2")).budget.amount == solved.value
    assert "Matched budgets" in Path("runs/tiny-custom-small/analysis.md").read_text(encoding="utf-8")
