"""The configurations of the hub models that the built-in studies name, so that planning needs no download.

One JSON file a repository, as published in its `config.json`: sizes and the names of architecture and activation.
Defaults that the published file leaves to transformers are left out here too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "hub_configs"
MOVED: Mapping[str, str] = {"gpt2": "openai-community/gpt2", "gpt2-medium": "openai-community/gpt2-medium"}


def known_config(repository: str) -> Mapping[str, Any] | None:
    """The `config.json` of a repository of the hub, `owner/name`; None for one that is not shipped.

    Repositories that the hub has moved are found under their old names too.
    """
    path = FOLDER / f"{MOVED.get(repository, repository).replace('/', '--')}.json"
    if not path.is_file():
        return None
    config: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return config
