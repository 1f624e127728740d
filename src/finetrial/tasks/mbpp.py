"""mbpp: a problem in words and its tests -> a Python program that passes them (Austin et al. 2021).

From the hub (google-research-datasets/mbpp) or a local file with `task_id`, `code`, `test_list` and `text` (in the
sanitized subset: `prompt`). Splits are the paper's, which go by task: 11-510 test, 511-600 val, 601-974 train; 1-10 are
its examples for prompts and are left out. `texts` also carries the program for the sandbox: `prompt` (here empty) +
output + `test`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from finetrial.errors import DataError
from finetrial.tasks.base import Example, Segment, Split
from finetrial.tasks.local import LocalRow
from finetrial.tasks.pieces import content_id
from finetrial.tasks.published import PublishedTask

if TYPE_CHECKING:
    from finetrial.tasks.sources.records import Record

INSTRUCTION = "Write a Python program.\n\n"
TESTS = "\n\nIt must pass these tests:\n"
CUE = "\n\nCode:\n"
SPLITS: Mapping[Split, range] = {"train": range(601, 975), "val": range(511, 601), "test": range(11, 511)}


class Mbpp(PublishedTask):
    """Problem and tests -> program."""

    version: ClassVar[int] = 3
    summary: ClassVar[str] = "problem + tests -> Python program (hub: google-research-datasets/mbpp)"
    generates: ClassVar[bool] = True
    is_chat: ClassVar[bool] = True
    has_tests: ClassVar[bool] = True
    primary_metric: ClassVar[str] = "pass-at-k"
    metrics: ClassVar[tuple[str, ...]] = ("chrf", "bleu", "ast-similarity", "syntax-pass-rate", "length-ratio",
                                          "repetition")
    language: ClassVar[str] = "python"
    needed: ClassVar[tuple[str, ...]] = ("task_id", "code", "test_list")
    perhaps: ClassVar[tuple[str, ...]] = ("text", "prompt", "test_setup_code", "test_imports")

    repository: str = "google-research-datasets/mbpp"
    subset: Literal["full", "sanitized"] = "full"

    def hub_files(self) -> Mapping[str, Split]:
        """The configuration of the subset, without its examples for prompts."""
        return {f"{self.subset}/train*.parquet": "train", f"{self.subset}/validation*.parquet": "val",
                f"{self.subset}/test*.parquet": "test"}

    def split_of(self, row: LocalRow) -> Split | None:
        """By the number of the task, which is the cluster."""
        number = int(row.cluster)
        return next(split for split, numbers in SPLITS.items() if number in numbers)

    def rows_of(self, records: Sequence[Record], dropped: Counter[str]) -> Iterator[LocalRow]:
        """Every problem is a cluster of its own."""
        dropped.update({"the paper's examples for prompts": 0})
        for record in records:
            number = record.integer("task_id")
            if number is None or not 1 <= number <= 974:
                raise DataError(f'{record.where}: "task_id" is {number}, expected a number from 1 to 974',
                                "for problems of your own use prompt-completion")
            if number <= 10:
                dropped["the paper's examples for prompts"] += 1
                continue
            setup = "\n".join(filter(None, [record.optional_text("test_setup_code"), *record.texts("test_imports")]))
            fields = {"text": record.optional_text("text") or record.text("prompt"), "code": record.text("code").strip(),
                      "tests": "\n".join(record.texts("test_list")), "setup": setup}
            if not fields["tests"]:
                raise DataError(f'{record.where}: "test_list" is empty, expected a list of asserts', "mend the row")
            yield LocalRow(content_id(*fields.values()), str(number), fields["text"] + fields["tests"], fields,
                           f"{record.where} task {number}")

    def render(self, example: Example) -> tuple[Segment, ...]:
        """The problem's words are what may be cut."""
        return (Segment(INSTRUCTION), Segment(example.fields["text"], cuttable=True),
                Segment(f"{TESTS}{example.fields['tests']}{CUE}"), Segment(example.fields["code"], loss=True))

    def texts(self, example: Example) -> Mapping[str, str]:
        """Input and reference, and what the sandbox puts around an output."""
        fields = example.fields
        return {"input": f"{fields['text']}{TESTS}{fields['tests']}", "reference": fields["code"], "prompt": "",
                "test": f"\n{fields['setup']}\n{fields['tests']}\n"}
