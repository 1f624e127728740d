"""A user's own files as rows with splits: read strictly, clustered, and never the same prompt on both sides.

Either one `path` (or several, separated by commas), whose clusters are hashed into train 80 / val 10 / test 10 %, or a
file for each split (`train`, `val`, `test`; any may be left out). Rows that share a `cluster` or a prompt, or that say nearly the same, belong
together. Prompts are the same that differ in white space, case or a last full stop only. With files per split a prompt, or a document that
rows were cut from, that is in several of them stays in test, else val, and is dropped from the others, with a count; a
named cluster in several files is refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pydantic import model_validator

from finetrial.cache import cache_root
from finetrial.errors import DataError
from finetrial.fingerprint import DIGESTS, key_of, remembered_digest
from finetrial.models.files import TOKENIZER_FILES
from finetrial.tasks.base import Example, Examples, Split, Task, named_files
from finetrial.tasks.near_duplicates import near_duplicates
from finetrial.tasks.pieces import USED_SPLITS, content_id, counted_draw, counts, normal_text
from finetrial.tasks.splits import LOCAL_SHARES, cluster_names, hashed_split

HELD_OUT_FIRST: tuple[Split, ...] = ("test", "val", "train")
HELD_OUT_ELSEWHERE = "prompt or document in a split held out before"
SUFFIXES = (".jsonl", ".json", ".csv", ".parquet", ".txt", ".jsonl.gz", ".json.gz", ".csv.gz")
NO_DATA = (*TOKENIZER_FILES, "generation_config.json", "dataset_infos.json", "metadata.jsonl", "requirements.txt", "LICENSE.txt", "README.txt")


@dataclass(frozen=True)
class LocalRow:
    """One row as read. `prompt` is what must not cross splits, nor must the `document` that it was cut from, '' if it is
    whole; `cluster` is '' if the file names none."""

    id: str
    cluster: str
    prompt: str
    fields: dict[str, str]
    source: str
    document: str = ""

    @property
    def marks(self) -> dict[str, str]:
        """What ties the row to others, by kind; never empty."""
        named = {"cluster": self.cluster, "document": self.document}
        return {"prompt": normal_text(self.prompt)} | {kind: name for kind, name in named.items() if name}

    @property
    def own_cluster(self) -> str:
        """The cluster that the row names, or that is made of its document or prompt."""
        return self.cluster or self.document or content_id(normal_text(self.prompt))


class LocalTask(Task):
    """Options and splitting shared by the tasks that read local files. Paths are relative to the study's file."""

    path_options: ClassVar[tuple[str, ...]] = ("path", "train", "val", "test")
    usual_form: ClassVar[str] = ".jsonl"  # of the files

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

    @property
    def splits(self) -> tuple[Split, ...]:
        """Those with a file; all where they are made."""
        return tuple(split for split in USED_SPLITS if getattr(self, split) is not None) or USED_SPLITS

    def files(self) -> dict[Split | None, list[Path]]:
        """The files of each split given, or those under None. Raises DataError for a file that is not there."""
        named: dict[Split | None, str] = {split: value for split in USED_SPLITS if (value := getattr(self, split))}
        found = {split: named_files(name) for split, name in (named or {None: str(self.path)}).items()}
        for path in (path for of_split in found.values() for path in of_split):
            if not path.is_file():
                if path.is_dir():
                    raise _is_a_folder(path)
                raise DataError(f"data file {path} does not exist",
                                f"paths are relative to the study's folder, and else to {Path.cwd()}")
        return found

    def source_digest(self) -> str:
        """Digest of the files' bytes, of which split each is, and of how it is read where that is not as most are."""
        digests = {split: [self._digest_of(path) for path in paths] for split, paths in self.files().items()}
        return key_of([[split, found[0] if len(found) == 1 else found] for split, found in digests.items()])

    def _digest_of(self, path: Path) -> str:
        """The same bytes say another thing as text and as rows."""
        digest, form = remembered_digest(path, cache_root() / DIGESTS), Path(path.name.lower().removesuffix(".gz")).suffix
        return digest if form == self.usual_form else f"{form} {digest}"

    def examples_from(self, read: Callable[[Sequence[Path]], Iterable[LocalRow]], max_rows: int | None = None) -> Examples:
        """Rows of all files with clusters and splits; `read` gets the files of a split, of whose rows at most `max_rows`
        are drawn."""
        files = self.files()
        rows: list[tuple[Split | None, LocalRow]] = []
        dropped: Counter[str] = Counter({"exact duplicate": 0, HELD_OUT_ELSEWHERE: 0})
        for split, paths in files.items():
            own, number = counted_draw(read(paths), max_rows)
            if max_rows is not None:
                dropped["above max_rows"] += number - len(own)
            if not own:
                raise DataError(f"{paths[0]} has no rows", "expected text, or rows with columns")
            rows += [(split, row) for row in own]
        rows = unique_rows(rows, dropped)
        examples = hashed([row for _, row in rows]) if None in files else _as_given(rows, dropped)
        digest = key_of([self.source_digest(), self.version, sorted(example.id for example in examples)])
        return Examples(examples, digest, counts(examples, dict(dropped)))


