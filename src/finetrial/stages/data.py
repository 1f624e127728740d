"""The data of one task for one tokenizer: rows drawn once, encoded, saved per split.

Validation and test rows are a stable draw, by digest of the row's id: the same for every seed, arm and machine. Train
holds every row there is; a cell's training subset is drawn from it by the training stage.

A task that is scored on outputs gets, for validation and test, its prompts and texts besides, row for row the items of
the split: what a model generates from, what it should say, and what needs no model to say (`floor:` columns).
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from finetrial.catalog import name_of
from finetrial.errors import DataError
from finetrial.models.files import TOKENIZER_FILES, check_unchanged
from finetrial.spec.hypothesis import FLOOR
from finetrial.spec.model import check_code, plugin_from
from finetrial.stages.base import StageContext, StageKind
from finetrial.tasks.base import FEWEST_SCORED, SPLITS, Example, Examples, Split, Task
from finetrial.tasks.encoded import TokenDataset
from finetrial.tasks.flaws import DataFlaws, flawed
from finetrial.tasks.pieces import few_documents

if TYPE_CHECKING:
    from finetrial.tasks.encode import EncodingReport


class Data(StageKind):
    """Writes `train.npz`, `val.npz` and `test.npz`; returns what was encoded, cut and dropped, per split.

    With `max_new_tokens` in the spec also `{split}-prompts.npz` and `{split}-texts.parquet` of val and test. A task that
    is only scored may have fewer splits: `splits` in the spec.
    """

    version: ClassVar[int] = 5  # 3 put space marks before every segment of a plain row; 4 did not tell of lost bytes

    def run(self, context: StageContext) -> Mapping[str, Any]:
        """Raises DataError where a split has fewer rows than the study asks for, and where the source is not the one that the
        spec's digest is of any more; ModelError where the tokenizer is not."""
        from finetrial.models.load import load_tokenizer
        from finetrial.tasks.chat import in_chat_form
        from finetrial.tasks.encode import encode_examples, encode_prompts
        from finetrial.tasks.restored import lost_bytes

        spec = context.spec
        flaws = DataFlaws.model_validate(spec.get("flaws", {}))
        task: Task = plugin_from("task", json.loads(context.locations["task"]))
        check_code("task", type(task), spec.get("task", {}))
        tokenizer = load_tokenizer(Path(context.locations["base"]))
        if "chat_template" in spec:
            task = in_chat_form(task, tokenizer)
        task = flawed(task, flaws)
        examples = task.load()
        _check_rows(task, examples)
        _check_unchanged(context, task)
        context.progress({"fraction": 0.5})
        limits = {"val": spec["num_val"], "test": spec["num_test"]}
        form, max_new_tokens = spec.get("form", "decoder"), spec.get("max_new_tokens")
        constant = None if max_new_tokens is None else _constant(task, examples)
        reports: dict[str, Any] = {}
        for split in spec.get("splits", SPLITS[1:]):
            rows = examples.split(split)
            wanted = limits.get(split)
            # a row whose target alone is too long is dropped by the encoder: draw until enough are left
            dataset, report = encode_examples(task, stable_order(rows) if wanted else rows, tokenizer,
                                              spec["max_tokens"], limit=wanted, form=form,
                                              max_new_tokens=max_new_tokens, flaws=flaws)
            check_enough(examples, split, wanted, report, spec["max_tokens"])
            dataset.save(context.folder / f"{split}.npz")
            reports[split] = {**report.as_dict(), "digest": dataset.digest()}
            if split == "test" and not flaws.prompt_scored:
                checked, lost = lost_bytes(dataset, tokenizer, form)
                reports[split].update(num_checked_bytes=checked, num_lost_bytes=lost)
            if max_new_tokens is not None and split in limits:
                kept = of_items(rows, dataset)
                prompts, cut = encode_prompts(task, kept, tokenizer, spec["max_tokens"],
                                              max_new_tokens=max_new_tokens, form=form)
                prompts.save(context.folder / f"{split}-prompts.npz")
                _write_texts(task, kept, constant, context.folder / f"{split}-texts.parquet")
                reports[split].update(num_prompts_cut=cut.num_cut, num_prompt_tokens=cut.num_tokens,
                                      num_cut_prompt_tokens=cut.num_cut_tokens)
        return {"splits": reports, "content": examples.digest, "mining": asdict(examples.report)}


