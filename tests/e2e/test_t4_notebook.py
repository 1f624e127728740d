"""The notebook for a GPU, on a CPU: its study is planned as it is, and run as a tiny one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from notebooks import execute
from tiny_study import tiny_content

from finetrial.plan.audit import audit
from finetrial.spec.io import parse_study
from finetrial.spec.study import Study

NOTEBOOK = Path(__file__).parents[2] / "docs" / "notebooks" / "t4.ipynb"


@pytest.mark.slow
def test_its_cells_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    content = tiny_content(tmp_path)
    arms = [{"name": "lora", "components": "lora:rank=2", "learning_rates": [0.05]}]
    learns = {"name": "H1", "statement": "LoRA learns.",
              "contrast": {"left": "lora", "right": "base", "task": "new", "expect": "greater"}}
    tiny = parse_study({**content, "arms": arms, "controls": None, "hypotheses": [learns], "seeds": 1}, "study")
    changes: dict[str, Any] = {name: getattr(tiny, name) for name in (
        "name", "scale", "bases", "tasks", "sequences", "arms", "controls", "hypotheses", "training", "seeds",
        "accept_threats")}
    names = execute(NOTEBOOK, {"CHANGES": changes, "RUNS": str(tmp_path / "runs")})
    assert "LoRA r=8, 100 examples" in capsys.readouterr().out
    assert names["run"].results.status == "complete" and names["run"].report.is_file()


def test_the_arms_in_4_bits_stand_beside_the_others() -> None:
    cells = ["".join(cell["source"]) for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]]
    names: dict[str, Any] = {"SIZE": "published-budget", "CHANGES": {}, "QLORA": True}
    exec(next(cell for cell in cells if "QLORA" in cell and "import" in cell), names)  # noqa: S102 (a notebook of ours)
    study = Study.model_validate(names["study"].model_dump())
    assert study.training.precision == "fp16"
    assert {arm.name: arm.quantization for arm in study.arms} == {
        "r8-n100": None, "r32-n100": None, "q-r8-n100": "nf4", "q-r32-n100": "nf4"}
    assert {finding.rule for finding in audit(study) if finding.severity == "threat"} == set()