def _is_a_folder(path: Path) -> DataError:
    """The error for a folder in the place of a data file, with files of it that may be data."""
    names = {file.name for file in path.iterdir()}
    inside = sorted(str(path / name) for name in names if name.endswith(SUFFIXES) and name not in NO_DATA)
    if "config.json" in names:
        return DataError(f"data file {path} is a folder that holds a model", "name a file of data; a model is given as --model, or as a "
                         "study's base")
    return DataError(f"data file {path} is a folder", f"name the files: {','.join(inside[:2])}" if inside else
                     f"name a file; the folder holds none that ends in one of {', '.join(SUFFIXES)}")


def read_text(path: Path) -> str:
    """A file as UTF-8 text with \\n line ends. Raises DataError naming the line that is not."""
    return decoded(path.read_bytes(), path)


def decoded(data: bytes, path: Path, *, first_line: int = 1) -> str:
    """The bytes of `path`, from a line on, as UTF-8 text with \\n line ends. Raises DataError naming the line that is
    not."""
    if b"\0" in data:
        line = first_line + data[:data.index(b"\0")].count(b"\n")
        raise DataError(f"{path}, line {line}: byte 0x00; the file is binary, or text in UTF-16",
                        "save the file as UTF-8 text")
    try:
        return data.decode("utf-8-sig" if first_line == 1 else "utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = first_line + data[:error.start].count(b"\n")
        raise DataError(f"{path}, line {line}: byte 0x{data[error.start]:02x} is not UTF-8",
                        "save the file as UTF-8") from error


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
    """Clusters joined by name, document, prompt or because they say nearly the same, and hashed into splits."""
    near = near_duplicates(["\n".join(row.fields.values()) for row in rows])
    clusters = cluster_names([row.id for row in rows], [row.marks.items() for row in rows], near)
    return [_example(row, cluster, hashed_split(cluster, LOCAL_SHARES))
            for row, cluster in zip(rows, clusters, strict=True)]


def kept_apart(placed: Sequence[tuple[Split | None, LocalRow]], dropped: Counter[str], rule: str) -> list[Example]:
    """Rows with given splits, without those that share a mark with a row kept in a split held out before theirs."""
    owner: dict[tuple[str, str], Split] = {}
    kept: dict[Split, list[Example]] = {}
    for split in HELD_OUT_FIRST:
        for row in (row for own, row in placed if own == split):
            marks = row.marks.items()
            if any(owner.get(mark, split) != split for mark in marks):
                dropped[rule] += 1
            else:
                owner.update(dict.fromkeys(marks, split))
                kept.setdefault(split, []).append(_example(row, row.own_cluster, split))
    return [example for split in USED_SPLITS for example in kept.get(split, [])]


def _as_given(rows: Sequence[tuple[Split | None, LocalRow]], dropped: Counter[str]) -> list[Example]:
    """The user's own splits: prompts and documents held out are dropped elsewhere, clusters in two splits refused."""
    cluster_in: dict[str, Split] = {}
    for split in HELD_OUT_FIRST:
        for row in (row for own, row in rows if own == split):
            if row.cluster and cluster_in.setdefault(row.cluster, split) != split:
                raise DataError(f"{row.source}: cluster {row.cluster!r} is in {split} and in {cluster_in[row.cluster]}",
                                "rows of one cluster belong in one split; or give one `path` and let splits be made")
    return kept_apart(rows, dropped, HELD_OUT_ELSEWHERE)


def _example(row: LocalRow, cluster: str, split: Split) -> Example:
    return Example(row.id, cluster, split, row.fields, row.source)
