"""text: a user's plain text from a .txt or .jsonl file, every token scored but a row's first.

A .txt is cut at `<|endoftext|>`, else at blank lines into pieces of at least 500 characters; each piece is a cluster.
A .jsonl has one object a line with `text`, and perhaps `cluster` and `id`. Whatever is longer than 2,000 characters
becomes several rows of one cluster, cut at line ends.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from finetrial.errors import DataError
from finetrial.tasks.base import Example, Examples, Segment
from finetrial.tasks.local import LocalRow, LocalTask, read_json_lines, read_text
from finetrial.tasks.pieces import content_id, cut_at_lines, text_documents


class Text(LocalTask):
    """Plain text of local files."""

    version: ClassVar[int] = 1
    summary: ClassVar[str] = "your own plain text: .txt, or .jsonl with `text`"

    def load(self) -> Examples:
        """Raises DataError for a file that is missing, empty, not UTF-8 or has a bad row (file and line named)."""
        return self.examples_from(_read)

    def render(self, example: Example) -> tuple[Segment, ...]:
        """One target; what exceeds the sequence length is cut off and counted as lost."""
        return (Segment(example.fields["text"], loss=True, cuttable=True),)


def _read(path: Path) -> list[LocalRow]:
    if path.suffix == ".txt":
        return [row for number, document in enumerate(text_documents(read_text(path)), start=1)
                for row in _rows(document, "", "", f"{path}, piece {number}")]
    if path.suffix == ".jsonl":
        return [row for number, item in read_json_lines(path, ("text",))
                for row in _rows(item["text"], item.get("id", ""), item.get("cluster", ""), f"{path}, line {number}")]
    raise DataError(f"{path}: a text file ends in .txt or .jsonl, not {path.suffix or 'nothing'!r}", "rename it")


def _rows(document: str, name: str, cluster: str, source: str) -> list[LocalRow]:
    pieces = cut_at_lines(document)
    cluster = cluster or (f"document {content_id(document)}" if len(pieces) > 1 else "")
    return [LocalRow((name if len(pieces) == 1 else name and f"{name}#{number}") or content_id(piece), cluster, piece,
                     {"text": piece}, source) for number, piece in enumerate(pieces, start=1)]
