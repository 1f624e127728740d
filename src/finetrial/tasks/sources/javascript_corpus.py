"""The JavaScript functions, mined, clustered, split, and kept on disk: `javascript-<digest>/` in the cache.

Clusters and duplicates are found as for Python (`corpus.py`): files that share a function, a description, a
near-duplicate or a passage are one cluster. No bundled base has seen JavaScript, so there is no `pretrain` split:
train 65 / val 10 / test 25 % of clusters, and a giant cluster is `train`'s.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from finetrial.errors import MissingPackage
from finetrial.fingerprint import key_of
from finetrial.tasks.base import Split
from finetrial.tasks.pieces import normal_text
from finetrial.tasks.sources.corpus import LINK_WORDS, file_pairs, near_duplicates, once
from finetrial.tasks.sources.javascript_source import (
    JAVASCRIPT_MINER_VERSION,
    JAVASCRIPT_RULES,
    MinedJavaScript,
    javascript_parser,
    mine_javascript,
)
from finetrial.tasks.sources.node_files import javascript_files, node_lock_digest
from finetrial.tasks.sources.tables import Corpus, kept_tables
from finetrial.tasks.sources.wheels import SourceFile
from finetrial.tasks.splits import cluster_names, cluster_splits

SHARES: Mapping[Split, float] = {"train": 0.65, "val": 0.10, "test": 0.25}
ALL_RULES = ("file not UTF-8", "file with syntax error", *JAVASCRIPT_RULES, "exact duplicate", "near-duplicate",
             "short description in two splits")


def javascript_digest() -> str:
    """Identity of the corpus: the lock, the rules, and the parser."""
    try:
        grammar = version("tree-sitter-javascript")
    except PackageNotFoundError as error:
        raise MissingPackage("tree-sitter-javascript", "the task jscode") from error
    return key_of({"lock": node_lock_digest(), "miner": JAVASCRIPT_MINER_VERSION, "tree-sitter-javascript": grammar})


@cache
def javascript_corpus() -> Corpus:
    """The corpus, from the cache if it is there and intact, else mined now. Raises DataError without Node's wheel."""
    return kept_tables("javascript", javascript_digest(), lambda: build_javascript(mine_all(list(javascript_files()))),
                       "mining JavaScript from npm and Node (once, under a minute)")


def mine_all(files: Sequence[SourceFile]) -> list[MinedJavaScript]:
    """Every file mined, in the order given."""
    parser = javascript_parser()
    return [mine_javascript(file.package, file.path, file.data, parser) for file in files]


def build_javascript(mined: Sequence[MinedJavaScript]) -> tuple[dict[str, list[dict[str, Any]]], dict[str, Any]]:
    """The table `functions` and the report: one row for each thing said once."""
    dropped: Counter[str] = Counter(dict.fromkeys(ALL_RULES, 0))
    for file in mined:
        dropped.update(file.dropped)
        dropped.update([file.unreadable] if file.unreadable else [])
    readable = [file for file in mined if not file.unreadable]
    near = near_duplicates(readable)
    clusters = cluster_names([file.path for file in readable], map(_marks, readable), file_pairs(readable, near))
    splits = cluster_splits(clusters, SHARES, giant="train")
    rows = [{"name": f.name, "signature": f.signature, "comment": f.comment, "description": f.description,
             "body": f.body, "line": f.line, "code_key": f.code_key, "package": file.package, "path": file.path,
             "cluster": cluster, "split": splits[cluster]}
            for file, cluster in zip(readable, clusters, strict=True) for f in file.functions]
    kept = once(rows, near, dropped, said="comment")
    sizes = Counter(clusters)
    largest = ", ".join(f"{size} files ({name}, {splits[name]})" for name, size in sizes.most_common(5))
    return {"functions": kept}, {
        "rows": {f"functions/{split}": sum(row["split"] == split for row in kept) for split in SHARES},
        "clusters": dict(Counter(splits.values())), "dropped": dict(dropped),
        "notes": [f"{len(clusters)} files in {len(sizes)} clusters", f"largest clusters: {largest}"]}


def _marks(file: MinedJavaScript) -> set[tuple[str, str | int]]:
    """What ties a file to others: its functions, passages of equal lines, descriptions of at least five words."""
    said = [f.description for f in file.functions] + [f.comment for f in file.functions]
    marks: set[tuple[str, str | int]] = {("said", normal_text(text)) for text in said if len(text.split()) >= LINK_WORDS}
    marks |= {("passage", number) for number in file.passages}
    return marks | {("code", key) for key in file.links} | {("code", f.code_key) for f in file.functions}
