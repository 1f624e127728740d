"""A user's own files as rows with splits: read strictly, clustered, and never the same prompt on both sides.

Either one `path`, whose clusters are hashed into train 80 / val 10 / test 10 %, or a file for each split (`train`,
`val`, `test`; any may be left out). Rows that share a `cluster` or a prompt belong together. With files per split a
prompt that is in several of them stays in test, else val, and is dropped from the others, with a count; a named
cluster in several files is refused.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pydantic import model_validator

from finetrial.errors import DataError
from finetrial.fingerprint import file_digest, key_of
from finetrial.tasks.base import Example, Examples, Split, Task
from finetrial.tasks.pieces import USED_SPLITS, content_id, counts
from finetrial.tasks.splits import LOCAL_SHARES, cluster_names, hashed_split

HELD_OUT_FIRST: tuple[Split, ...] = ("test", "val", "train")


@dataclass(frozen=True)
class LocalRow:
    """One row as read. `prompt` is what must not cross splits; `cluster` is '' if the file names none."""

    id: str
    cluster: str
    prompt: str
    fields: dict[str, str]
    source: str


class LocalTask(Task):
    """Options and splitting shared by the tasks that read local files. Paths are relative to the study's file."""

    path_options: ClassVar[tuple[str, ...]] = ("path", "train", "val", "test")

    path: str | None = None
    train: str | None = None
    val: str | None = None
    test: str | None = None

    @model_validator(mode="after")
    def _one_way(self) -> LocalTask:
        named = [split for split in USED_SPLITS if getattr(self, split) is not None]
        if (self.path is None) == (not named):
            raise ValueError("give either `path` (splits are made) or `train`, `val` and `test` (one file each)")
        return self

    def files(self) -> dict[Split | None, Path]:
        """The file of each split given, or the one file under None. Raises DataError for a file that is not there."""
        named: dict[Split | None, str] = {split: value for split in USED_SPLITS if (value := getattr(self, split))}
        found = {split: Path(name).expanduser() for split, name in (named or {None: str(self.path)}).items()}
        for path in found.values():
            if not path.is_file():
                reason = "is a folder" if path.is_dir() else "does not exist"
                raise DataError(f"data file {path} {reason}", f"paths are relative to {Path.cwd()}")
        return found

    def source_digest(self) -> str:
        """Digest of the files' bytes and of which split each is."""
        return key_of([[split, file_digest(path)] for split, path in self.files().items()])

    def examples_from(self, read: Callable[[Path], Sequence[LocalRow]]) -> Examples:
        """Rows of all files with clusters and splits."""
        files = self.files()
        rows: list[tuple[Split | None, LocalRow]] = []
        for split, path in files.items():
            own = read(path)
            if not own:
                raise DataError(f"{path} has no rows", "expected text, or one JSON object a line")
            rows += [(split, row) for row in own]
        dropped: Counter[str] = Counter({"exact duplicate": 0, "prompt in a held-out split": 0})
        rows = unique_rows(rows, dropped)
        examples = hashed([row for _, row in rows]) if None in files else _as_given(rows, dropped)
        digest = key_of([self.source_digest(), self.version, sorted(example.id for example in examples)])
        return Examples(examples, digest, counts(examples, dict(dropped)))


def read_text(path: Path) -> str:
    """A file as UTF-8 text with \\n line ends. Raises DataError naming the line that is not."""
    return decoded(path.read_bytes(), path)


def decoded(data: bytes, path: Path) -> str:
    """The bytes of `path` as UTF-8 text with \\n line ends. Raises DataError naming the line that is not."""
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = data[:error.start].count(b"\n") + 1
        raise DataError(f"{path}, line {line}: byte 0x{data[error.start]:02x} is not UTF-8",
                        "save the file as UTF-8") from error


def read_json_lines(path: Path, required: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """(line number, object) of each non-blank line; `required` fields are non-empty strings, as are the optional ones.

    Raises DataError naming file, line and what is wrong with it.
    """
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            yield number, _checked(line, required, f"{path}, line {number}")


def _checked(line: str, required: Sequence[str], where: str) -> dict[str, str]:
    expected = "expected an object with " + " and ".join(f'"{name}"' for name in required)
    try:
        value: Any = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not JSON ({error.msg} at column {error.colno})",
                        f"{expected}, one a line") from error
    if not isinstance(value, dict):
        raise DataError(f"{where}: a {type(value).__name__}, {expected}", 'for example {"text": "..."}')
    row = {}
    for name in (*required, "id", "cluster"):
        item = value.get(name)
        if item is None and name not in required:
            continue
        if isinstance(item, int) and not isinstance(item, bool) and name not in required:
            item = str(item)
        if not isinstance(item, str) or not item.strip():
            found = "is missing" if name not in value else f"is {item!r}"
            raise DataError(f'{where}: "{name}" {found}, {expected}', "every value is a non-empty string")
        row[name] = item
    return row


def unique_rows(rows: Sequence[tuple[Split | None, LocalRow]],
                dropped: Counter[str]) -> list[tuple[Split | None, LocalRow]]:
    """Rows without exact duplicates inside one file; an id used for two different rows is refused."""
    seen: dict[tuple[Split | None, str], LocalRow] = {}
    ids: dict[str, LocalRow] = {}
    for split, row in rows:
        content = (split, content_id(*row.fields.values()))
        if content in seen:
            dropped["exact duplicate"] += 1
            continue
        other = ids.setdefault(row.id, row)
        if other.fields != row.fields:
            raise DataError(f"{row.source} and {other.source} have the same id {row.id!r}", "ids must be unique")
        seen[content] = row
    return [(split, row) for (split, _), row in seen.items()]


def hashed(rows: Sequence[LocalRow]) -> list[Example]:
    """Clusters joined by name or prompt, and hashed into splits."""
    marks = [{("prompt", row.prompt)} | ({("cluster", row.cluster)} if row.cluster else set()) for row in rows]
    clusters = cluster_names([row.id for row in rows], marks)
    return [_example(row, cluster, hashed_split(cluster, LOCAL_SHARES))
            for row, cluster in zip(rows, clusters, strict=True)]


def _as_given(rows: Sequence[tuple[Split | None, LocalRow]], dropped: Counter[str]) -> list[Example]:
    """The user's own splits: prompts held out are dropped elsewhere, clusters in two splits refused."""
    prompt_in: dict[str, Split] = {}
    cluster_in: dict[str, Split] = {}
    for split in HELD_OUT_FIRST:
        for row in (row for own, row in rows if own == split):
            prompt_in.setdefault(row.prompt, split)
            if row.cluster and cluster_in.setdefault(row.cluster, split) != split:
                raise DataError(f"{row.source}: cluster {row.cluster!r} is in {split} and in {cluster_in[row.cluster]}",
                                "rows of one cluster belong in one split; or give one `path` and let splits be made")
    kept = [(split, row) for split, row in rows if split is not None and prompt_in[row.prompt] == split]
    dropped["prompt in a held-out split"] += len(rows) - len(kept)
    return [_example(row, row.cluster or content_id(row.prompt), split) for split, row in kept]


def _example(row: LocalRow, cluster: str, split: Split) -> Example:
    return Example(row.id, cluster, split, row.fields, row.source)
