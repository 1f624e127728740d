"""What tasks share: pieces of plain text, sentences, code at the left margin, a draw of rows, and counting rows."""

from __future__ import annotations

import hashlib
import heapq
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, TypeVar

from finetrial.tasks.base import Example, MiningReport, Split

USED_SPLITS: tuple[Split, ...] = ("train", "val", "test")  # what a study may use: not what a base has seen
PIECE_CHARACTERS = 2_000
MIN_BLOCK_CHARACTERS = 500
FEWEST_CLUSTERS = 10  # of which one for validation and one for testing may be expected
PIECE = "piece "  # of a .txt: how the place of a row's document in it is written
END_OF_TEXT = "<|endoftext|>"
SENTENCE_END = re.compile(r"(?:(?<=[.!?])|(?<=[.!?][\"'`)\]]))\s+(?=[A-Z0-9`\"'(\[])|\n+")


class _Named(Protocol):
    @property
    def id(self) -> str: ...


Row = TypeVar("Row", bound=_Named)


def content_id(*parts: str) -> str:
    """A row's id: the first 16 hexadecimal digits of SHA-256 over its texts."""
    return hashlib.sha256("\x00".join(parts).encode("utf-8")).hexdigest()[:16]


def normal_text(text: str) -> str:
    """The form in which descriptions and prompts are compared: white space, case and a full stop at the end aside."""
    return " ".join(text.lower().split()).rstrip(".")


def cut_at_lines(text: str, size: int = PIECE_CHARACTERS) -> list[str]:
    """Pieces of at most `size` characters that end at line ends; a longer line is cut at its last space that fits.

    Nothing is lost but whitespace around pieces. A last piece under a quarter of `size` joins the one before, which is then
    longer than `size`.
    """
    pieces: list[str] = []
    current = ""
    for line in (part for whole in text.splitlines(keepends=True) for part in _cut_line(whole, size)):
        if current and len(current) + len(line) > size:
            pieces.append(current)
            current = ""
        current += line
    if pieces and len(current) < size / 4:
        pieces[-1] += current
    else:
        pieces.append(current)
    return [piece.strip("\n") for piece in pieces if piece.strip()]


def text_documents(text: str) -> list[str]:
    """A text file's documents: cut at `<|endoftext|>`, else at blank lines into pieces of at least 500 characters."""
    if END_OF_TEXT in text:
        return [part.strip("\n") for part in text.split(END_OF_TEXT) if part.strip()]
    documents: list[str] = []
    current = ""
    for block in re.split(r"\n(?:[ \t]*\n)+", text):
        current = f"{current}\n\n{block}" if current else block
        if len(current) >= MIN_BLOCK_CHARACTERS:
            documents.append(current)
            current = ""
    if current and documents:
        documents[-1] += "\n\n" + current
    elif current:
        documents.append(current)
    return [document.strip("\n") for document in documents if document.strip()]


def lead_floors(text: str, no_end: re.Pattern[str] | None = None) -> dict[str, str]:
    """Summaries that need no model: the text, its first sentence (`lead-1`), its first three (`lead-3`). A stop behind what
    `no_end` finds, such as `Dr.`, ends no sentence."""
    sentences: list[str] = []
    for part in filter(str.strip, SENTENCE_END.split(text)):
        if no_end is not None and sentences and no_end.search(sentences[-1]):
            sentences[-1] += f" {part}"
        else:
            sentences.append(part)
    return {"copy": text, "lead-1": " ".join(sentences[:1]), "lead-3": " ".join(sentences[:3])}


def at_margin(code: str) -> str:
    """Code moved left by the indentation of its first line, so that it stands at the margin; no blank line around it."""
    lines = [line.rstrip() for line in code.strip("\n").split("\n")]
    first = next((line for line in lines if line), "")
    margin = first[:len(first) - len(first.lstrip())]
    return "\n".join(line.removeprefix(margin) for line in lines).strip("\n")


def stable_draw(rows: Iterable[Row], limit: int | None) -> list[Row]:
    """At most `limit` rows, those whose ids have the smallest digests, in the order given."""
    return counted_draw(rows, limit)[0]


def counted_draw(rows: Iterable[Row], limit: int | None) -> tuple[list[Row], int]:
    """`stable_draw`, and how many rows there were. Holds no more rows than it draws."""
    kept: list[tuple[int, int, Row]] = []  # a heap, the largest digest first
    number = 0
    for number, row in enumerate(rows, start=1):
        ranked = (-int.from_bytes(hashlib.sha256(row.id.encode()).digest()), -number, row)
        (heapq.heappush if limit is None or len(kept) < limit else heapq.heappushpop)(kept, ranked)
    return [row for _, _, row in sorted(kept, key=lambda ranked: -ranked[1])], number


def counts(examples: Sequence[Example], dropped: Mapping[str, int], notes: tuple[str, ...] = ()) -> MiningReport:
    """The report of a task's rows: how many per split, in how many clusters."""
    splits = [split for split in USED_SPLITS if any(example.split == split for example in examples)]
    return MiningReport(
        {split: sum(example.split == split for example in examples) for split in splits},
        {split: len({example.cluster for example in examples if example.split == split}) for split in splits},
        dropped, notes)


def few_documents(examples: Sequence[Example]) -> tuple[str, str] | None:
    """(what is wrong, the mend) where rows are of so few documents or clusters that a split may well get none: each stays in
    one. None where there are enough, or where each row is one of its own."""
    clusters, sources = {example.cluster for example in examples}, {example.source for example in examples}
    if len(clusters) >= FEWEST_CLUSTERS or len(clusters) == len(examples):
        return None
    file, _, place = min(sources).rpartition(", ")
    mend = 'separate documents by blank lines, or give a .jsonl with a document a row in its column "text"'
    if len(sources) == 1 and place.startswith(PIECE):
        has_blank = any("\n\n" in text for example in examples for text in example.fields.values())
        why = "" if has_blank else "no blank line and no <|endoftext|>: "
        return f"{file} has {why or 'few blank lines: '}it is one document, of {len(examples)} rows, and stays in one split", mend
    return (f"{len(examples)} rows are of only {len(clusters)} documents or clusters, each of which stays in one split",
            mend if place.startswith(PIECE) else "give rows of more documents; rows of one `cluster`, of one document, of one "
            "prompt, or that say nearly the same stay together")


def _cut_line(line: str, size: int) -> list[str]:
    parts = []
    while len(line) > size:
        at = line.rfind(" ", 0, size) + 1 or size
        parts.append(line[:at])
        line = line[at:]
    return [*parts, line]
