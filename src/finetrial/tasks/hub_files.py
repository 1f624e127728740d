"""A user's own rows, in files of this machine or of a repository on the hub.

With `repository` (a data set, `owner/name`, at `revision`), `path`, `train`, `val` and `test` are names of files inside
it, or patterns as in a shell: `{kind: text, repository: owner/name, train: "data/train-*.parquet", ...}`. The revision is
resolved at the first fetch and kept (`sources/hub.py`).
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Self

from pydantic import Field

from finetrial.errors import DataError
from finetrial.fingerprint import key_of
from finetrial.tasks.base import Split
from finetrial.tasks.local import NO_DATA, LocalTask
from finetrial.tasks.pieces import USED_SPLITS

if TYPE_CHECKING:
    from finetrial.tasks.sources.hub import Snapshot

SUFFIXES = (".parquet", ".jsonl", ".jsonl.gz", ".json", ".json.gz", ".csv", ".csv.gz", ".txt")  # the first there is taken
REFERENCE = re.compile(r"(?P<repository>[A-Za-z0-9][\w.-]*/[\w.-]+?)(@(?P<revision>[\w./-]+))?(:(?P<pattern>.+))?")
SPLIT_NAMES: Mapping[str, Split] = {"train": "train", "training": "train", "val": "val", "valid": "val", "dev": "val",
                                    "validation": "val", "test": "test"}
WAY = "for example owner/name:data/*.parquet"


class HubFiles(LocalTask):
    """Options and reading of files that may lie on the hub."""

    repository: str | None = None
    revision: str = "main"
    max_rows: int | None = Field(default=None, ge=1)  # of each split's files, by a draw that depends on content only

    @property
    def origin(self) -> str:
        """The repository, if there is one."""
        return self.repository or ""

    @property
    def is_here(self) -> bool:
        """Whether the revision has been resolved, which the first fetch does."""
        from finetrial.tasks.sources.hub import recorded_commit

        return self.repository is None or recorded_commit(self.repository, self.revision) is not None

    def located(self, folder: Path | None) -> Self:
        """Names of files on the hub stay as they are."""
        return super().located(folder) if self.repository is None else self

    def fetch(self, say: Callable[[str], None] | None = None) -> str:
        """Make sure that files of the hub are here; returns repository and commit."""
        return "" if self.repository is None else self._snapshot(say).provenance

    def files(self) -> dict[Split | None, list[Path]]:
        """The files of each split. Raises DataError for one that is not there."""
        if self.repository is None:
            return super().files()
        snapshot = self._snapshot()
        return {split: snapshot.matching(pattern) for split, pattern in self._patterns().items()}

    def source_digest(self) -> str:
        """Of hub data the commit, or, until that is known, the revision (provisional)."""
        if self.repository is None:
            return super().source_digest()
        from finetrial.tasks.sources.hub import recorded_commit

        commit = recorded_commit(self.repository, self.revision)
        return key_of(["hub", self.repository, commit or f"revision {self.revision}",
                       [[split, pattern] for split, pattern in self._patterns().items()]])

    def _patterns(self) -> dict[Split | None, str]:
        named: dict[Split | None, str] = {split: value for split in USED_SPLITS if (value := getattr(self, split))}
        return named or {None: str(self.path)}

    def _snapshot(self, say: Callable[[str], None] | None = None) -> Snapshot:
        from finetrial.tasks.sources.hub import fetch

        assert self.repository is not None
        return fetch(self.repository, self.revision, list(self._patterns().values()), say=say)


def hub_options(reference: str) -> dict[str, str] | None:
    """The options that read `owner/name`, `owner/name@revision` or `owner/name:pattern`; None for what is none of them.

    Which file is of which split is told by its name. Without a file for each of train, val and test the training files
    are read, or all, and split by content. Raises DataError where it cannot be told which files are meant.
    """
    from finetrial.tasks.sources.hub import file_names

    found = REFERENCE.fullmatch(reference)
    if found is None or (found["pattern"] is None and reference.endswith(SUFFIXES)):  # a path that is wrong
        return None
    repository, revision = found["repository"], found["revision"] or "main"
    names = file_names(repository, revision)
    there = [name for name in names if (PurePosixPath(name).name not in NO_DATA if found["pattern"] is None
                                        else fnmatch.fnmatch(name, found["pattern"]))]
    suffix = next((suffix for suffix in SUFFIXES if any(name.endswith(suffix) for name in there)), None)
    if suffix is None:
        what = f"no file {found['pattern']}" if found["pattern"] else f"no file that is read ({', '.join(SUFFIXES)})"
        raise DataError(f"data set {repository} ({revision}) has {what}; it has: {_listed(names)}", f"name the files: {WAY}")
    data = [name for name in there if name.endswith(suffix)]
    folders = sorted({str(PurePosixPath(name).parent) for name in data})
    if len(folders) > 1:
        raise DataError(f"data set {repository} ({revision}) has data in several folders: {_listed(folders)}",
                        f"name one: {reference.partition(':')[0]}:{next((one for one in folders if 'train' in one), folders[0])}/*")
    by_split = _by_split(data)
    if set(by_split) >= set(USED_SPLITS):
        named = {str(split): _pattern(by_split[split], names) for split in USED_SPLITS}
    else:
        named = {"path": _pattern(by_split.get("train") or data, names)}
    return {"repository": repository, "revision": revision, **named}


def _by_split(names: Sequence[str]) -> dict[Split | None, list[str]]:
    found: dict[Split | None, list[str]] = {}
    for name in names:
        words = re.split(r"[^a-z]+", PurePosixPath(name).name.lower())
        found.setdefault(next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), None), []).append(name)
    return found


def _pattern(names: Sequence[str], every: Sequence[str]) -> str:
    """A pattern that matches these names and no others. Raises DataError where no simple one does."""
    if len(names) == 1:
        return names[0]
    first, last = min(names), max(names)
    start = next((at for at, (one, two) in enumerate(zip(first, last, strict=False)) if one != two), len(first))
    suffix = next(suffix for suffix in SUFFIXES if first.endswith(suffix))
    pattern = f"{first[:start]}*{suffix}"
    if sorted(fnmatch.filter(every, pattern)) != sorted(names):
        raise DataError(f"the files {_listed(names)} have no pattern of their own", f"name them: {WAY}")
    return pattern


def _listed(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
