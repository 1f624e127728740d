"""Pairs of output and reference made of real text and code: Python's own library, and JavaScript that torch ships.

The references are as people wrote them; the outputs are the same with words dropped, repeated and swapped, another
item's, or nothing, drawn from a fixed stream.
"""

from __future__ import annotations

import _pydecimal
import argparse
import ast
import difflib
import functools
import importlib.util
import mailbox
import random
import statistics
import tarfile
from pathlib import Path

MODULES = (_pydecimal, argparse, difflib, mailbox, statistics, tarfile)
Pairs = tuple[tuple[str, ...], tuple[str, ...]]  # outputs, references


@functools.cache
def text_pairs(num: int = 240) -> Pairs:
    """Docstrings of at least six words, at most their first sixty."""
    words = [docstring.split()[:60] for docstring in _docstrings() if len(docstring.split()) >= 6]
    return _outputs_for([" ".join(text) for text in words[:num]], " ")


@functools.cache
def python_pairs(num: int = 240) -> Pairs:
    """Functions of 3 to 40 lines, with comments and docstrings gone, as `ast` prints them."""
    found = [ast.unparse(_undocumented(node)) for node in _functions()]
    return _outputs_for([code for code in found if 3 <= code.count("\n") <= 40][:num], "\n")


@functools.cache
def javascript_pairs(num: int = 240) -> Pairs:
    """Windows of eight lines of torch's model viewer: many are cut inside a function, as generated code is."""
    torch = importlib.util.find_spec("torch")
    assert torch is not None and torch.origin is not None
    source = Path(torch.origin).parent / "utils" / "model_dump" / "code.js"
    lines = [line for line in source.read_text(encoding="utf-8").splitlines() if line.strip() and "//" not in line
             and "*" not in line]
    return _outputs_for(["\n".join(lines[at:at + 8]) for at in range(0, len(lines) - 8, 2)][:num], "\n")


def _outputs_for(references: list[str], separator: str) -> Pairs:
    draw = random.Random(0)
    outputs = []
    for reference in references:
        pieces = [piece for piece in reference.split(separator) for _ in range(draw.choice((0, 1, 1, 1, 1, 1, 2)))]
        at, other = draw.randrange(len(pieces) + 1), draw.randrange(len(references))
        swapped = separator.join(pieces[at:] + pieces[:at])
        jumbled = separator.join(pieces)
        outputs.append(draw.choice((jumbled, jumbled, swapped, swapped[:len(swapped) // 2], reference,
                                    references[other], "")))
    return tuple(outputs), tuple(references)


def _functions() -> list[ast.FunctionDef]:
    trees = [ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8")) for module in MODULES]
    return [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]


def _docstrings() -> list[str]:
    return [found for node in _functions() if (found := ast.get_docstring(node)) is not None]


def _undocumented(function: ast.FunctionDef) -> ast.FunctionDef:
    if ast.get_docstring(function, clean=False) is not None:
        function.body = function.body[1:] or [ast.Pass()]
    return function
