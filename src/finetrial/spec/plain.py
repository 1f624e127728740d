"""Plain data from YAML or JSON text. A key that is given twice in one mapping is refused: both formats would let the last
one win, and drop the other without a word."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import yaml

from finetrial.errors import UserError

MERGE = "tag:yaml.org,2002:merge"  # `<<`, whose keys may be given again: the nearer one counts


def from_yaml(text: str) -> Any:
    """What YAML text says. Raises yaml.YAMLError for text that is none, UserError for a key that is given twice."""
    return yaml.load(text, _Loader)  # a safe one


def from_json(text: str) -> Any:
    """What JSON text says. Raises JSONDecodeError for text that is none, UserError for a key that is given twice."""
    return json.loads(text, object_pairs_hook=_once)


class _Loader(yaml.SafeLoader):
    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            line, name = key.start_mark.line + 1, (key.tag, str(key.value))
            if name in lines and key.tag != MERGE:
                raise _twice(name[1], f"line {line}: ", f" (first in line {lines[name]})")
            lines[name] = line
        return node


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise _twice(name)
        found[name] = value
    return found


def _twice(name: str, place: str = "", first: str = "") -> UserError:
    return UserError(f"{place}the key {name!r} is given twice{first}", "only one of them would count: keep that one")
