"""The data of one task for one tokenizer: rows drawn once, encoded, saved per split.

Validation and test rows are a stable draw, by digest of the row's id: the same for every seed, arm and machine. Train
holds every row there is; a cell's training subset is drawn from it by the training stage.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from finetrial.errors import DataError
from finetrial.spec.model import plugin_from
from finetrial.stages.base import StageContext, StageKind
from finetrial.tasks.base import Example


class Data(StageKind):
    """Writes `train.npz`, `val.npz` and `test.npz`; returns what was encoded, cut and dropped, per split."""

    version: ClassVar[int] = 1

    def run(self, context: StageContext) -> Mapping[str, Any]:
        """Raises DataError where a split has fewer rows than the study asks for."""
        from finetrial.models.load import load_tokenizer
        from finetrial.tasks.encode import encode_examples

        spec = context.spec
        task = plugin_from("task", json.loads(context.locations["task"]))
        examples = task.load()
        context.progress({"fraction": 0.5})
        tokenizer = load_tokenizer(Path(context.locations["base"]))
        limits = {"val": spec["num_val"], "test": spec["num_test"]}
        reports: dict[str, Any] = {}
        for split in ("train", "val", "test"):
            rows = examples.split(split)
            wanted = limits.get(split)
            # a row whose target alone is too long is dropped by the encoder: draw until enough are left
            dataset, report = encode_examples(task, stable_order(rows) if wanted else rows, tokenizer,
                                              spec["max_tokens"], limit=wanted)
            if len(dataset) < (wanted or 1):
                raise DataError(f"split {split!r} has {len(dataset)} usable rows, and {wanted or 1} are asked for",
                                f"lower num_{split} to at most {len(dataset)}, or give more data")
            dataset.save(context.folder / f"{split}.npz")
            reports[split] = {**report.as_dict(), "digest": dataset.digest()}
        return {"splits": reports, "content": examples.digest}


def stable_order(rows: Iterable[Example]) -> list[Example]:
    """Rows in the order of the digest of their ids: a draw that no seed governs."""
    return sorted(rows, key=lambda row: hashlib.sha256(row.id.encode()).digest())
