"""Runs a notebook's code cells in one namespace, as a kernel would."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def execute(path: Path, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The names that the cells leave behind. `parameters` replace what the cell tagged `parameters` sets; a cell's last
    expression is shown (its `repr`), so that what a reader would see is made."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
        if cell["cell_type"] != "code":
            continue
        tree = ast.parse("".join(cell["source"]), f"{path.name}, cell {number}")
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, f"{path.name}, cell {number}", "exec"), namespace)  # noqa: S102 (a notebook of ours)
        if last is not None:
            repr(eval(compile(ast.Expression(last.value), f"{path.name}, cell {number}", "eval"), namespace))
        if "parameters" in cell["metadata"].get("tags", ()):
            unknown = set(parameters) - set(namespace)
            assert not unknown, f"the notebook has no parameters {unknown}"
            namespace.update(parameters)
    return namespace
