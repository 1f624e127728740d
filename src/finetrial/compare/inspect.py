"""What a user's data file is: which task reads it, how many rows it gives, how long they are, and what two files share.

A `.txt` is plain text. A table (.jsonl, .json, .csv, .parquet) says by the columns of its first row what it is: `text`;
`prompt` and `completion`; `messages`. Two files that are no tables, `prompts.txt,completions.txt`, belong together line by
line.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from finetrial.errors import DataError
from finetrial.fingerprint import key_of
from finetrial.tasks.assemble import Form
from finetrial.tasks.base import ASSISTANT, Example, Examples, Task, is_there, joined_files
from finetrial.tasks.chat import in_chat_form
from finetrial.tasks.pieces import USED_SPLITS, few_documents
from finetrial.tasks.splits import cluster_names

SAMPLE_ROWS = 400
AT_ONCE = 1024
LARGE_BYTES, MOST_ROWS = 64 << 20, 20_000  # of a larger file so many rows are drawn: more than a comparison trains on
FEWEST_ROWS = 3  # of each split
LEFT_OUT_FILE = "{name}-{digest}.jsonl"


@dataclass(frozen=True)
class Inspected:
    """A data file as a task, with its rows by split and their lengths in the model's tokens (of a sample)."""

    task: Task
    examples: Examples
    median_tokens: int
    long_tokens: int  # 95 % of the rows are no longer
    mean_tokens: float
    num_shared: int = 0  # rows that were left out because the other file has them too
    num_long: int = 0  # rows that were left out because their prompt would be cut where it asks for the answer
    usable: Mapping[str, int] = field(default_factory=dict)  # of each split the rows that fit, once counted (`with_usable`)
    origin: str = ""  # repository and commit of rows of the hub, where those that were not left out are read from files

    @property
    def rows(self) -> Mapping[str, int]:
        """How many rows each split has: those that fit, once they are counted."""
        return self.usable or {split: len(self.examples.split(split)) for split in USED_SPLITS}

    @property
    def num_unusable(self) -> int:
        """How many rows do not fit, of all splits; 0 before they are counted."""
        return len(self.examples.rows) - sum(self.rows.values())

    @property
    def dropped(self) -> Mapping[str, int]:
        """How many rows each rule dropped, without the rules that dropped none."""
        return {rule: count for rule, count in self.examples.report.dropped.items() if count}


def task_for(reference: str, columns: Mapping[str, str] | None = None) -> Task:
    """The task that reads a file (or several, separated by commas), or a data set of the hub (`owner/name`,
    `owner/name@revision`, `owner/name:pattern`), which is fetched.

    Raises DataError, naming what was found, for one that none reads.
    """
    from finetrial.tasks.prompt_completion import PromptCompletion
    from finetrial.tasks.text import Text
    from finetrial.tasks.user_rows import READ_BY, are_parallel, kind_of

    on_hub: dict[str, Any] | None = None if is_there(Path(reference).expanduser()) else _on_hub(reference)
    files = [file for of_split in Text.model_validate(on_hub or {"path": reference}).files().values() for file in of_split]
    options = on_hub or {"path": joined_files([file.resolve() for file in files])}
    if sum(file.stat().st_size for file in files) > LARGE_BYTES:
        options["max_rows"] = MOST_ROWS
    is_parallel = on_hub is None and are_parallel(files)
    if is_parallel or files[0].suffix == ".txt":
        if columns:
            raise DataError(f"{reference} is plain text and has no columns", "leave out --columns, or give a .jsonl or .csv")
        return (PromptCompletion if is_parallel else Text).model_validate(options)
    options["columns"] = dict(columns or {})
    read_by = READ_BY[kind_of(files[0], options["columns"])]
    _check_columns(reference, options["columns"], read_by)
    return (Text if read_by == "text" else PromptCompletion).model_validate(options)


def _on_hub(reference: str) -> dict[str, Any] | None:
    """The options that read a data set of the hub; None for what can only be a file. `owner/name` may have been meant as one."""
    from finetrial.tasks.hub_files import hub_options

    try:
        return hub_options(reference)
    except DataError as error:
        here = "" if "@" in reference or ":" in reference else f"there is no file {reference} here, and "
        raise DataError(f"{here}{error.problem}", error.mend) from error


def _check_columns(reference: str, columns: Mapping[str, str], read_by: str) -> None:
    """Raise DataError for columns of two kinds of rows, of which `read_by` reads one."""
    from finetrial.tasks.user_rows import BESIDE, COLUMNS, EXPECTED, READ_BY

    known = [*(name for kind, names in COLUMNS.items() if READ_BY[kind] == read_by for name in names), *BESIDE]
    if any(name not in known for name in columns):
        named = ", ".join(name for name in columns if name not in BESIDE)
        raise DataError(f"{reference}: the columns {named} are named, which are of two kinds of rows",
                        f"name those of one: {EXPECTED}")


def inspect(reference: str, tokenizer: Any, columns: Mapping[str, str] | None = None) -> Inspected:
    """Read a file, split it, and measure it. Raises DataError where a split has fewer than 3 rows."""
    task = task_for(reference, columns)
    return _measured(task, task.load(), reference, tokenizer)


