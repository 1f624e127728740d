"""The install lines that errors print."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_extra_that_an_error_names_can_be_installed() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    text = "\n".join(path.read_text(encoding="utf-8") for place in ("src", "docs", "README.md") for path in (
        sorted((ROOT / place).rglob("*.[pm][yd]")) if (ROOT / place).is_dir() else [ROOT / place]))
    named = {*re.findall(r'extra="(\w+)"\)', text), *re.findall(r"finetrial\[(\w+)\]", text)} - {"forbid"}  # of pydantic
    assert {"javascript", "qlora", "ray"} <= named <= declared.keys()