def check_enough(examples: Examples, split: Split, wanted: int | None, report: EncodingReport, max_tokens: int) -> None:
    """Raise DataError where fewer rows of a split are usable than are asked for, or none."""
    if report.num_rows >= (wanted or 1):
        return
    if len(examples.split(split)) < (wanted or 1) and (few := few_documents(examples.rows)) is not None:
        raise DataError(*few)
    mends = [f"lower num_{split} to at most {report.num_rows}"] if report.num_rows >= FEWEST_SCORED else []
    mends += ["raise training.sequence_length, or max_tokens of the task"] if report.num_dropped else []
    dropped = {rule: number for rule, number in examples.report.dropped.items() if number}
    lost = f"; when the data were read {', '.join(f'{number:,} ({rule})' for rule, number in dropped.items())} were left out" \
        if dropped else ""
    raise DataError(f"split {split!r} has {report.num_rows} usable rows, and {wanted or 1} are asked for "
                    f"({report.num_dropped} do not fit into {max_tokens} tokens{lost})", ", or ".join([*mends, "give more data"]))


def _check_rows(task: Task, examples: Examples) -> None:
    """Raise DataError where a row is of no split, or has the id of another of its split: by it scores find the row of an
    output."""
    ids: set[tuple[str, str]] = set()
    for row in examples.rows:
        if row.split not in SPLITS:
            raise DataError(f"the task {name_of(type(task))} gives the row {row.id!r} the split {row.split!r}",
                            f"expected {', '.join(SPLITS)}")
        if (row.split, row.id) in ids:
            raise DataError(f"the task {name_of(type(task))} gives two rows for {row.split} the id {row.id!r}",
                            "give each row an id of its own, for example a digest of its content")
        ids.add((row.split, row.id))


def _check_unchanged(context: StageContext, task: Task) -> None:
    """What was read must be what the key says; files that were not touched since are not hashed again."""
    check_unchanged(Path(context.locations["base"]), TOKENIZER_FILES, context.spec["tokenizer"])
    if task.source_digest() != context.spec["source"]:
        raise DataError("the data changed after the study was planned",
                        "run the study again: it takes what is there now, and keeps what the old data gave apart")


def stable_order(rows: Iterable[Example]) -> list[Example]:
    """Rows in the order of the digest of their ids: a draw that no seed governs."""
    return sorted(rows, key=lambda row: hashlib.sha256(row.id.encode()).digest())


def of_items(rows: Sequence[Example], dataset: TokenDataset) -> list[Example]:
    """The examples behind the rows of a data set, in its order."""
    by_id = {row.id: row for row in rows}
    return [by_id[item] for item in dataset.items]


def _constant(task: Task, examples: Examples) -> str | None:
    """The one answer to everything that may do best: the most frequent reference of train, of equals the shortest.

    None without train rows: test rows must not choose it.
    """
    counts = Counter(task.texts(row)["reference"] for row in examples.split("train"))
    return min(counts, key=lambda text: (-counts[text], len(text), text), default=None)


def _write_texts(task: Task, rows: Sequence[Example], constant: str | None, path: Path) -> None:
    """Item, cluster, input, reference, what else the task tells of a row (its tests), and a column for each floor."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = [task.texts(row) for row in rows]
    everywhere = {} if constant is None else {"constant": constant}
    floors = [{**task.floors(row), **everywhere} for row in rows]
    columns: dict[str, list[str]] = {"item": [row.id for row in rows], "cluster": [row.cluster for row in rows],
                                     "input": [text["input"] for text in texts],
                                     "reference": [text["reference"] for text in texts]}
    columns |= {name: [text[name] for text in texts] for name in texts[0] if name not in columns}
    columns |= {f"{FLOOR}{name}": [floor[name] for floor in floors] for name in floors[0]}
    pq.write_table(pa.table(columns), path)
