"""Four problems in HumanEval's columns, for a model that only knows the words w1 ... w89."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tiny_study import tiny_content

NUM_PROBLEMS = 4


def write_problems(path: Path) -> Path:
    """Two problems that any single line solves (it becomes a comment), and two that none does."""
    rows = []
    for number in range(NUM_PROBLEMS):
        right = "x + 1  # " if number % 2 else "x + 2  # "
        rows.append({"task_id": f"Tiny/{number}", "prompt": f"def f{number}(x):\n    return {right}",
                     "canonical_solution": "w1 w2\n", "entry_point": f"f{number}",
                     "test": "def check(candidate):\n    assert candidate(1) == 2\n"})
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def content_with_problems(folder: Path, **use: Any) -> dict[str, Any]:
    """The tiny study, one rate an arm, with the problems as a task that is only scored."""
    content = tiny_content(folder)
    write_problems(folder / "problems.jsonl")
    content["tasks"][1] = {"name": "problems", "task": {"kind": "humaneval", "path": "problems.jsonl"}, "role": "outside",
                           "num_test": NUM_PROBLEMS, "max_new_tokens": 4, "metrics": ["pass-at-k", "chrf"],
                           **use}
    content["arms"] = [{"name": "full", "components": "full", "learning_rates": [0.001]},
                       {"name": "lora-r2", "components": "lora:rank=2", "learning_rates": [0.01]}]
    return {**content, "controls": None, "hypotheses": [], "seeds": 3, "size": "demo"}
