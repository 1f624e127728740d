"""Mining JavaScript source files: functions with a comment directly above, and what tells that files are related.

Parsing is tree-sitter's and everything kept is a slice of the source bytes, as for Python (`python_source.py`). A
function is kept when the comment above it has at least 3 words, tags and types not counted (and is no order to a linter,
licence, to-do or ruler), comment and code are ASCII, it is not deprecated, and its body has 2 to 60 lines that do more
than throw. Declarations, methods, and functions assigned to a name or a property count; what stands inside
a function that was kept is not looked at.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from finetrial.errors import MissingPackage
from finetrial.tasks.sources.docstrings import joined, num_words, paragraphs
from finetrial.tasks.sources.minhash import SHINGLE_TOKENS, Hashes, run_hashes, signatures
from finetrial.tasks.sources.python_source import (
    BODY_LINES,
    LINK_TOKENS,
    MIN_DOCSTRING_WORDS,
    NEAR_DUPLICATE_TOKENS,
    PASSAGE_LINE_CHARACTERS,
    PASSAGE_LINES,
    token_hashes,
)

if TYPE_CHECKING:
    from tree_sitter import Language, Node, Parser

JAVASCRIPT_MINER_VERSION = 1  # part of the digest: bump when the rules or the slices change
JAVASCRIPT_RULES = ("comment under 3 words", "comment is no description", "not ASCII", "deprecated",
                    "body not 2-60 lines", "only throws")
TOKEN = re.compile(
    rb'//[^\n]*|/\*.*?\*/|`(?:[^`\\]|\\.)*`|"(?:[^"\\\n]|\\.)*"|\'(?:[^\'\\\n]|\\.)*\''
    rb"|[A-Za-z_$][\w$]*|\d[\w.]*|[^\s\w]|\S",
    re.DOTALL,
)
NO_DESCRIPTION = re.compile(
    r"(?i)^\W*(eslint|istanbul|c8 |v8 |node:|prettier|jshint|global |ts-|todo|fixme|xxx|hack\b|copyright|licen[cs]e"
    r"|flags:|refs?:|#)|^\W{3,}|[-=*~]{5,}|(^|\n)\s*(const|let|var|return|if|for|function|import|export)\b[^\n]*[;{(]\s*($|\n)"
)
NOT_WORDS = re.compile(r"@\w+|\{[^}]*\}")  # tags and types
NAMES_ONLY = re.compile(r"^[\w$.:'\", ]*,$|^(import|export|const|let|var)\b[^=]*$|^[/*]")  # lists, imports, comments
DECLARED = {"function_declaration", "generator_function_declaration", "method_definition"}
VALUES = {"function_expression", "generator_function", "arrow_function"}
ANY_FUNCTION = "[" + " ".join(f"({kind})" for kind in sorted(DECLARED | VALUES)) + "] @function"
HOLDERS = {"variable_declarator": "value", "assignment_expression": "right", "pair": "value",
           "field_definition": "value"}


@dataclass(frozen=True)
class JavaScriptFunction:
    """A documented function: `comment` without marks, its tags a line each; `body` as it stands between the braces."""

    name: str
    signature: str
    comment: str
    description: str
    body: str
    line: int
    code_key: str


@dataclass
class MinedJavaScript:
    """What one file yields. `signatures` [n, 64] belong to `signed`: the code keys that MinHash compares."""

    package: str
    path: str
    functions: list[JavaScriptFunction] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    passages: list[int] = field(default_factory=list)
    signed: list[str] = field(default_factory=list)
    signatures: np.ndarray = field(default_factory=lambda: np.empty((0, 0), dtype=np.uint32))
    dropped: Counter[str] = field(default_factory=Counter)
    unreadable: str = ""


def javascript_parser() -> Parser:
    """A parser for JavaScript. Raises MissingPackage without the grammar."""
    try:
        import tree_sitter_javascript
    except ModuleNotFoundError as error:
        raise MissingPackage("tree-sitter-javascript", "reading JavaScript") from error
    from tree_sitter import Language, Parser

    return Parser(Language(tree_sitter_javascript.language()))


def mine_javascript(package: str, path: str, data: bytes, parser: Parser) -> MinedJavaScript:
    """Everything the task needs from one file; `unreadable` says why there is nothing."""
    mined = MinedJavaScript(package, path)
    try:
        source = data.decode("utf-8").replace("\r\n", "\n").encode("utf-8")
    except UnicodeDecodeError:
        mined.unreadable = "file not UTF-8"
        return mined
    root, language = parser.parse(source).root_node, parser.language
    assert language is not None
    if root.has_error:
        mined.unreadable = "file with syntax error"
        return mined
    mined.passages = passages(source.decode("utf-8"))
    shingles: list[Hashes] = []
    kept_until = 0
    for whole, function in _functions(root, language):
        if whole.start_byte >= kept_until and _add_function(mined, whole, function, source, shingles):
            kept_until = whole.end_byte
    if shingles:
        mined.signatures = signatures(shingles)
    return mined


def passages(text: str) -> list[int]:
    """Hashes of every run of 8 lines, without indentation, short lines, comments, imports and lists of names."""
    lines = [line for line in map(str.strip, text.split("\n"))
             if len(line) >= PASSAGE_LINE_CHARACTERS and not NAMES_ONLY.match(line)]
    if len(lines) < PASSAGE_LINES:
        return []
    hashes = np.fromiter((zlib.crc32(line.encode("utf-8")) for line in lines), dtype=np.uint64, count=len(lines))
    found: list[int] = np.unique(run_hashes(hashes, PASSAGE_LINES)).tolist()
    return found


def comment_text(comments: Sequence[str]) -> tuple[str, str]:
    """A comment without its marks: (what it says before the first tag, on one line; all of it, a tag a line)."""
    lines = [line for comment in comments for line in _unmarked(comment)]
    first_tag = next((index for index, line in enumerate(lines) if line.lstrip().startswith("@")), len(lines))
    said = [joined(block) for block in paragraphs("\n".join(lines[:first_tag]))]
    tags: list[str] = []
    for line in map(str.strip, lines[first_tag:]):
        if line.startswith("@"):
            tags.append(line)
        elif line:
            tags[-1] += " " + line
    return (said[0] if said else ""), "\n".join([*said, *map(joined, tags)])


def _unmarked(comment: str) -> list[str]:
    if comment.startswith("//"):
        return [comment.lstrip("/").rstrip().removeprefix(" ")]
    inside = comment.removeprefix("/*").removesuffix("*/").strip("*").split("\n")
    return [re.sub(r"^\s*\*+ ?", "", line).rstrip() if number else line.strip() for number, line in enumerate(inside)]


def _functions(root: Node, language: Language) -> Iterator[tuple[Node, Node]]:
    """(the statement or member, the function in it) in the order of the source; functions inside functions too."""
    from tree_sitter import Query, QueryCursor

    found = QueryCursor(Query(language, ANY_FUNCTION)).captures(root).get("function", [])
    for node in sorted(found, key=lambda node: (node.start_byte, -node.end_byte)):
        if node.type in DECLARED:
            yield _statement(node), node
        elif node.parent is not None and node.parent.type in HOLDERS \
                and node.parent.child_by_field_name(HOLDERS[node.parent.type]) == node:
            yield _statement(node.parent), node


def _statement(node: Node) -> Node:
    """What the comment stands above: the declaration around a declarator, the `export` around a declaration."""
    parent = node.parent
    while parent is not None and (
            parent.type in ("expression_statement", "export_statement")
            or (parent.type in ("lexical_declaration", "variable_declaration") and parent.named_child_count == 1)):
        node, parent = parent, parent.parent
    return node


def _add_function(mined: MinedJavaScript, whole: Node, function: Node, source: bytes, shingles: list[Hashes]) -> bool:
    """True if the function became a row."""
    body = function.child_by_field_name("body")
    if body is None or body.type != "statement_block":
        return False
    inside = source[body.start_byte + 1:body.end_byte - 1].decode("utf-8")
    comments = _comments_above(whole, source)
    num_lines = sum(1 for line in inside.split("\n") if line.strip())
    in_size = BODY_LINES[0] <= num_lines <= BODY_LINES[1]
    if not in_size:
        mined.dropped["body not 2-60 lines"] += bool(comments)
        return False
    head = source[whole.start_byte:body.start_byte]
    body_tokens, head_tokens = _code_tokens(inside.encode("utf-8")), _code_tokens(head)
    key = hashlib.sha256(b" ".join([*head_tokens, *body_tokens])).hexdigest()[:24]
    if len(body_tokens) >= LINK_TOKENS:
        mined.links.append(key)
    row = _row(mined, whole, function, inside, comments, key, source) if comments else None
    if row is not None:
        mined.functions.append(row)
    if row is not None or len(body_tokens) >= NEAR_DUPLICATE_TOKENS:
        mined.signed.append(key)
        shingles.append(run_hashes(token_hashes(head_tokens + body_tokens), SHINGLE_TOKENS))
    return row is not None


def _row(mined: MinedJavaScript, whole: Node, function: Node, inside: str, comments: Sequence[str], key: str,
         source: bytes) -> JavaScriptFunction | None:
    body = function.child_by_field_name("body")
    assert body is not None
    head = source[whole.start_byte:body.start_byte].decode("utf-8")
    description, comment = comment_text(comments)
    broken = _broken_rule(description, comment, head + inside, body)
    if broken:
        mined.dropped[broken] += 1
        return None
    return JavaScriptFunction(_name(function), " ".join(head.split()), comment, description, inside.strip("\n"),
                              whole.start_point.row + 1, key)


def _broken_rule(description: str, comment: str, code: str, body: Node) -> str:
    if NO_DESCRIPTION.search(description):
        return "comment is no description"
    if num_words(NOT_WORDS.sub(" ", comment)) < MIN_DOCSTRING_WORDS:
        return "comment under 3 words"
    if not (comment.isascii() and code.isascii()):
        return "not ASCII"
    if "deprecated" in comment.lower():
        return "deprecated"
    statements = [child for child in body.named_children if child.type != "comment"]
    if all(statement.type in ("throw_statement", "empty_statement") for statement in statements):
        return "only throws"
    return ""


def _comments_above(node: Node, source: bytes) -> list[str]:
    """The comment that ends on the line before: one block, or a run of `//` lines. Comments behind code do not count."""
    found: list[str] = []
    row = node.start_point.row
    previous = node.prev_sibling
    while previous is not None and previous.type == "comment" and previous.end_point.row == row - 1:
        text = source[previous.start_byte:previous.end_byte].decode("utf-8")
        before = previous.prev_sibling
        behind_code = before is not None and before.end_point.row == previous.start_point.row
        if behind_code or (found and not text.startswith("//")):
            break
        found.insert(0, text)
        if not text.startswith("//"):
            break
        row, previous = previous.start_point.row, before
    return found


def _name(function: Node) -> str:
    holder = function
    if function.type in VALUES and function.parent is not None:
        holder = function.parent
    for field_name in ("name", "left", "key", "property"):
        found = holder.child_by_field_name(field_name)
        if found is not None and found.text is not None:
            return found.text.decode("utf-8")
    return ""


def _code_tokens(code: bytes) -> list[bytes]:
    return [token for token in TOKEN.findall(code) if not token.startswith((b"//", b"/*"))]
