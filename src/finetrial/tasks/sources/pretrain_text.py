"""The texts a bundled base may see, and the held-out ones it is judged by.

Training documents: every distinct file of `pretrain` clusters, and for each file the prose of its docstrings as a
document of its own (paragraphs already seen are left out), so that the base knows prose that is not inside code.
Held-out documents: whole files of `val` and `test` clusters. No document has the format of a task's prompt.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from finetrial.tasks.base import Split
from finetrial.tasks.sources.corpus import embedded_corpus
from finetrial.tasks.sources.wheels import locked_wheels

MIN_DOCUMENT_CHARACTERS = 200


def pretrain_documents() -> list[str]:
    """All training documents, files first, in the corpus's order. No two are equal."""
    rows = embedded_corpus().rows("files", ["pretrain"])
    seen: set[str] = set()
    proses = []
    for row in rows:
        fresh = [paragraph for paragraph in dict.fromkeys(row["prose"]) if paragraph not in seen]
        seen.update(fresh)
        proses.append("\n\n".join(fresh) + "\n")
    return _distinct([row["text"] for row in rows] + proses)


def held_out_documents(split: Split) -> list[tuple[str, str]]:
    """(path, text) of the distinct files of `val` or `test`."""
    assert split != "pretrain"
    rows = embedded_corpus().rows("files", [split])
    kept = set(_distinct([row["text"] for row in rows]))
    return [(row["path"], row["text"]) for row in rows if row["text"] in kept]


def manifest(documents: Sequence[str]) -> dict[str, Any]:
    """What the documents are made of: packages with version and SHA-256, counts, and a digest of the texts in order."""
    digest = hashlib.sha256()
    for text in documents:
        digest.update(hashlib.sha256(text.encode("utf-8")).digest())
    packages = [{"name": wheel.name, "version": wheel.version, "sha256": wheel.sha256, "license": wheel.license}
                for wheel in locked_wheels()]
    return {"corpus_digest": embedded_corpus().digest, "packages": packages,
            "num_files": len(embedded_corpus().rows("files", ["pretrain"])), "num_documents": len(documents),
            "num_bytes": sum(len(text.encode("utf-8")) for text in documents), "documents_sha256": digest.hexdigest()}


def _distinct(texts: Sequence[str]) -> list[str]:
    return [text for text in dict.fromkeys(texts) if len(text) >= MIN_DOCUMENT_CHARACTERS]
