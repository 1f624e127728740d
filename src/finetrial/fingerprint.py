"""Identity: canonical JSON and the digests made from it.

A key is the SHA-256 of canonical JSON: sorted keys, no whitespace, ASCII, floats by `repr` (shortest round trip).
Whatever has no stable text is refused with its path: NaN and infinities, sets, bytes, objects, non-string keys.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from finetrial.cache import kept_text

KEY_DIGITS = 32  # 128 bits: no collision to be expected below 10^15 stages
CHUNK_BYTES = 1 << 20
MEMO_BYTES = 1 << 20  # smaller files are read again each time
DIGESTS = "digests"  # the folder of memos in finetrial's cache


def canonical(value: Any) -> str:
    """Canonical JSON of `value`. Raises TypeError or ValueError, naming the path, for anything unstable."""
    return json.dumps(_stable(value, "$"), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def key_of(value: Any) -> str:
    """Content key of a JSON-like value: the first 32 hexadecimal digits of SHA-256 over its canonical JSON."""
    return hashlib.sha256(canonical(value).encode("ascii")).hexdigest()[:KEY_DIGITS]


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def remembered_digest(path: Path, memos: Path) -> str:
    """`file_digest`, remembered for large files in the folder `memos` by path, size and time of modification."""
    stat = path.stat()
    if stat.st_size < MEMO_BYTES:
        return file_digest(path)
    memo = memos / key_of([str(path.resolve()), stat.st_size, stat.st_mtime_ns])
    return kept_text(memo, lambda: file_digest(path))  # it only saves time


def folder_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below `folder`, by POSIX path relative to it, in sorted order."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): file_digest(path) for path in files}


def _stable(value: Any, path: str) -> Any:
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{path} is {value!r}, which has no canonical JSON")
        return float(value)
    if isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str):
                raise TypeError(f"{path} has the key {name!r} of type {type(name).__name__}; keys must be strings")
        return {name: _stable(item, f"{path}.{name}") for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_stable(item, f"{path}[{index}]") for index, item in enumerate(value)]
    raise TypeError(f"{path} is a {type(value).__name__}, which has no canonical JSON")
