"""What a user's data file is: which task reads it, how many rows, how long.

A `.txt` is plain text. A `.jsonl` says by the keys of its first row what it is: `text`; `prompt` and `completion`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from finetrial.errors import DataError
from finetrial.tasks.base import SPLITS, Examples, Split, Task

SAMPLE_ROWS = 400
FORMS = '"text", or "prompt" and "completion"'


@dataclass(frozen=True)
class Inspected:
    """A data file as a task, with its rows by split and their lengths in the model's tokens (of a sample)."""

    task: Task
    rows: dict[str, int]
    num_clusters: dict[str, int]
    median_tokens: int
    long_tokens: int  # 95 % of the rows are no longer
    mean_tokens: float


def task_for(path: Path) -> Task:
    """The task that reads a file. Raises DataError, naming what was found, for one that none reads."""
    from finetrial.tasks.prompt_completion import PromptCompletion
    from finetrial.tasks.text import Text

    if not path.is_file():
        reason = "is a folder" if path.is_dir() else "does not exist"
        raise DataError(f"data file {path} {reason}", f"paths are relative to {Path.cwd()}")
    if path.suffix == ".txt":
        return Text(path=str(path))
    if path.suffix != ".jsonl":
        raise DataError(f"{path}: a data file ends in .txt or .jsonl, not {path.suffix or 'nothing'!r}",
                        f"one JSON object a line, with {FORMS}")
    keys = _first_keys(path)
    if {"prompt", "completion"} <= keys:
        return PromptCompletion(path=str(path))
    if "text" in keys:
        return Text(path=str(path))
    raise DataError(f"{path}, line 1 has {', '.join(sorted(keys)) or 'no keys'}; expected {FORMS}",
                    "rename the columns")


def inspect(path: Path, tokenizer: Any) -> Inspected:
    """Read a file, split it, and measure it. Raises DataError where a split is empty."""
    from finetrial.tasks.encode import encode_examples

    task = task_for(path)
    examples = task.load()
    for split in ("train", "val", "test"):
        if len(_rows(examples, split)) < 3:
            raise DataError(f"{path} gives {len(_rows(examples, split))} rows for {split}; at least 3 are needed",
                            "give more data: 80 % go to train, 10 % to val, 10 % to test, by content")
    sample = _rows(examples, "train")[:SAMPLE_ROWS]
    dataset, _ = encode_examples(task, sample, tokenizer, 1 << 20)
    lengths = np.diff(dataset.offsets)
    return Inspected(task, {split: len(_rows(examples, split)) for split in SPLITS},
                     {split: len({row.cluster for row in _rows(examples, split)}) for split in SPLITS},
                     int(np.median(lengths)), int(np.quantile(lengths, 0.95)), float(lengths.mean()))


def _rows(examples: Examples, split: Split) -> list[Any]:
    return examples.split(split)


def _first_keys(path: Path) -> set[str]:
    with path.open(encoding="utf-8-sig") as lines:
        try:
            first = next((line for line in lines if line.strip()), "")
        except UnicodeDecodeError as error:
            raise DataError(f"{path} is not UTF-8 text", "save the file as UTF-8") from error
    try:
        value = json.loads(first)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line 1: not JSON ({error.msg})", f"one JSON object a line, with {FORMS}") from error
    if not isinstance(value, dict):
        raise DataError(f"{path}, line 1: a {type(value).__name__}", f"one JSON object a line, with {FORMS}")
    return set(value)
