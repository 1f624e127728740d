"""Mined tables kept on disk: made once by one process, and trusted only while their digests hold.

`kept_tables()` reads `<name>-<digest>/` in the cache: a parquet file for each table, and `corpus.json` with the mining
report and the SHA-256 of every table. A folder that is missing or damaged is made again; other processes wait meanwhile.
"""

from __future__ import annotations

import fcntl
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetrial.cache import cache_root
from finetrial.fingerprint import file_digest
from finetrial.tasks.base import SPLITS, MiningReport, Split

Tables = Mapping[str, Sequence[Mapping[str, Any]]]


@dataclass(frozen=True)
class Corpus:
    """The mined tables, read from disk when asked for."""

    digest: str
    folder: Path
    report: MiningReport

    def rows(self, table: str, splits: Sequence[Split] = SPLITS) -> list[dict[str, Any]]:
        """The rows of some splits, in the corpus's order (package, path, place in the file)."""
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        chosen = pc.field("split").isin(list(splits))
        rows: list[dict[str, Any]] = pq.read_table(self.folder / f"{table}.parquet", filters=chosen).to_pylist()
        return rows


def kept_tables(name: str, digest: str, make: Callable[[], tuple[Tables, Mapping[str, Any]]], saying: str) -> Corpus:
    """The corpus `name` of this digest, from the cache if it is there and intact, else made now by `make`.

    `make` returns the tables and the report (the fields of `MiningReport`); `saying` tells the user what takes time.
    """
    folder = cache_root() / f"{name}-{digest}"
    if not _is_intact(folder):
        with sole_user(folder):
            if not _is_intact(folder):  # another process may have mined while this one waited
                print(f"finetrial: {saying}", file=sys.stderr, flush=True)
                _write(folder, *make())
    report = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))["report"]
    notes = tuple(report.pop("notes"))
    return Corpus(digest, folder, MiningReport(**report, notes=notes))


@contextmanager
def sole_user(path: Path) -> Iterator[None]:
    """Let one process make `path`; the others wait. The system frees the lock of a process that is killed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(path.name + ".lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _write(folder: Path, tables: Tables, report: Mapping[str, Any]) -> None:
    """Write into a temporary folder beside `folder`, then rename: a folder that exists is complete."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    temporary = Path(tempfile.mkdtemp(prefix=folder.name + ".", dir=folder.parent))
    try:
        for table, rows in tables.items():
            pq.write_table(pa.Table.from_pylist(list(rows)), temporary / f"{table}.parquet", compression="zstd")
        digests = {f"{table}.parquet": file_digest(temporary / f"{table}.parquet") for table in tables}
        index = json.dumps({"report": report, "files": digests}, indent=1)
        (temporary / "corpus.json").write_text(index, encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _is_intact(folder: Path) -> bool:
    """True if the folder is complete and its files have the digests written when it was made."""
    try:
        digests = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))["files"]
        return all(file_digest(folder / name) == digest for name, digest in digests.items())
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError):
        return False
