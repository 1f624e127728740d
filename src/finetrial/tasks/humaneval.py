"""humaneval: a Python signature with its docstring -> the body, judged by running tests (Chen et al. 2021).

From the hub (openai/openai_humaneval, 164 problems, all of them `test`) or a local file with `task_id`, `prompt`,
`canonical_solution`, `test` and `entry_point`. The prompt is used as published and never cut. `texts` also carries what
a program for the sandbox is made of: `prompt` + output + `test`, where the test ends with its call.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from finetrial.tasks.base import Example, Segment, Split
from finetrial.tasks.local import LocalRow
from finetrial.tasks.pieces import content_id
from finetrial.tasks.published import PublishedTask

if TYPE_CHECKING:
    from finetrial.tasks.sources.records import Record


class Humaneval(PublishedTask):
    """Signature and docstring -> body."""

    version: ClassVar[int] = 2
    summary: ClassVar[str] = "Python signature + docstring -> body, with tests (hub: openai/openai_humaneval; test only)"
    generates: ClassVar[bool] = True
    has_tests: ClassVar[bool] = True
    primary_metric: ClassVar[str] = "pass-at-k"
    metrics: ClassVar[tuple[str, ...]] = ("chrf", "bleu", "syntax-pass-rate", "length-ratio", "repetition")
    language: ClassVar[str] = "python"
    needed: ClassVar[tuple[str, ...]] = ("task_id", "prompt", "canonical_solution", "test", "entry_point")

    repository: str = "openai/openai_humaneval"

    def hub_files(self) -> Mapping[str, Split]:
        """There is nothing to train on."""
        return {"openai_humaneval/test*.parquet": "test"}

    @property
    def splits(self) -> tuple[Split, ...]:
        """The problems are `test`; a user's own file may be more."""
        return super().splits if self.is_local and self.path is None else ("test",)

    def split_of(self, row: LocalRow) -> Split | None:
        """A local file holds the problems, which are `test`."""
        return "test"

    def rows_of(self, records: Sequence[Record], dropped: Counter[str]) -> Iterator[LocalRow]:
        """Every problem is a cluster of its own."""
        for record in records:
            fields = {"prompt": record.text("prompt"), "solution": record.text("canonical_solution").rstrip("\n"),
                      "test": record.text("test"), "entry_point": record.text("entry_point")}
            name = record.text("task_id")
            yield LocalRow(content_id(*fields.values()), name, fields["prompt"], fields, f"{record.where} {name}")

    def render(self, example: Example) -> tuple[Segment, ...]:
        """Nothing may be cut."""
        return (Segment(example.fields["prompt"]), Segment(example.fields["solution"], loss=True))

    def texts(self, example: Example) -> Mapping[str, str]:
        """Input and reference, and what the sandbox puts around an output."""
        fields = example.fields
        return {"input": fields["prompt"], "reference": fields["solution"], "prompt": fields["prompt"],
                "test": f"\n{fields['test']}\ncheck({fields['entry_point']})\n"}
