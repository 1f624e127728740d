"""What is exported from a run's folder."""

from __future__ import annotations

import os
from pathlib import Path

from tiny_study import make_run

from finetrial.run.adapters import export, find_trained
from finetrial.spec.io import read_study


def test_an_export_is_a_copy_that_may_be_edited(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "project")
    sequence = read_study(folder / "study.yaml").paths[0].name
    trained = folder / "artifacts" / "mine" / "lora-r2" / sequence / "seed-0" / "phase-0-new"
    (trained / "instance").mkdir(parents=True)
    stored = tmp_path / "stored"
    stored.write_text("as it was trained")
    os.link(stored, trained / "instance" / "adapter_config.json")
    assert find_trained(folder, "lora-r2").folder == trained
    export(folder, "lora-r2", tmp_path / "out", merged=False, command="finetrial export")
    (tmp_path / "out" / "instance" / "adapter_config.json").write_text("edited")
    assert stored.read_text() == "as it was trained" and (tmp_path / "out" / "README.md").is_file()
