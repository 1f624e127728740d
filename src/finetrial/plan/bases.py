"""Where a base lies, what identifies it, and what its configuration says; read without torch.

A base is identified by the digest of its weights and configuration, its tokenizer by a digest of its own, so that two
bases with one tokenizer share their encoded data. Digests of large files are remembered by path, size and time.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetrial.errors import ModelError, unknown
from finetrial.fingerprint import file_digest, key_of
from finetrial.spec.study import Base

BUNDLED = Path(__file__).parent.parent / "models" / "bundled"
WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json")
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
             "merges.txt", "vocab.txt", "tokenizer.model", "spiece.model", "chat_template.jinja")
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


@dataclass(frozen=True)
class ResolvedBase:
    """A base that was found: its folder, its digests, its config.json."""

    name: str
    folder: Path
    weights_digest: str
    tokenizer_digest: str
    config: Mapping[str, Any]

    @property
    def max_positions(self) -> int | None:
        """The longest sequence the model has positions for; None if the configuration sets no limit."""
        for name in ("n_positions", "max_position_embeddings"):
            if isinstance(self.config.get(name), int):
                return int(self.config[name])
        return None


def bundled_names() -> list[str]:
    """The bundled bases, sorted."""
    return sorted(path.parent.name for path in BUNDLED.glob("*/config.json"))


def resolve_base(base: Base, relative_to: Path | None = None) -> ResolvedBase:
    """Find a base and digest it. A relative `source` is looked up from `relative_to` (the study file's folder) first.

    Raises ModelError for an unknown bundled name, a missing folder, or a folder that is no model.
    """
    folder = _folder(base, relative_to)
    config = _read_config(folder)
    weights = _matching(folder, WEIGHTS)
    if not any(path.suffix == ".safetensors" for path in weights):
        pickles = _matching(folder, PICKLES)
        if pickles:
            raise ModelError(f"{folder} holds its weights as pickle ({pickles[0].name}), which can run code when loaded",
                             "convert them once: AutoModelForCausalLM.from_pretrained(...).save_pretrained(...)")
        raise ModelError(f"{folder} has no *.safetensors file", "a model folder holds config.json, weights, tokenizer")
    tokenizer = _matching(folder, TOKENIZER)
    if not tokenizer:
        raise ModelError(f"{folder} has no tokenizer (looked for {', '.join(TOKENIZER[:2])}, ...)",
                         "save the tokenizer beside the model: tokenizer.save_pretrained(folder)")
    return ResolvedBase(base.name, folder, _digest(weights), _digest(tokenizer), config)


def _folder(base: Base, relative_to: Path | None) -> Path:
    if not base.source:
        folder = BUNDLED / base.name
        if not (folder / "config.json").is_file():
            raise ModelError(unknown("bundled base", base.name, bundled_names()),
                             "for a model of your own give its folder: bases: [{name: mine, source: ./folder}]")
        return folder
    written = Path(base.source).expanduser()
    places = [written] if written.is_absolute() or relative_to is None else [relative_to / written, written]
    for place in places:
        if place.is_dir():
            return place.resolve()
    raise ModelError(f"base {base.name!r}: no folder at {' or '.join(str(place) for place in places)}",
                     "source is a local folder with config.json, *.safetensors and a tokenizer")


def _read_config(folder: Path) -> Mapping[str, Any]:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{folder} has no config.json", "a model folder holds config.json, weights, tokenizer") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelError(f"{path} cannot be read: {error}", "check the file; it must be JSON") from error
    if not isinstance(config, dict):
        raise ModelError(f"{path} holds a {type(config).__name__}, not an object", "it must be a model's configuration")
    return config


def _matching(folder: Path, patterns: Iterable[str]) -> list[Path]:
    return sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})


def _digest(paths: Iterable[Path]) -> str:
    return key_of({path.name: _file_digest(path) for path in paths})


def _file_digest(path: Path) -> str:
    """SHA-256 of a file, remembered in the cache by path, size and modification time."""
    stat = path.stat()
    memo = cache_folder() / "digests" / key_of([str(path.resolve()), stat.st_size, stat.st_mtime_ns])
    if stat.st_size < 1 << 20:
        return file_digest(path)
    try:
        return memo.read_text()
    except OSError:
        digest = file_digest(path)
    try:
        memo.parent.mkdir(parents=True, exist_ok=True)
        partial = memo.with_suffix(f".{os.getpid()}")
        partial.write_text(digest)
        partial.rename(memo)
    except OSError:
        return digest  # the memo only saves time; a read-only home is no reason to fail
    return digest


def cache_folder() -> Path:
    """Where finetrial keeps what it can make again: $FINETRIAL_CACHE, or ~/.cache/finetrial."""
    return Path(os.environ.get("FINETRIAL_CACHE") or Path.home() / ".cache" / "finetrial")
