"""code_search_net: what a function's documentation says -> the function (Husain et al. 2019, as cleaned by CodeXGLUE).

From the hub (google/code_x_glue_ct_code_to_text, splits as given: they share no repository) or local files with `code`
and `docstring`, perhaps `repo`, `path`, `func_name`. The documentation is taken out of the code that is the target: in
Python the docstring, found by parsing; in JavaScript the comments above the function, or above the method of a class. The
cluster is the file.

CodeT5 and most models of code were pretrained on this data or its sources: say so beside results.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from finetrial.tasks.base import Example, Segment, Split
from finetrial.tasks.local import LocalRow
from finetrial.tasks.pieces import content_id
from finetrial.tasks.published import PublishedTask

if TYPE_CHECKING:
    from tree_sitter import Node

    from finetrial.tasks.sources.records import Record

INSTRUCTIONS = {"python": "Write a Python function.\n\n", "javascript": "Write a JavaScript function.\n\n"}
CUE = "\n\nCode:\n"
BLANK = "no documentation, or no code"
AROUND_A_METHOD = b"class Wrapper {\n", b"\n}"


class CodeSearchNet(PublishedTask):
    """Documentation -> function."""

    version: ClassVar[int] = 4
    summary: ClassVar[str] = "documentation -> function (hub: google/code_x_glue_ct_code_to_text; python, javascript)"
    generates: ClassVar[bool] = True
    is_chat: ClassVar[bool] = True
    primary_metric: ClassVar[str] = "chrf"
    metrics: ClassVar[tuple[str, ...]] = ("bleu", "meteor", "ast-similarity", "syntax-pass-rate", "exact-match",
                                          "length-ratio", "repetition")
    needed: ClassVar[tuple[str, ...]] = ("code", "docstring")
    perhaps: ClassVar[tuple[str, ...]] = ("repo", "path", "func_name")

    repository: str = "google/code_x_glue_ct_code_to_text"
    programming_language: Literal["python", "javascript"] = "python"
    max_rows: int | None = Field(default=20_000, ge=1)

    @property
    def language(self) -> str:  # type: ignore[override]  # of other tasks it is a constant
        """The language of the target."""
        return self.programming_language

    def hub_files(self) -> Mapping[str, Split]:
        """The configuration of the language."""
        return {f"{self.language}/train*.parquet": "train", f"{self.language}/validation*.parquet": "val",
                f"{self.language}/test*.parquet": "test"}

    def rows_of(self, records: Sequence[Record], dropped: Counter[str]) -> Iterator[LocalRow]:
        """Rows whose code can be read and is more than its documentation."""
        dropped.update({BLANK: 0, "code does not parse": 0, "nothing but documentation": 0})
        strip = _python_stripper() if self.language == "python" else _javascript_stripper()
        for record in records:
            docstring, whole = self.text_of(record, "docstring"), self.text_of(record, "code")
            if not docstring or not whole:
                dropped[BLANK] += 1
                continue
            code = strip(whole)
            if code is None:
                dropped["code does not parse"] += 1
            elif not code:
                dropped["nothing but documentation"] += 1
            else:
                place = "/".join(filter(None, map(record.optional_text, ("repo", "path"))))
                yield LocalRow(content_id(docstring, code), place, docstring, {"docstring": docstring, "code": code},
                               f"{record.where} {record.optional_text('func_name')}".rstrip())

    def render(self, example: Example) -> tuple[Segment, ...]:
        """The documentation is what may be cut."""
        return (Segment(INSTRUCTIONS[self.language]), Segment(example.fields["docstring"], cuttable=True), Segment(CUE),
                Segment(example.fields["code"], loss=True))


def _python_stripper() -> Callable[[str], str | None]:
    from finetrial.tasks.sources.python_source import docstring_of, python_parser, without_docstring

    parser = python_parser()

    def strip(code: str) -> str | None:
        source = code.strip().encode("utf-8")
        root = parser.parse(source).root_node
        whole = next((node for node in root.named_children if _python_function(node) is not None), None)
        function = None if whole is None else _python_function(whole)
        if root.has_error or whole is None or function is None:
            return None
        body = function.child_by_field_name("body")
        statement, _ = docstring_of(body, source)
        if statement is None:
            return source.decode("utf-8")
        assert body is not None
        has_more = any(child.type != "comment" and child.id != statement.id for child in body.named_children)
        return without_docstring(source, whole, statement) if has_more else ""

    return strip


def _python_function(node: Node) -> Node | None:
    """The function that a statement defines, perhaps with decorators; None for another statement."""
    inner = node.child_by_field_name("definition") if node.type == "decorated_definition" else node
    return inner if inner is not None and inner.type == "function_definition" else None


def _javascript_stripper() -> Callable[[str], str | None]:
    from finetrial.tasks.sources.javascript_source import javascript_parser

    parser = javascript_parser()

    def strip(code: str) -> str | None:
        source = code.strip().encode("utf-8")
        root = parser.parse(source).root_node
        if root.has_error:
            before, after = AROUND_A_METHOD
            source = before + source + after
            method = _only_method(parser.parse(source).root_node)
            return None if method is None else source[method.start_byte:-len(after)].decode("utf-8").strip()
        first = next((node for node in root.named_children if node.type != "comment"), None)
        return "" if first is None else source[first.start_byte:].decode("utf-8").strip()

    return strip


def _only_method(root: Node) -> Node | None:
    """The method of a tree without errors that is one class with one method, and comments."""
    classes = root.named_children
    body = classes[0].child_by_field_name("body") if len(classes) == 1 and not root.has_error else None
    members = [node for node in body.named_children if node.type != "comment"] if body is not None else []
    return members[0] if [node.type for node in members] == ["method_definition"] else None
