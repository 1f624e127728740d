"""What rules look at, besides the study: the plan with its bases, the data as encoded, the records of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetrial.plan.plan import Plan
from finetrial.records.record import Outcome
from finetrial.records.results import Results
from finetrial.records.table import Table
from finetrial.spec.slots import joined_tasks
from finetrial.spec.study import Study
from finetrial.spec.uses import TaskUse
from finetrial.stages.base import Lookup, Stage
from finetrial.tasks.encoded import TokenDataset

Tokens = NDArray[np.int32]

CONFIG, MANIFEST = "config.json", "manifest.json"
HALVES_APART_TOKENS = 3  # of a text that is read to its middle: an odd token, and the tokenizer's marks
PLAIN_CONTEXT_TOKENS = 1  # before the first scored token of plain text: one that the tokenizer, or the text, opens with


@dataclass(frozen=True)
class BaseFolder:
    """A base that the plan found."""

    name: str
    folder: Path

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """Its config.json."""
        return _read_json(self.folder / CONFIG) or {}

    @cached_property
    def manifest(self) -> Mapping[str, Any] | None:
        """What it was pretrained on, as `finetrial pretrain` writes it; None where nobody says."""
        return _read_json(self.folder / MANIFEST)


class Planned:
    """A plan, and where its bases lie."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    @cached_property
    def stages(self) -> Mapping[str, Stage]:
        """Every stage by its id."""
        return {stage.id: stage for stage in self.plan.stages}

    @cached_property
    def bases(self) -> tuple[BaseFolder, ...]:
        """The bases, in the study's order."""
        found = {base: BaseFolder(base, Path(self.stages[stage].locations["base"]))
                 for (base, _), stage in self.plan.data.items()}
        return tuple(found.values())

    def of_kind(self, *kinds: str) -> list[Stage]:
        """The stages of some kinds, in order."""
        return [stage for stage in self.plan.stages if stage.kind in kinds]


@dataclass(frozen=True)
class TaskData:
    """The data of one task for one base, as its finished stage left them."""

    base: BaseFolder
    use: TaskUse
    stage: Stage
    values: Mapping[str, Any]
    folder: Path
    is_learned: bool  # some phase trains on it
    _rows: dict[str, TokenDataset] = field(default_factory=dict)

    @property
    def max_tokens(self) -> int:
        """The longest row."""
        return int(self.stage.spec["max_tokens"])

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits of which there are rows: a task that is only scored may have `test` alone."""
        return tuple(self.values["splits"])

    def report(self, split: str) -> Mapping[str, int]:
        """What encoding did to the rows of a split (`EncodingReport`)."""
        report: Mapping[str, int] = self.values["splits"][split]
        return report

    def rows(self, split: str) -> TokenDataset:
        """The encoded rows of `train`, `val`, `test`, or of `test-prompts`."""
        if split not in self._rows:
            self._rows[split] = TokenDataset.load(self.folder / f"{split}.npz")
        return self._rows[split]

    @property
    def is_encoder_decoder(self) -> bool:
        """Whether prompts go into an encoder."""
        return self.stage.spec.get("form") == "encoder-decoder"

    @property
    def has_prompts(self) -> bool:
        """Whether outputs are generated from prompts of their own."""
        return (self.folder / "test-prompts.npz").is_file()


class Prepared(Planned):
    """The plan with the data that are recorded for it."""

    def __init__(self, study: Study, plan: Plan, lookup: Lookup) -> None:
        super().__init__(plan)
        trained = {task for path in study.every_path for phase in path.tasks for task in joined_tasks(phase)}
        folders = {base.name: base for base in self.bases}
        self.tasks: tuple[TaskData, ...] = tuple(
            TaskData(folders[base], study.task(task), self.stages[stage], found.record.values, found.folder,
                     task in trained)
            for (base, task), stage in plan.data.items()
            if (found := lookup(stage)) is not None and found.record.outcome is Outcome.OK)

    @property
    def once(self) -> tuple[TaskData, ...]:
        """Each task on the first base that has it: for what the tokenizer does not change."""
        first: dict[str, TaskData] = {}
        for task in self.tasks:
            first.setdefault(task.use.name, task)
        return tuple(first.values())


class Recorded(Planned):
    """The plan with everything that was recorded and found."""

    def __init__(self, plan: Plan, lookup: Lookup, table: Table, results: Results) -> None:
        super().__init__(plan)
        self.lookup, self.table, self.results = lookup, table, results


def sequences(dataset: TokenDataset) -> list[Tokens]:
    """Each row as one run of tokens, an encoder's input first."""
    return [np.concatenate([source(dataset, row), own]) if dataset.source_ids is not None else own
            for row, own in enumerate(np.split(dataset.ids, dataset.offsets[1:-1]))]


def source(dataset: TokenDataset, row: int) -> Tokens:
    """An encoder's input; nothing for a decoder-only model."""
    if dataset.source_ids is None or dataset.source_offsets is None:
        return dataset.ids[:0]
    return dataset.source_ids[dataset.source_offsets[row]:dataset.source_offsets[row + 1]]


def context(dataset: TokenDataset, row: int) -> Tokens:
    """The tokens before the first one that is scored; all of them in a data set of prompts."""
    start = dataset.offsets[row]
    own = dataset.ids[start:start + _first_scored(dataset, row)]
    return own if dataset.source_ids is None else np.concatenate([source(dataset, row), own])


def target(dataset: TokenDataset, row: int) -> Tokens:
    """The tokens from the first one that is scored to the end."""
    return dataset.ids[dataset.offsets[row] + _first_scored(dataset, row):dataset.offsets[row + 1]]


def is_plain(task: TaskData, split: str) -> bool:
    """Whether rows are plain text: scored from their beginning, or (by an encoder-decoder) from their middle."""
    rows = task.rows(split)
    if rows.source_offsets is not None:
        return bool((np.abs(np.diff(rows.source_offsets) - np.diff(rows.offsets)) <= HALVES_APART_TOKENS).all())
    return all(len(context(rows, row)) <= PLAIN_CONTEXT_TOKENS for row in range(len(rows)))


def _first_scored(dataset: TokenDataset, row: int) -> int:
    """The place in its row of the first scored token; the row's length if there is none."""
    mask = dataset.loss_mask[dataset.offsets[row]:dataset.offsets[row + 1]]
    return int(mask.argmax()) if mask.any() else len(mask)


def _read_json(path: Path) -> Mapping[str, Any] | None:
    if not path.is_file():
        return None
    content = json.loads(path.read_text(encoding="utf-8"))
    return content if isinstance(content, dict) else None
