"""A published data set as a task: from the hub, or from a user's own files in the same columns.

Without any path the rows come from the hub (`repository` at `revision`, resolved once and recorded: `sources/hub.py`).
With `path`, or `train`, `val` and `test`, they come from local files: .jsonl, .json, .csv, .parquet, the first three
also with .gz; `columns` says how a file calls a column (`columns: {article: text}`).

Published splits are kept; a row whose prompt or cluster is in a held-out split too (test before val) is dropped from the
others, and counted. Data without a validation split lends 5 % of the training clusters. One local file is split by
its clusters, train 80 / val 10 / test 10 %, unless the task knows the split of each row; rows that say nearly the same
are of one cluster.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, model_validator

from finetrial.errors import unknown
from finetrial.fingerprint import file_digest, key_of
from finetrial.tasks.base import Example, Examples, Split
from finetrial.tasks.local import LocalRow, LocalTask, hashed, kept_apart, unique_rows
from finetrial.tasks.pieces import USED_SPLITS, counts, stable_draw
from finetrial.tasks.splits import cluster_names, hashed_split

if TYPE_CHECKING:
    from finetrial.tasks.sources.hub import Snapshot
    from finetrial.tasks.sources.records import Record

LENT_SHARES: Mapping[Split, float] = {"val": 0.05, "train": 0.95}
HELD_OUT_TOO = "in a held-out split too"


@dataclass(frozen=True)
class _Part:
    """Files whose rows belong together, and their split; None if the rows say it, or it is made."""

    split: Split | None
    paths: Sequence[Path]


class PublishedTask(LocalTask):
    """Options, reading and splitting shared by the tasks of published data sets."""

    needed: ClassVar[tuple[str, ...]]  # columns every file has
    perhaps: ClassVar[tuple[str, ...]] = ()  # columns that are read where they are there

    repository: str
    revision: str = "main"
    columns: dict[str, str] = Field(default_factory=dict)  # our name: the file's
    max_rows: int | None = Field(default=None, ge=1)  # of each split, by a draw that depends on the content only

    @abstractmethod
    def hub_files(self) -> Mapping[str, Split]:
        """Which of the repository's files belong to which split: patterns as in a shell."""

    @abstractmethod
    def rows_of(self, records: Sequence[Record], dropped: Counter[str]) -> Iterator[LocalRow]:
        """The rows made of one split's records; what is left out is counted in `dropped`."""

    def text_of(self, record: Record, column: str) -> str:
        """A column's text without the blanks around it. Published rows may lack it, which gives ''; of a user's own, which
        can be mended, it raises DataError."""
        return (record.text(column) if self.is_local else record.optional_text(column)).strip()

    def split_of(self, row: LocalRow) -> Split | None:
        """The published split of a row of a file that holds all of them; None where splits must be made."""
        return None

    @model_validator(mode="after")
    def _one_way(self) -> PublishedTask:
        if self.path is not None and any(getattr(self, split) is not None for split in USED_SPLITS):
            raise ValueError("give `path`, or `train`, `val` and `test`, or none of them (then the hub is asked)")
        for name in self.columns:
            if name not in (*self.needed, *self.perhaps):
                raise ValueError(unknown("column", name, (*self.needed, *self.perhaps)))
        return self

    @property
    def is_local(self) -> bool:
        """True if the rows come from the user's files."""
        return any(getattr(self, option) is not None for option in self.path_options)

    @property
    def origin(self) -> str:
        """The repository, unless the rows are the user's."""
        return "" if self.is_local else self.repository

    @property
    def is_here(self) -> bool:
        """Whether the revision has been resolved, which the first fetch does."""
        from finetrial.tasks.sources.hub import recorded_commit

        return self.is_local or recorded_commit(self.repository, self.revision) is not None

    @property
    def splits(self) -> tuple[Split, ...]:
        """Those of the files, and `val`, which is lent by `train`."""
        published = super().splits if self.is_local else tuple(self.hub_files().values())
        return tuple(split for split in USED_SPLITS
                     if split in published or (split == "val" and "train" in published))

    def source_digest(self) -> str:
        """Digest of the files' bytes; of hub data the commit, or, until that is known, the revision (provisional)."""
        if self.is_local:
            return super().source_digest()
        from finetrial.tasks.sources.hub import recorded_commit

        commit = recorded_commit(self.repository, self.revision)
        return key_of(["hub", self.repository, commit or f"revision {self.revision}"])

    def fetch(self, say: Callable[[str], None] | None = None) -> str:
        """Make sure that data of the hub is here and its revision resolved; returns repository and commit."""
        return "" if self.is_local else self._snapshot(say).provenance

    def load(self) -> Examples:
        """Raises DataError for a repository, file, row or column that cannot be read."""
        from finetrial.tasks.sources.records import read_records

        parts, origin = self._parts()
        dropped: Counter[str] = Counter()
        placed: list[tuple[Split | None, LocalRow]] = []
        for part in parts:
            records = [record for path in part.paths
                       for record in read_records(path, self.needed, self.perhaps, self.columns)]
            placed += [(part.split or self.split_of(row), row) for row in self.rows_of(records, dropped)]
        dropped.update({"exact duplicate": 0, HELD_OUT_TOO: 0})
        placed = unique_rows(placed, dropped)
        if any(split is None for split, _ in placed):
            examples = hashed([row for _, row in placed])
        else:
            examples = kept_apart(_with_val(placed), dropped, HELD_OUT_TOO)
        kept = [example for split in USED_SPLITS
                for example in stable_draw((row for row in examples if row.split == split), self.max_rows)]
        if self.max_rows is not None:
            dropped["above max_rows"] = len(examples) - len(kept)
        return Examples(kept, self._digest(kept), counts(kept, dict(dropped), (origin,)))

    def _parts(self) -> tuple[list[_Part], str]:
        if self.is_local:
            files = self.files()
            told = ", ".join(f"{path} (SHA-256 {file_digest(path)[:12]})" for paths in files.values() for path in paths)
            return [_Part(split, paths) for split, paths in files.items()], f"local: {told}"
        snapshot = self._snapshot()
        names: dict[Split, list[Path]] = {}
        for pattern, split in self.hub_files().items():
            names.setdefault(split, []).extend(snapshot.matching(pattern))
        return [_Part(split, paths) for split, paths in names.items()], f"hub: {snapshot.provenance}"

    def _snapshot(self, say: Callable[[str], None] | None = None) -> Snapshot:
        from finetrial.tasks.sources.hub import fetch

        return fetch(self.repository, self.revision, list(self.hub_files()), say=say)

    def _digest(self, examples: Sequence[Example]) -> str:
        options: dict[str, Any] = self.model_dump(mode="json", exclude=set(self.path_options))
        return key_of([self.version, options, sorted([row.id, row.split] for row in examples)])


def _with_val(placed: Sequence[tuple[Split | None, LocalRow]]) -> list[tuple[Split | None, LocalRow]]:
    """The rows; where none is `val`, those of `train` lend it some, all that share a cluster or a prompt together."""
    if any(split == "val" for split, _ in placed):
        return list(placed)
    rows = [row for split, row in placed if split == "train"]
    groups = cluster_names([row.id for row in rows], [row.marks.items() for row in rows])
    smallest: dict[str, str] = {}
    for group, row in zip(groups, rows, strict=True):
        smallest[group] = min(row.own_cluster, smallest.get(group, row.own_cluster))
    lent = {row.id: hashed_split(smallest[group], LENT_SHARES) for group, row in zip(groups, rows, strict=True)}
    return [(lent[row.id] if split == "train" else split, row) for split, row in placed]
