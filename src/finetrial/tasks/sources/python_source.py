"""Mining Python source files: documented functions, prose, and what tells that two files are related.

Parsing is tree-sitter's and everything kept is a slice of the source bytes, so that every Python version gives the
same rows. `mine_file` looks at one file and knows no other; `corpus.py` puts files together.

A function is documented and kept when its docstring opens with a summary of at least 3 words (not with a section:
"Args:", nor with a short line that could be its heading: "Returns the value"), docstring and code are ASCII, it is not
a dunder method and not deprecated, and its body without the docstring has 2 to 60 lines of which some do more than
`pass` and `raise`. Functions inside functions are not looked at.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from finetrial.tasks.sources.docstrings import (
    dedent,
    is_prose,
    joined,
    long_description,
    num_words,
    summary_and_prose,
    unescape,
)
from finetrial.tasks.sources.docstrings import paragraphs as split_paragraphs
from finetrial.tasks.sources.minhash import SHINGLE_TOKENS, Hashes, run_hashes, signatures

if TYPE_CHECKING:
    from tree_sitter import Node, Parser

MINER_VERSION = 1  # part of the corpus digest: bump when the rules or the slices change
MIN_DOCSTRING_WORDS = 3
MIN_LONG_WORDS = 20
MAX_SUMMARY_CHARACTERS = 300
BODY_LINES = (2, 60)
LINK_TOKENS = 12  # a function with at least this many body tokens ties the files that share it
NEAR_DUPLICATE_TOKENS = 40  # an undocumented function is compared for near-duplicates from this size on
PASSAGE_LINES = 8  # as does a run of this many equal lines
PASSAGE_LINE_CHARACTERS = 8  # of at least so many characters each, imports and comments not counted
RULES = ("no summary", "docstring under 3 words", "not ASCII", "dunder", "deprecated", "body not 2-60 lines",
         "only pass or raise")

TOKEN = re.compile(
    rb'"""(?:[^\\]|\\.)*?"""|\'\'\'(?:[^\\]|\\.)*?\'\'\'|"(?:[^"\\\n]|\\.)*"|\'(?:[^\'\\\n]|\\.)*\'|#[^\n]*'
    rb"|[A-Za-z_]\w*|\d[\w.]*|[^\s\w]|\S",
    re.DOTALL,
)
LICENCE_WORDS = re.compile(rb"(?i)copyright|licen[cs]e|spdx")
CONTAINERS = {"block", "if_statement", "else_clause", "elif_clause", "try_statement", "except_clause",
              "finally_clause", "with_statement"}


@dataclass(frozen=True)
class Function:
    """A documented function: `code` without docstring and decorators, `description` on one line, `prose` or ''."""

    name: str
    signature: str
    description: str
    prose: str
    code: str
    line: int
    code_key: str


@dataclass(frozen=True)
class Document:
    """The docstring of a module, class or function as (long description, one-paragraph summary)."""

    name: str
    summary: str
    long_description: str
    line: int


@dataclass
class MinedFile:
    """What one file yields. `signatures` [n, 64] belong to `signed`: the code keys that MinHash compares."""

    package: str
    path: str
    text: str = ""
    prose: list[str] = field(default_factory=list)
    functions: list[Function] = field(default_factory=list)
    documents: list[Document] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    passages: list[int] = field(default_factory=list)
    signed: list[str] = field(default_factory=list)
    signatures: np.ndarray = field(default_factory=lambda: np.empty((0, 0), dtype=np.uint32))
    dropped: dict[str, int] = field(default_factory=dict)
    unreadable: str = ""


def python_parser() -> Parser:
    """A parser for Python. Grammar and library versions are pinned: they decide what `has_error` says."""
    import tree_sitter_python
    from tree_sitter import Language, Parser

    return Parser(Language(tree_sitter_python.language()))


def mine_file(package: str, path: str, data: bytes, parser: Parser) -> MinedFile:
    """Everything the corpus needs from one file; `unreadable` says why there is nothing."""
    mined = MinedFile(package, path)
    try:
        mined.text = without_licence_header(data).decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError:
        mined.unreadable = "not UTF-8"
        return mined
    source = mined.text.encode("utf-8")
    root = parser.parse(source).root_node
    if root.has_error:
        mined.unreadable, mined.text = "syntax error for tree-sitter", ""
        return mined
    mined.passages = passages(mined.text)
    shingles: list[Hashes] = []
    _add_document(mined, path, 1, docstring_of(root, source)[1])
    for scope, node in _definitions(root, source, ""):
        if node.type == "class_definition":
            name = node.child_by_field_name("name")
            _add_document(mined, scope + (_text(name, source) if name else ""), node.start_point.row + 1,
                          docstring_of(node.child_by_field_name("body"), source)[1])
        else:
            _add_function(mined, scope, node, source, shingles)
    if shingles:
        mined.signatures = signatures(shingles)
    return mined


def without_licence_header(data: bytes) -> bytes:
    """The file without its leading comment block when that block is a licence or copyright notice."""
    lines = data.splitlines(keepends=True)
    count = 0
    while count < len(lines) and (not lines[count].strip() or lines[count].lstrip().startswith(b"#")):
        count += 1
    header = b"".join(lines[:count])
    return data[len(header):] if LICENCE_WORDS.search(header) else data


def passages(text: str) -> list[int]:
    """Hashes of every run of 8 lines of the text, without indentation, blank and short lines, imports and comments."""
    lines = [line for line in map(str.strip, text.split("\n"))
             if len(line) >= PASSAGE_LINE_CHARACTERS and not line.startswith(("import ", "from ", "#"))]
    if len(lines) < PASSAGE_LINES:
        return []
    hashes = np.fromiter((zlib.crc32(line.encode("utf-8")) for line in lines), dtype=np.uint64, count=len(lines))
    found: list[int] = np.unique(run_hashes(hashes, PASSAGE_LINES)).tolist()
    return found


def code_tokens(code: bytes) -> list[bytes]:
    """Tokens of Python code without comments and whitespace: the normal form in which code is compared."""
    return [token for token in TOKEN.findall(code) if not token.startswith(b"#")]


def token_hashes(tokens: list[bytes]) -> Hashes:
    """A stable hash of each token. [T]"""
    return np.fromiter(map(zlib.crc32, tokens), dtype=np.uint64, count=len(tokens))


def _definitions(node: Node, source: bytes, scope: str) -> Iterator[tuple[str, Node]]:
    for child in node.named_children:
        if child.type == "decorated_definition":
            child = child.child_by_field_name("definition") or child
        if child.type == "function_definition":
            yield scope, child
        elif child.type == "class_definition":
            yield scope, child
            name, body = child.child_by_field_name("name"), child.child_by_field_name("body")
            if name is not None and body is not None:
                yield from _definitions(body, source, scope + _text(name, source) + ".")
        elif child.type in CONTAINERS:
            yield from _definitions(child, source, scope)


def _add_function(mined: MinedFile, scope: str, node: Node, source: bytes, shingles: list[Hashes]) -> None:
    body, name_node = node.child_by_field_name("body"), node.child_by_field_name("name")
    if body is None or name_node is None:
        return
    statement, docstring = docstring_of(body, source)
    head = source[node.start_byte:body.start_byte]
    rest = source[(statement.end_byte if statement else body.start_byte):body.end_byte]
    body_tokens = code_tokens(rest)
    tokens = code_tokens(head) + body_tokens
    key = hashlib.sha256(b" ".join(tokens)).hexdigest()[:24]
    name = _text(name_node, source)
    if len(body_tokens) >= LINK_TOKENS:
        mined.links.append(key)
    kept = False
    if statement is not None:
        _add_document(mined, scope + name, node.start_point.row + 1, docstring)
        code = without_docstring(source, node, statement)
        broken = _broken_rule(name, docstring, code, node, body)
        if broken:
            mined.dropped[broken] = mined.dropped.get(broken, 0) + 1
        else:
            description, prose = summary_and_prose(docstring)
            signature = " ".join(head.decode().split())
            mined.functions.append(Function(
                scope + name, signature, description, " ".join(prose), code, node.start_point.row + 1, key))
            kept = True
    if kept or len(body_tokens) >= NEAR_DUPLICATE_TOKENS:
        mined.signed.append(key)
        shingles.append(run_hashes(token_hashes(tokens), SHINGLE_TOKENS))


def _broken_rule(name: str, docstring: str, code: str, node: Node, body: Node) -> str:
    description = summary_and_prose(docstring)[0]
    if docstring and not description:
        return "no summary"
    if num_words(description) < MIN_DOCSTRING_WORDS:
        return "docstring under 3 words"
    if not (docstring.isascii() and code.isascii()):
        return "not ASCII"
    if name.startswith("__") and name.endswith("__"):
        return "dunder"
    if "deprecated" in docstring.lower() or _decorated_deprecated(node):
        return "deprecated"
    statements = [child for child in body.named_children if child.type != "comment"][1:]
    lines = sum(1 for line in code.split("\n") if line.strip()) - 1
    if not BODY_LINES[0] <= lines <= BODY_LINES[1]:
        return "body not 2-60 lines"
    if all(_does_nothing(statement) for statement in statements):
        return "only pass or raise"
    return ""


def _does_nothing(statement: Node) -> bool:
    if statement.type in ("pass_statement", "raise_statement"):
        return True
    return statement.type == "expression_statement" and statement.named_child_count == 1 \
        and statement.named_children[0].type in ("ellipsis", "string")


def _decorated_deprecated(node: Node) -> bool:
    parent = node.parent
    return parent is not None and parent.type == "decorated_definition" and any(
        b"deprecated" in (child.text or b"").lower() for child in parent.named_children if child.type == "decorator")


def docstring_of(body: Node | None, source: bytes) -> tuple[Node | None, str]:
    """The docstring's statement and its dedented value, or (None, '')."""
    for child in body.named_children if body is not None else ():
        if child.type == "comment":
            continue
        if child.type != "expression_statement" or child.named_child_count != 1:
            break
        string = child.named_children[0]
        if string.type != "string":
            break
        literal = _text(string, source)
        prefix = literal[:len(literal) - len(literal.lstrip("rRuUbBfFtT"))].lower()
        if set(prefix) - {"r", "u"}:
            break
        quotes = 3 if literal[len(prefix):len(prefix) + 3] in ('"""', "'''") else 1
        content = literal[len(prefix) + quotes:-quotes]
        return child, dedent(content if "r" in prefix else unescape(content))
    return None, ""


