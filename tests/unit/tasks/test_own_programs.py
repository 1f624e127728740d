"""A user's own rows whose completions are programs, with the tests that they must pass."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from finetrial.errors import DataError
from finetrial.plan.specs import metrics
from finetrial.sandbox import probe
from finetrial.spec.uses import TaskUse
from finetrial.stages.execute import program
from finetrial.tasks.prompt_completion import PromptCompletion

ROWS = [{"prompt": f"def add{n}(x):\n", "completion": f"    return x + {n}\n", "test": f"assert add{n}(1) == {n + 1}"} for n in range(200)]


def written(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return str(path)


def own(folder: Path, rows: list[dict[str, Any]] = ROWS, **options: Any) -> PromptCompletion:
    return PromptCompletion(**{"path": written(folder / "rows.jsonl", rows), "target": "python", "program": "prompt-completion", **options})


def test_what_is_run_is_prompt_output_and_test(tmp_path: Path) -> None:
    task = own(tmp_path)
    row = task.load().split("test")[0]
    texts = task.texts(row)
    code = program(texts["prompt"], texts["reference"], texts["test"], "python")
    assert code == row.fields["prompt"] + row.fields["completion"] + "\n" + row.fields["test"] + "\n"
    subprocess.run([sys.executable, "-c", code], check=True)  # the reference passes its own test
    alone = own(tmp_path, program="completion")
    assert alone.texts(row)["prompt"] == "" and "test" not in PromptCompletion(path="x").texts(row)


def test_pass_at_k_may_be_asked_for(tmp_path: Path) -> None:
    if probe().missing:
        pytest.skip(f"no sandbox on this machine: {probe().missing}")
    use = TaskUse(name="own", task=own(tmp_path), metrics=("pass-at-k", "syntax-pass-rate"))
    assert use.primary_metric == "pass-at-k" and metrics(use) == ["pass-at-k", "syntax-pass-rate", "nats-per-token"]


def test_rows_and_identity_are_the_same_without_programs(tmp_path: Path) -> None:
    plain = PromptCompletion(path=written(tmp_path / "rows.jsonl", ROWS))
    assert [row.id for row in plain.load().rows] == [row.id for row in own(tmp_path).load().rows]
    assert all("test" not in row.fields for row in plain.load().rows)


def test_a_column_of_another_name(tmp_path: Path) -> None:
    rows = [{"asserts" if name == "test" else name: value for name, value in row.items()} for row in ROWS]
    found = own(tmp_path, rows, columns={"test": "asserts"}).load()
    assert all(row.fields["test"].startswith("assert add") for row in found.rows)
    with pytest.raises(DataError, match=r'rows.jsonl, line \d+: no "test", nor have \d+ more rows for validation and test'):
        own(tmp_path, rows).load()


def test_rows_that_are_only_trained_on_need_no_test(tmp_path: Path) -> None:
    bare = [{name: row[name] for name in ("prompt", "completion")} for row in ROWS[:100]]
    files = {"train": written(tmp_path / "a.jsonl", bare), "val": written(tmp_path / "b.jsonl", ROWS[100:150]),
             "test": written(tmp_path / "c.jsonl", ROWS[150:])}
    task = PromptCompletion(**files, target="python", program="prompt-completion")
    assert {split: len(task.load().split(split)) for split in files} == {"train": 100, "val": 50, "test": 50}


def test_mistakes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="write `target: python` or `target: javascript`"):
        own(tmp_path, target="text")
    said = {"messages": [{"role": "user", "content": "Write add."}, {"role": "assistant", "content": "def add(x): return x"}], "test": "add(1)"}
    with pytest.raises(DataError, match="holds conversations, and program: prompt-completion runs prompts as code"):
        own(tmp_path, [said] * 3).load()
    rows = [{**said, "messages": [{"role": "user", "content": f"Write add{n}."}, said["messages"][1]]} for n in range(100)]
    task = own(tmp_path, rows, program="completion")
    assert task.texts(task.load().split("test")[0])["test"] == "\nadd(1)\n"
