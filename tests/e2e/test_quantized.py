"""A trial with an arm on a base in 4 bits, to the report, and what is exported of it. One run serves all."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from tiny_study import tiny_content

from finetrial.cli import main
from finetrial.models import quantized
from finetrial.run.adapters import export, find_trained, loading_of, open_arm
from finetrial.run.options import RunOptions
from finetrial.run.trial import Trial, run_study
from finetrial.spec.io import parse_study

pytest.importorskip("bitsandbytes", reason="quantised bases need bitsandbytes: pip install 'finetrial[qlora]'")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("quantized")


@pytest.fixture(scope="module")
def trial(folder: Path) -> Trial:
    content = tiny_content(folder)
    lora = {"components": "lora:rank=2,targets=all-linear", "learning_rates": [0.05]}
    content |= {"arms": [{"name": "lora", **lora}, {"name": "qlora", "quantization": "nf4", **lora}],
                "controls": None, "seeds": 1, "factors": ["quantization"], "hypotheses": [{
                    "name": "H1", "statement": "A base in full precision learns more.",
                    "contrast": {"left": "lora", "right": "qlora", "task": "new", "expect": "greater"}}]}
    for task in content["tasks"]:
        task["metrics"] = ["nats-per-token", "kl-from-base"]
    return run_study(parse_study(content, "study.yaml"), RunOptions(runs=folder / "runs", view=False, figures=False),
                     relative_to=folder, command="finetrial run study.yaml")


def test_it_is_complete_and_says_what_it_is_measured_against(trial: Trial) -> None:
    results = trial.results
    assert results.status == "complete" and {row.outcome for row in results.scores} == {"OK"}
    assert {row.hypothesis for row in results.findings} == {"H1"}
    note = next(row for row in results.audit if row.rule == "quantized-base")
    assert note.severity == "note" and "qlora (nf4)" in note.message
    assert "measured against the base in full precision" in (trial.folder / "report.html").read_text()
    costs = {row.arm: row for row in results.costs}
    assert costs["lora"].params_total == costs["qlora"].params_total
    assert costs["lora"].params_trainable == costs["qlora"].params_trainable


def test_quantising_costs_something_by_itself(trial: Trial) -> None:
    values: dict[str, set[float | None]] = {}
    for row in trial.results.scores:
        if row.task == "old" and row.metric == "nats-per-token" and row.split == "test" and row.phase == 1:
            values.setdefault(row.arm, set()).add(row.value)
    assert values["lora"].isdisjoint(values["qlora"])


def test_a_merged_export_is_the_arm_up_to_rounding(trial: Trial, tmp_path: Path, folder: Path,
                                                   monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(folder)
    merged = export(trial.folder, "qlora", tmp_path / "merged", merged=True, command="finetrial export")
    assert merged.largest_difference is not None and merged.to_full_precision is not None
    assert merged.largest_difference < 1e-4 < merged.to_full_precision
    card = (tmp_path / "merged" / "README.md").read_text()
    assert f"{merged.largest_difference:.2g}" in card and f"{merged.to_full_precision:.2g}" in card
    assert "4 bits (nf4)" in card
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert not hasattr(plain.config, "quantization_config")
    assert main(["export", str(trial.folder), "qlora", "--merge", "--output", str(tmp_path / "again")]) == 0
    assert f"would differ by {merged.to_full_precision:.2g}" in capsys.readouterr().out
    assert main(["export", str(trial.folder), "qlora", "--output", str(tmp_path / "adapter")]) == 0
    said = re.search(r"quantization_config=(BitsAndBytesConfig\(.*?\))\)", capsys.readouterr().out)
    assert said is not None and said.group(1) in (tmp_path / "adapter" / "README.md").read_text()


def test_plain_peft_loads_an_export_as_it_says(trial: Trial, tmp_path: Path, folder: Path,
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    export(trial.folder, "qlora", tmp_path / "adapter", merged=False, command="finetrial export")
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    held = eval(loading_of("nf4"), {"BitsAndBytesConfig": BitsAndBytesConfig})
    adapted = open_arm(trial.folder, "qlora")
    source = find_trained(trial.folder, "qlora").base.folder
    plain = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(source, quantization_config=held, dtype=torch.float32, device_map="cpu"),
        str(next((tmp_path / "adapter").rglob("adapter_config.json")).parent))
    ids = torch.arange(1, 9)[None]
    quantized.keep_layout(plain)
    with torch.no_grad():
        theirs, ours = plain.eval()(ids).logits, adapted.base.model.eval()(ids).logits
    assert (theirs - ours).abs().max() < 1e-4
