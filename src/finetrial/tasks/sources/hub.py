"""Files of a repository on the Hugging Face hub, the same bytes on every machine and on every day.

A study names a repository and a revision (a branch, tag or commit). At the first fetch the revision is resolved to a
commit, and the commit with the names of its files and the SHA-256 of every fetched one is recorded in the cache, beside
the hub's own cache: `hub/<kind>s--<owner>--<name>/<revision>.json`. From then on that commit is used, whatever the branch
has become, and the files must have those digests. A pattern stands for every file of the commit that it matches, fetched
before or not. Once they are there, nothing asks the network (`HF_HUB_OFFLINE=1` works).

Downloads, caching and login are huggingface_hub's; its errors become `DataError`s that say how to mend them.
"""

from __future__ import annotations

import fnmatch
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from finetrial.cache import cache_root
from finetrial.errors import DataError
from finetrial.fingerprint import DIGESTS, remembered_digest
from finetrial.tasks.sources.hub_errors import own_files, told
from finetrial.tasks.sources.tables import sole_user

Kind = Literal["dataset", "model"]
Say = Callable[[str], None]
COMMIT_DIGITS = 40
PICKLES = "*.bin"  # weights of before safetensors


@dataclass(frozen=True)
class Snapshot:
    """Files of one commit: `files` are local paths by name in the repository, `digests` their SHA-256."""

    kind: Kind
    repository: str
    revision: str
    commit: str
    files: Mapping[str, Path]
    digests: Mapping[str, str]

    def matching(self, pattern: str) -> list[Path]:
        """The paths of the files whose names match, in the order of their names."""
        return [self.files[name] for name in _matching(self.files, [pattern])]

    @property
    def provenance(self) -> str:
        """One line for reports."""
        asked = "" if self.revision == self.commit else f" ({self.revision})"
        return f"{self.repository} at commit {self.commit}{asked}, {len(self.files)} files"


def recorded_commit(repository: str, revision: str, kind: Kind = "dataset") -> str | None:
    """The commit that `revision` stands for, if it is one or has been fetched before; asks no network."""
    if _is_commit(revision):
        return revision
    record = _read_record(_record_path(kind, repository, revision))
    return None if record is None else str(record["commit"])


def is_here(repository: str, revision: str, kind: Kind = "dataset") -> bool:
    """Whether all that was ever fetched of a revision still lies in the hub's cache; asks no network."""
    from huggingface_hub import try_to_load_from_cache

    record = _read_record(_record_path(kind, repository, revision))
    return record is not None and bool(record["files"]) and all(
        isinstance(try_to_load_from_cache(repository, name, revision=record["commit"], repo_type=kind), str)
        for name in record["files"])


def fetch(repository: str, revision: str, patterns: Sequence[str], kind: Kind = "dataset", *,
          optional: Sequence[str] = (), say: Say | None = None) -> Snapshot:
    """The files whose names match any of `patterns` (as in a shell; `*` matches `/` too), and of `optional` those that
    the repository has. `say` is told, in a line, of each file that is downloaded.

    Raises DataError where the repository, the revision or such files do not exist, where access needs a login, where
    the hub cannot be reached, and where a file is not what was recorded.
    """
    path = _record_path(kind, repository, revision)
    with sole_user(path):
        record = _read_record(path)
        known = {} if record is None else record["files"]
        names = _matching([] if record is None else record.get("names", ()), [*patterns, *optional])
        complete = set(names) <= set(known) and all(fnmatch.filter(names, pattern) for pattern in patterns)
        if record is None or not complete:
            record, names = _resolve(kind, repository, revision, patterns, optional, record)
        files = {}
        for number, name in enumerate(names, start=1):
            if say is not None and name not in known:
                say(f"{repository}: {name} ({number} of {len(names)})")
            files[name] = _download(kind, repository, revision, record["commit"], name)
        digests = {name: remembered_digest(file, cache_root() / DIGESTS) for name, file in files.items()}
        for name, digest in digests.items():
            expected = record["files"].get(name) or record["announced"].get(name)
            if expected not in (None, digest):
                raise _damaged(repository, name, files[name], digest, expected)
        if not complete:
            _write_record(path, {**record, "files": {**known, **digests}})
    return Snapshot(kind, repository, revision, record["commit"], files, digests)


