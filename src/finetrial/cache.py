"""The folder for what can be made or fetched again: wheels, mined corpora, records of fetches, the report's script."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path


def cache_root() -> Path:
    """$FINETRIAL_CACHE, else ~/.cache/finetrial."""
    root = os.environ.get("FINETRIAL_CACHE")
    return Path(root) if root else Path.home() / ".cache" / "finetrial"


def kept_text(path: Path, make: Callable[[], str]) -> str:
    """The text of a file, made by `make` where it is not there yet. A folder that cannot be written is no obstacle: the
    text is made each time then."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return path.read_text(encoding="utf-8")
    text = make()
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text)
    return text


def write_whole(path: Path, text: str) -> None:
    """Replace a file atomically: it is there whole, or as it was before."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)  # where a disk is full
