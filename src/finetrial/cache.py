"""The folder for what can be made or fetched again: wheels, mined corpora, records of fetches, the report's script."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def cache_root() -> Path:
    """$FINETRIAL_CACHE, else ~/.cache/finetrial."""
    root = os.environ.get("FINETRIAL_CACHE")
    return Path(root) if root else Path.home() / ".cache" / "finetrial"


def kept_text(name: str, make: Callable[[], str]) -> str:
    """The text of the file `name`, made by `make` where it is not there yet. A folder that cannot be written is no
    obstacle: the text is made each time then."""
    path = cache_root() / name
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return path.read_text(encoding="utf-8")
    text = make()
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, delete=False) as file:
            file.write(text)
        os.replace(file.name, path)  # whole or not at all
    return text
