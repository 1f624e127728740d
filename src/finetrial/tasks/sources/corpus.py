"""The embedded corpus: all locked packages mined, clustered, split, and kept on disk.

`embedded_corpus()` mines once (about a minute on two cores) and from then on reads `corpus-<digest>/` in the cache;
the digest covers the lock, the miner's version and the grammar's. `files` are whole source files; `functions` are
(description, function) pairs and `documents` (long description, summary) pairs, each free of duplicates. All three are
Arrow tables whose rows carry `cluster` and `split`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from importlib.metadata import version
from multiprocessing import get_context
from typing import Any, Literal, Protocol

import numpy as np

from finetrial.fingerprint import key_of
from finetrial.tasks.base import SPLITS
from finetrial.tasks.pieces import normal_text
from finetrial.tasks.sources.minhash import similar_pairs
from finetrial.tasks.sources.python_source import MINER_VERSION, RULES, MinedFile, mine_file, python_parser
from finetrial.tasks.sources.tables import Corpus, kept_tables
from finetrial.tasks.sources.wheels import SourceFile, lock_digest, source_files
from finetrial.tasks.splits import cluster_names, file_splits

LINK_WORDS = 5  # descriptions of at least this many words tie the files that share them
MAX_PROCESSES = 2
Table = Literal["files", "functions", "documents"]
ALL_RULES = ("file not UTF-8", "file with syntax error", *RULES, "exact duplicate", "near-duplicate",
             "short description in two splits", "document: same long description")
TABLES: tuple[Table, ...] = ("files", "functions", "documents")


class Signed(Protocol):
    """A mined file: `signatures` [n, 64] belong to `signed`, the code keys that MinHash compares."""

    signed: list[str]
    signatures: np.ndarray


def corpus_digest() -> str:
    """Identity of the corpus: the lock, the rules, and the parser that decides which files can be read."""
    return key_of({"lock": lock_digest(), "miner": MINER_VERSION, "tree-sitter-python": version("tree-sitter-python")})


@cache
def embedded_corpus() -> Corpus:
    """The corpus, from the cache if it is there and intact, else mined now. Raises DataError if a wheel is missing."""
    return kept_tables("corpus", corpus_digest(), lambda: build(mine(list(source_files()))),
                       "mining the embedded corpus (once, about a minute)")


def mine(files: Sequence[SourceFile], processes: int = MAX_PROCESSES) -> list[MinedFile]:
    """Every file mined, in the order given; the result does not depend on the number of processes."""
    processes = min(processes, os.cpu_count() or 1)
    if processes == 1 or len(files) < 100:
        return _mine_part(files)
    size = 50
    parts = [files[start:start + size] for start in range(0, len(files), size)]
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        return [mined for part in pool.map(_mine_part, parts) for mined in part]


def _mine_part(files: Sequence[SourceFile]) -> list[MinedFile]:
    parser = python_parser()
    return [mine_file(file.package, file.path, file.data, parser) for file in files]


def build(mined: Sequence[MinedFile]) -> tuple[dict[str, list[dict[str, Any]]], dict[str, Any]]:
    """Tables and report from mined files: clusters, splits, and one row for each thing said once."""
    dropped: Counter[str] = Counter(dict.fromkeys(ALL_RULES, 0))
    for file in mined:
        dropped.update(file.dropped)
        if file.unreadable:
            dropped["file not UTF-8" if file.unreadable == "not UTF-8" else "file with syntax error"] += 1
    readable = [file for file in mined if not file.unreadable]
    near = near_duplicates(readable)
    clusters = cluster_names([file.path for file in readable], map(_marks, readable), file_pairs(readable, near))
    splits = file_splits(clusters)
    tables: dict[str, list[dict[str, Any]]] = {table: [] for table in TABLES}
    for file, cluster in zip(readable, clusters, strict=True):
        for table, rows in _rows(file).items():
            tables[table] += [{**row, "package": file.package, "path": file.path, "cluster": cluster,
                               "split": splits[cluster]} for row in rows]
    tables["functions"] = once(tables["functions"], near, dropped)
    tables["documents"] = _documents_once(tables["documents"], dropped)
    return tables, _report(tables, clusters, splits, dropped)


def _rows(file: MinedFile) -> dict[str, list[dict[str, Any]]]:
    functions = [{"name": f.name, "signature": f.signature, "description": f.description, "prose": f.prose,
                  "code": f.code, "line": f.line, "code_key": f.code_key} for f in file.functions]
    documents = [{"name": d.name, "summary": d.summary, "long_description": d.long_description, "line": d.line}
                 for d in file.documents]
    return {"files": [{"text": file.text, "prose": file.prose}], "functions": functions, "documents": documents}


def _marks(file: MinedFile) -> set[tuple[str, str | int]]:
    """What ties a file to others: its functions, passages of equal lines, descriptions of at least five words."""
    said = [f.description for f in file.functions] + [f.prose for f in file.functions]
    said += [d.summary for d in file.documents] + [d.long_description for d in file.documents]
    marks: set[tuple[str, str | int]] = {("said", normal_text(text)) for text in said if len(text.split()) >= LINK_WORDS}
    marks |= {("passage", number) for number in file.passages}
    return marks | {("code", key) for key in file.links} | {("code", f.code_key) for f in file.functions}


def near_duplicates(files: Sequence[Signed]) -> list[tuple[str, str]]:
    """Pairs of code keys, smaller first, whose functions are near-duplicates (MinHash at least 0.7)."""
    by_key: dict[str, np.ndarray] = {}
    for file in files:
        by_key.update(zip(file.signed, file.signatures, strict=True))
    keys = sorted(by_key)
    if len(keys) < 2:
        return []
    pairs = similar_pairs(np.stack([by_key[key] for key in keys]))
    return [(keys[first], keys[second]) for first, second in pairs.tolist()]


def file_pairs(files: Sequence[Signed], near: Sequence[tuple[str, str]]) -> list[tuple[int, int]]:
    """Positions of files to join because a function of one is a near-duplicate of a function of the other.

    Files with the very same function are joined by their marks already: so each key stands for the first file with it.
    """
    position: dict[str, int] = {}
    for index, file in enumerate(files):
        for key in file.signed:
            position.setdefault(key, index)
    return [(position[first], position[second]) for first, second in near]


def once(rows: list[dict[str, Any]], near: Sequence[tuple[str, str]], dropped: Counter[str],
         said: str = "description") -> list[dict[str, Any]]:
    """Functions without exact duplicates, near-duplicates of an earlier one, and what is `said` in two splits."""
    neighbours: dict[str, list[str]] = {}
    for first, second in near:
        neighbours.setdefault(first, []).append(second)
        neighbours.setdefault(second, []).append(first)
    kept: dict[str, dict[str, Any]] = {}
    for row in rows:
        key = row["code_key"]
        if key in kept:
            dropped["exact duplicate"] += 1
        elif any(other in kept for other in neighbours.get(key, ())):
            dropped["near-duplicate"] += 1
        else:
            kept[key] = row
    splits_of: dict[str, set[str]] = {}
    for row in kept.values():
        splits_of.setdefault(normal_text(row[said]), set()).add(row["split"])
    unique = [row for row in kept.values() if len(splits_of[normal_text(row[said])]) == 1]
    dropped["short description in two splits"] += len(kept) - len(unique)
    return unique


def _documents_once(rows: list[dict[str, Any]], dropped: Counter[str]) -> list[dict[str, Any]]:
    kept: dict[str, dict[str, Any]] = {}
    for row in rows:
        kept.setdefault(normal_text(row["long_description"]), row)
    dropped["document: same long description"] += len(rows) - len(kept)
    return list(kept.values())


def _report(tables: dict[str, list[dict[str, Any]]], clusters: Sequence[str], splits: dict[str, Any],
            dropped: Counter[str]) -> dict[str, Any]:
    sizes = Counter(clusters)
    bytes_of = Counter[str]()
    for row in tables["files"]:
        bytes_of[row["split"]] += len(row["text"].encode("utf-8"))
    rows = {f"{table}/{split}": sum(row["split"] == split for row in tables[table])
            for table in TABLES for split in SPLITS}
    largest = sizes.most_common(5)
    return {
        "rows": rows, "clusters": dict(Counter(splits.values())), "dropped": dict(dropped),
        "notes": [f"{len(clusters)} files in {len(sizes)} clusters",
                  "largest clusters: " + ", ".join(f"{size} files ({name}, {splits[name]})" for name, size in largest),
                  "MB of text: " + ", ".join(f"{split} {bytes_of[split] / 1e6:.1f}" for split in SPLITS)],
    }
