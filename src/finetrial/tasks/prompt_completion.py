"""prompt-completion: a user's pairs from a .jsonl file, completion tokens only.

One object a line with `prompt` and `completion`, and perhaps `cluster` (rows that must stay in one split) and `id`.
The prompt and the completion are used as written: put the space or line break between them where the model wants it.
A prompt that is too long loses its right end; a completion that does not fit drops the row. Both are counted. Outputs are
generated where the study names a metric that reads them (`metrics: [rouge-l, exact-match]`).
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from finetrial.errors import DataError
from finetrial.tasks.base import Example, Examples, Segment
from finetrial.tasks.local import LocalRow, LocalTask, read_json_lines
from finetrial.tasks.pieces import content_id


class PromptCompletion(LocalTask):
    """Prompt -> completion pairs of local files."""

    version: ClassVar[int] = 1
    generates: ClassVar[bool] = True
    summary: ClassVar[str] = "your own pairs: .jsonl with `prompt` and `completion` (completion tokens only)"

    target: Literal["text", "python", "javascript"] = "text"  # what a completion is, for metrics of code

    @property
    def target_language(self) -> str:
        """As the study says."""
        return self.target

    def load(self) -> Examples:
        """Raises DataError for a file that is missing, empty, not UTF-8 or has a bad row (file and line named)."""
        return self.examples_from(_read)

    def render(self, example: Example) -> tuple[Segment, ...]:
        """The prompt is what may be cut."""
        return (Segment(example.fields["prompt"], cuttable=True), Segment(example.fields["completion"], loss=True))


def _read(path: Path) -> list[LocalRow]:
    if path.suffix != ".jsonl":
        raise DataError(f"{path}: prompts and completions come in a .jsonl file, not {path.suffix or 'nothing'!r}",
                        'one object a line: {"prompt": "...", "completion": "..."}')
    return [LocalRow(item.get("id") or content_id(item["prompt"], item["completion"]), item.get("cluster", ""),
                     item["prompt"], {"prompt": item["prompt"], "completion": item["completion"]},
                     f"{path}, line {number}")
            for number, item in read_json_lines(path, ("prompt", "completion"))]