def file_names(repository: str, revision: str, kind: Kind = "dataset") -> list[str]:
    """The names of all files of a repository, at the commit that the revision was resolved to, if it was; the hub is
    asked only before that. Raises DataError as `fetch` does.
    """
    record = _read_record(_record_path(kind, repository, revision))
    if record is not None and "names" in record:
        return list(record["names"])
    return sorted(_listing(kind, repository, revision, record)[1])


def _resolve(kind: Kind, repository: str, revision: str, patterns: Sequence[str], optional: Sequence[str],
             record: Mapping[str, Any] | None) -> tuple[dict[str, Any], list[str]]:
    """The commit (the recorded one if there is), and the names of its files that match."""

    commit, there = _listing(kind, repository, revision, record)
    names = _matching(there, [*patterns, *optional])
    missing = [pattern for pattern in patterns if not fnmatch.filter(there, pattern)]
    if missing:
        folders = sorted({name.rpartition("/")[0] or "." for name in there})
        where = f"it has files in: {', '.join(folders[:12])}; name another revision"
        if kind == "model" and fnmatch.filter(there, PICKLES):
            where = ("its weights are pickled, which can run code when loaded; name the revision of the pull request in which "
                     "the hub offers them as safetensors, such as refs/pr/1")
        raise DataError(f"{kind} {repository} at {commit} has no file {' or '.join(missing)}", f"{where}, {own_files(kind)}")
    resolved = {"kind": kind, "repository": repository, "revision": revision, "commit": commit,
                "resolved": datetime.now(UTC).isoformat(timespec="seconds"), "files": {}, **(record or {}),
                "names": sorted(there)}
    return {**resolved, "announced": {name: there[name] for name in names if there[name]}}, names


def _listing(kind: Kind, repository: str, revision: str,
             record: Mapping[str, Any] | None) -> tuple[str, dict[str, str | None]]:
    """The commit (the recorded one if there is), and its files with the SHA-256 that the hub announces of large ones."""
    from huggingface_hub import HfApi

    try:
        api = HfApi()
        ask = api.dataset_info if kind == "dataset" else api.model_info
        info: Any = ask(repository, revision=revision if record is None else record["commit"], files_metadata=True)
    except Exception as error:
        raise told(error, kind, repository, revision) from error
    return info.sha, {file.rfilename: file.lfs.sha256 if file.lfs else None for file in info.siblings or ()}


def _download(kind: Kind, repository: str, revision: str, commit: str, name: str) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repository, name, repo_type=kind, revision=commit))
    except Exception as error:
        raise told(error, kind, repository, revision, name) from error


def _damaged(repository: str, name: str, file: Path, digest: str, expected: str) -> DataError:
    return DataError(f"{name} of {repository} has SHA-256 {digest}, expected {expected}: a broken or altered download",
                     f"delete it and fetch it again: rm {file.resolve()} {file}")


def _matching(names: Iterable[str], patterns: Sequence[str]) -> list[str]:
    return sorted({name for pattern in patterns for name in fnmatch.filter(names, pattern)})


def _is_commit(revision: str) -> bool:
    return len(revision) == COMMIT_DIGITS and all(digit in "0123456789abcdef" for digit in revision)


def _record_path(kind: Kind, repository: str, revision: str) -> Path:
    folder = f"{kind}s--{repository.replace('/', '--')}"
    return cache_root() / "hub" / folder / f"{quote(revision, safe='')}.json"


def _read_record(path: Path) -> dict[str, Any] | None:
    try:
        record: dict[str, Any] = {"announced": {}, **json.loads(path.read_text(encoding="utf-8"))}
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise DataError(f"{path} is damaged: {error}", f"delete it; the revision is resolved again: rm {path}") from error
    return record


def _write_record(path: Path, record: Mapping[str, Any]) -> None:
    partial = path.with_suffix(f".{os.getpid()}")
    kept = {name: value for name, value in record.items() if name != "announced"}
    partial.write_text(json.dumps(kept, indent=1, sort_keys=True), encoding="utf-8")
    partial.rename(path)
