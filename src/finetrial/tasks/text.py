"""text: a user's plain text, every token scored but a row's first.

A .txt is cut at `<|endoftext|>`, else at blank lines into pieces of at least 500 characters; each piece is a cluster.
A .jsonl, .json, .csv or .parquet has a document a row in its column `text`, and perhaps `cluster` and `id`; `columns`
says how the file calls them. What is longer than 2,000 characters is cut at line ends into rows of one cluster; a last
piece under 500 characters joins the one before, so a row has fewer than 2,500.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from pydantic import Field, field_validator

from finetrial.tasks.base import Example, Examples, Segment
from finetrial.tasks.hub_files import HubFiles
from finetrial.tasks.local import LocalRow, read_text
from finetrial.tasks.pieces import PIECE, content_id, cut_at_lines, normal_text, text_documents


class Text(HubFiles):
    """Plain text of one's own files."""

    version: ClassVar[int] = 3
    usual_form: ClassVar[str] = ".txt"
    summary: ClassVar[str] = "your own plain text: .txt, or .jsonl, .json, .csv, .parquet with `text`"

    columns: dict[str, str] = Field(default_factory=dict)  # our name: the file's

    @field_validator("columns")
    @classmethod
    def _known_columns(cls, value: dict[str, str]) -> dict[str, str]:
        from finetrial.tasks.user_rows import check_columns

        check_columns(value, ("text",))
        return value

    def load(self) -> Examples:
        """Raises DataError for a file that is missing, empty, not UTF-8 or has a bad row (file and line named)."""
        return self.examples_from(self._read, self.max_rows)

    def render(self, example: Example) -> tuple[Segment, ...]:
        """One target; what exceeds the sequence length is cut off and counted as lost."""
        return (Segment(example.fields["text"], loss=True, cuttable=True),)

    def _read(self, paths: Sequence[Path]) -> Iterator[LocalRow]:
        for path in paths:
            yield from self._read_one(path)

    def _read_one(self, path: Path) -> Iterator[LocalRow]:
        if path.suffix.lower() == ".txt":
            for number, document in enumerate(text_documents(read_text(path)), start=1):
                yield from _rows(document, "", "", f"{path}, {PIECE}{number}")
            return
        from finetrial.tasks.user_rows import read_rows, row_cluster, row_id

        for record in read_rows(path, "text", self.columns):
            yield from _rows(record.text("text"), row_id(record), row_cluster(record), record.where)


def _rows(document: str, name: str, cluster: str, source: str) -> list[LocalRow]:
    pieces = cut_at_lines(document)
    whole = f"document {content_id(normal_text(document))}" if len(pieces) > 1 else ""
    return [LocalRow((name if len(pieces) == 1 else name and f"{name}#{number}") or content_id(piece), cluster, piece,
                     {"text": piece}, source, whole) for number, piece in enumerate(pieces, start=1)]