def without_docstring(source: bytes, node: Node, statement: Node) -> str:
    """The function's source, moved to the left margin, without the docstring's lines."""
    code = source[node.start_byte:statement.start_byte]
    after = source[statement.end_byte:node.end_byte].lstrip(b" \t;")
    if not after or after.startswith((b"\n", b"#")):  # else a statement of the same line takes its place
        code = code.rstrip(b" \t")
    text = (code + after.removeprefix(b"\n")).decode("utf-8")
    lines = text.split("\n")
    margin = " " * node.start_point.column
    return "\n".join(line.removeprefix(margin).rstrip() for line in lines).strip()


def _add_document(mined: MinedFile, name: str, line: int, docstring: str) -> None:
    if not docstring:
        return
    mined.prose.extend(joined(block) for block in split_paragraphs(docstring) if is_prose(block))
    summary, description = summary_and_prose(docstring)[0], long_description(docstring)
    if (num_words(summary) >= MIN_DOCSTRING_WORDS and len(summary) <= MAX_SUMMARY_CHARACTERS
            and num_words(description) >= MIN_LONG_WORDS and summary.isascii() and description.isascii()
            and "deprecated" not in docstring.lower()):
        mined.documents.append(Document(name, summary, description, line))


def _text(node: Node, source: bytes) -> str:
    return source[node.start_byte:node.end_byte].decode("utf-8")
