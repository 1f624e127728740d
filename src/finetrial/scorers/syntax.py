"""Syntax trees of code: what the metrics of code share.

Trees come from tree-sitter, which parses broken code too. `subtrees` gives every subtree as CodeBLEU's syntax match
sees it (Ren et al. 2020, section 3.2, and its published program): a node with children, told apart by tree-sitter's
s-expression. That names the types and fields of the named nodes; the text of names, numbers and operators is not in it.
"""

from __future__ import annotations

import functools
import importlib
import re
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING, ClassVar, Literal

from finetrial.catalog import name_of
from finetrial.errors import MissingPackage, UserError
from finetrial.scorers.outputs import OutputScorer

if TYPE_CHECKING:
    from tree_sitter import Node, Parser

    from finetrial.tasks.base import Task

LANGUAGES = ("python", "javascript")
SEMICOLON = re.compile(rb"[ \t]*;[ \t]*")


class CodeScorer(OutputScorer):
    """A metric of code in a language that has a grammar here."""

    packages: ClassVar[tuple[str, ...]] = ("tree-sitter", "tree-sitter-python", "tree-sitter-javascript")

    language: Literal["python", "javascript"] = "python"

    @classmethod
    def check(cls, task: Task) -> None:
        """Raise UserError if the task generates nothing, or no code in a known language."""
        super().check(task)
        if task.target_language not in LANGUAGES:
            raise UserError(f"the metric {name_of(cls)} reads {' or '.join(LANGUAGES)}, and the task "
                            f"{name_of(type(task))} generates {task.target_language}",
                            "name metrics of text for it: rouge-l, bleu, chrf, meteor", code="metric")


@functools.cache
def parser(language: str) -> Parser:
    """The tree-sitter parser of "python" or "javascript"."""
    try:
        from tree_sitter import Language, Parser

        grammar = importlib.import_module(f"tree_sitter_{language}")
    except ImportError as error:
        raise MissingPackage(f"tree-sitter-{language}", f"syntax trees of {language}") from error
    return Parser(Language(grammar.language()))


def parsed(code: str, language: str) -> tuple[bytes, Node]:
    """What is parsed, and the root of its tree.

    JavaScript that is no program but one method is parsed inside a class. Lone surrogates, which UTF-8 cannot hold,
    become question marks.
    """
    source = code.encode("utf-8", errors="replace")
    top = parser(language).parse(source).root_node
    if language == "javascript" and top.has_error:
        wrapped = b"class Wrapper {\n" + source + b"\n}"
        inside = parser(language).parse(wrapped).root_node
        if _is_one_method(inside):
            return wrapped, inside
    return source, top


def _is_one_method(top: Node) -> bool:
    """Whether a tree without errors is one class with one method."""
    if top.has_error or top.named_child_count != 1:
        return False
    body = top.named_children[0].child_by_field_name("body")
    members = body.named_children if body is not None else []
    return [member.type for member in members if member.type != "comment"] == ["method_definition"]


def subtrees(code: str, language: str) -> list[bytes]:
    """A digest of every subtree of the code without comments and docstrings: of the root, and of each node with children.

    Two are equal where their s-expressions are. Those written out would take the square of what code nests.
    """
    source, top = parsed(code, language)
    for start, end, instead in sorted(_documentation(top, source), reverse=True):
        source = source[:start] + instead + source[end:]
    top = parser(language).parse(source).root_node
    nodes = list(_nodes(top))
    written: dict[int, bytes] = {}  # by the node's id
    for node in reversed(nodes):  # children before their parent
        written[node.id] = _digest(node, written)
    return [written[node.id] for node in nodes if node.child_count or node == top]


def _digest(node: Node, written: Mapping[int, bytes]) -> bytes:
    """Of an s-expression, from those of the children: named nodes and missing ones stand in it, with their fields."""
    shown = [(node.field_name_for_child(place) or "", written[child.id]) for place, child in enumerate(node.children)
             if child.is_named or child.is_missing]
    text = b"\0".join([node.type.encode(), *(part for field, child in shown for part in (field.encode(), child))])
    return blake2b(text if shown else str(node).encode(), digest_size=16).digest()


def _nodes(top: Node) -> Iterator[Node]:
    """All nodes, without recursion: generated code may nest deeply."""
    waiting = [top]
    while waiting:
        node = waiting.pop()
        yield node
        waiting.extend(node.children)


def _documentation(top: Node, source: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Where comments and docstrings stand, in bytes, and what is left there: of a comment a space, or the tokens beside it
    would become one."""
    for node in _nodes(top):
        if node.type == "comment":
            yield node.start_byte, node.end_byte, b" "
        elif _is_docstring(node):
            following = SEMICOLON.match(source, node.end_byte)
            yield node.start_byte, following.end() if following else node.end_byte, b""


def _is_docstring(node: Node) -> bool:
    """Whether a node is a Python statement that is only a string: a docstring, or the description of an attribute."""
    return (node.type == "expression_statement" and node.parent is not None and node.parent.type in ("module", "block")
            and [child.type for child in node.children] == ["string"])
