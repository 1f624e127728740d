"""The files that identify a base, and their digests; no torch here. A base is known by the digest of its weights and
configuration, its tokenizer by a digest of its own. Digests of large files are remembered by path, size and time."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence
from pathlib import Path

from finetrial.cache import cache_root
from finetrial.errors import ModelError
from finetrial.fingerprint import DIGESTS, key_of, remembered_digest

MODEL_FILES = ("*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
                   "merges.txt", "vocab.txt", "tokenizer.model", "spiece.model", "chat_template.jinja")
SNAPSHOTS = "snapshots"  # of the hub's cache: folders by commit, whose files are never rewritten


def matching(files: Iterable[Path], patterns: Sequence[str]) -> list[Path]:
    """The files whose names match any of the patterns, sorted."""
    return sorted(path for path in files if any(fnmatch.fnmatchcase(path.name, pattern) for pattern in patterns))


def digest_of(paths: Iterable[Path]) -> str:
    """Of names and contents."""
    return key_of({path.name: remembered_digest(path, cache_root() / DIGESTS) for path in paths})


def check_unchanged(folder: Path, patterns: Sequence[str], digest: str) -> None:
    """Raise ModelError where the files of a base are no longer those that `digest` is of. Asked where they are read: what is
    recorded under a key must come from what the key says. Files that were not touched are not hashed again."""
    if folder.parent.name == SNAPSHOTS:
        return
    if digest_of(matching((path for path in folder.iterdir() if path.is_file()), patterns)) != digest:
        what = "weights" if patterns == MODEL_FILES else "tokenizer"
        raise ModelError(f"the {what} in {folder} changed after the study was planned",
                         "run the study again: it takes what is there now, and keeps what the old one gave apart")
