"""Tests of encoding: tasks whose rows are made by hand, and where others' tokenizers and data lie."""

from __future__ import annotations

import os
from pathlib import Path

from finetrial.tasks.base import Examples, Task

REAL = Path(os.environ.get("FINETRIAL_REAL_DATA", Path(__file__).parents[2] / "shared" / "real"))


class ByHand(Task):
    """A task without rows of its own; subclasses render those that they are given."""

    def source_digest(self) -> str:
        return ""

    def load(self) -> Examples:
        return Examples([], "")