def with_usable(data: Inspected, tokenizer: Any, max_tokens: int, form: Form) -> Inspected:
    """The same, with the rows counted that fit into `max_tokens`, and their mean length in training.

    A target is never cut: a row whose target is too long is no row. Raises DataError where a split has fewer than 3.
    """
    from finetrial.tasks.encode import encode_examples

    task = in_chat_form(data.task, tokenizer) if form == "decoder" else data.task
    usable: dict[str, int] = dict.fromkeys(USED_SPLITS, 0)
    num_tokens = dict.fromkeys(USED_SPLITS, 0)
    for split in USED_SPLITS:
        rows = data.examples.split(split)
        for start in range(0, len(rows), AT_ONCE):  # so that not all their tokens are held
            _, report = encode_examples(task, rows[start:start + AT_ONCE], tokenizer, max_tokens, form=form)
            usable[split] += report.num_rows
            num_tokens[split] += report.num_tokens
        if usable[split] < FEWEST_ROWS:
            raise DataError(f"of the rows for {split} {usable[split]} fit into {max_tokens} tokens, and at least {FEWEST_ROWS} "
                            f"are needed ({len(rows) - usable[split]} do not fit)", "give more data, or shorter rows")
    return replace(data, usable=usable, mean_tokens=num_tokens["train"] / usable["train"])


def apart(keep: Inspected, learn: Inspected, folder: Path, tokenizer: Any) -> Inspected:
    """What must be kept, without the rows that are in what is learned, exactly or nearly.

    What is trained on cannot show what is forgotten. Where rows are left out, the others are written to files in `folder`, which
    the study then reads (`rewritten`). Raises DataError where too few are left.
    """
    shared = _shared(keep.examples.rows, learn.examples.rows)
    if not shared:
        return keep
    left = [row for place, row in enumerate(keep.examples.rows) if place not in shared]
    if has_too_few(left):
        raise DataError(f"{len(shared)} of {len(keep.examples.rows)} rows of --keep are in --learn too",
                        "--keep is text that is not trained on: give another file, or leave --keep out")
    return replace(rewritten(keep, left, "keep", folder, tokenizer), num_shared=len(shared))


def has_too_few(rows: Sequence[Example]) -> bool:
    """Whether a split has fewer rows than a comparison needs."""
    return any(sum(row.split == split for row in rows) < FEWEST_ROWS for split in USED_SPLITS)


def rewritten(data: Inspected, rows: Sequence[Example], name: str, folder: Path, tokenizer: Any) -> Inspected:
    """Some of the rows as data of their own, each in the split that it was in: a file `<name>-<split>-<digest>.jsonl` for each in
    `folder`, two where some rows are pairs and some conversations. Every split must have some."""
    folder.mkdir(parents=True, exist_ok=True)
    task = type(data.task).model_validate({split: _written([row for row in rows if row.split == split], f"{name}-{split}", folder)
                                           for split in USED_SPLITS})
    found = _measured(task, task.load(), f"--{name}", tokenizer)
    report = replace(found.examples.report, dropped={**data.examples.report.dropped, **found.dropped})
    return replace(found, examples=replace(found.examples, report=report), origin=data.origin or data.task.fetch())


def _written(rows: Sequence[Example], name: str, folder: Path) -> str:
    """Write the rows of a split, those of each kind to a file of its own; returns the option that names the files."""
    files = []
    for kind in ([row for row in rows if _is_talk(row) == is_talk] for is_talk in (False, True)):
        if kind:
            text = "".join(json.dumps(_as_line(row), ensure_ascii=False) + "\n" for row in kind)
            path = folder.resolve() / LEFT_OUT_FILE.format(name=name, digest=key_of(text)[:8])  # an earlier comparison has its own
            path.write_text(text, encoding="utf-8")
            files.append(path)
    return joined_files(files)


def _is_talk(row: Example) -> bool:
    return "earlier" in row.fields


def _shared(rows: Sequence[Example], others: Sequence[Example]) -> set[int]:
    """Positions of the rows that are among the others, exactly or nearly: those that would share a cluster with one."""
    from finetrial.tasks.near_duplicates import near_duplicates

    texts = ["\n".join(row.fields.values()) for row in (*rows, *others)]
    clusters = cluster_names([str(place) for place in range(len(texts))], [(text,) for text in texts],
                             near_duplicates(texts))
    learned = set(clusters[len(rows):])
    return {place for place, cluster in enumerate(clusters[:len(rows)]) if cluster in learned}


def _as_line(row: Example) -> dict[str, Any]:
    fields = dict(row.fields)
    if _is_talk(row):
        turns = [*json.loads(fields["earlier"]), (fields["role"], fields["question"]), (ASSISTANT, fields["completion"])]
        return {"id": row.id, "cluster": row.cluster,
                "messages": [{"role": role, "content": content} for role, content in turns]}
    if "cue" in fields:  # two files line by line
        fields["prompt"] += fields.pop("cue")
    return {"id": row.id, "cluster": row.cluster, **fields}


def _measured(task: Task, examples: Examples, reference: str, tokenizer: Any) -> Inspected:
    from finetrial.tasks.encode import encode_examples

    for split in USED_SPLITS:
        if len(examples.split(split)) < FEWEST_ROWS:
            if (few := few_documents(examples.rows)) is not None:
                raise DataError(*few)
            dropped = sum(examples.report.dropped.values())
            raise DataError(f"{reference}: {len(examples.rows)} different rows"
                            + (f" ({dropped} duplicates were left out)" if dropped else "")
                            + f" give {len(examples.split(split))} for {split}; at least {FEWEST_ROWS} are needed",
                            "give more data: 80 % go to train, 10 % to val, 10 % to test; rows that say nearly the "
                            "same stay in one split")
    dataset, _ = encode_examples(in_chat_form(task, tokenizer), examples.split("train")[:SAMPLE_ROWS], tokenizer, 1 << 20)
    lengths = np.diff(dataset.offsets)
    return Inspected(task, examples, int(np.median(lengths)), int(np.quantile(lengths, 0.95)), float(lengths.mean()))
