"""Mining one file: slices, rules, and what ties files together."""

from __future__ import annotations

import ast

import pytest

from finetrial.tasks.sources.python_source import MinedFile, code_tokens, mine_file, passages, python_parser

SOURCE = '''# Copyright 2024 The Authors. Licensed under the Apache License.
"""A module about sums, with a docstring.

It tells in one more paragraph what the module is good for, so that there are enough words in it to make a long
description of the module for somebody who reads it."""
import os

LIMIT = 3


class Account:
    """Money of one person."""

    @property
    def balance(self):
        """Return the sum of all payments made so far.

        Payments that were cancelled are not part of the sum, and neither are those which wait for a signature.
        """
        total = 0  # a comment
        for payment in self.payments:

            total += payment
        return total

    def __len__(self):
        """Return the number of payments made."""
        count = len(self.payments)
        return count

    def nested(self):
        def inner():
            """Not looked at because it is inside."""
            x = 1
            return x
        return inner


if LIMIT > 2:
    def scaled(values, *, factor=2.0):
        r"""Scale \\alpha by a factor."""
        result = [value * factor for value in values]
        return result
'''


def _mined(source: str) -> MinedFile:
    return mine_file("package", "package/module.py", source.encode("utf-8"), python_parser())


def test_functions_of_a_file() -> None:
    mined = _mined(SOURCE)
    assert [function.name for function in mined.functions] == ["Account.balance", "scaled"]
    balance, scaled = mined.functions
    assert balance.description == "Return the sum of all payments made so far."
    assert balance.prose.startswith("Payments that were cancelled")
    assert balance.signature == "def balance(self):"
    assert balance.code == ("def balance(self):\n    total = 0  # a comment\n    for payment in self.payments:\n\n"
                            "        total += payment\n    return total")
    assert scaled.description == r"Scale \alpha by a factor."
    assert scaled.signature == "def scaled(values, *, factor=2.0):"
    assert mined.dropped == {"dunder": 1}
    for function in mined.functions:
        ast.parse(function.code)


def test_the_header_is_left_out_and_the_text_is_kept() -> None:
    mined = _mined(SOURCE)
    assert mined.text == SOURCE.split("\n", 1)[1]
    assert _mined("# about sums\nx = 1\n").text == "# about sums\nx = 1\n"
    assert _mined("x = 1\r\ny = 2\r\n").text == "x = 1\ny = 2\n"


def test_lines_point_into_the_text() -> None:
    mined = _mined(SOURCE)
    assert mined.text.split("\n")[mined.functions[0].line - 1].strip() == "def balance(self):"


def test_documents_are_long_descriptions_of_anything() -> None:
    documents = {document.name: document for document in _mined(SOURCE).documents}
    assert documents["package/module.py"].summary == "A module about sums, with a docstring."
    assert documents["package/module.py"].long_description.startswith("It tells in one more paragraph")
    assert set(documents) == {"package/module.py"}  # the property's has fewer than 20 words


@pytest.mark.parametrize(("docstring", "body", "rule"), [
    ("Returns: the number one", ["x = 1", "return x"], "no summary"),
    ("Returns the number one", ["x = 1", "return x"], "no summary"),
    ("Two words", ["x = 1", "return x"], "docstring under 3 words"),
    ("Gives the naïve answer", ["x = 1", "return x"], "not ASCII"),
    ("Deprecated since long ago", ["x = 1", "return x"], "deprecated"),
    ("Gives the number one", ["return 1"], "body not 2-60 lines"),
    ("Gives the number one", ["x = 1"] * 61, "body not 2-60 lines"),
    ("Signal what it must", ["pass", "raise ValueError"], "only pass or raise"),
    ("Returns the number one.", ["x = 1", "return x"], ""),
    ("Gives the number one", ["x = 1"] * 60, "")])
def test_rules(docstring: str, body: list[str], rule: str) -> None:
    mined = _mined(f'def f():\n    """{docstring}"""\n' + "".join(f"    {line}\n" for line in body))
    assert mined.dropped == ({rule: 1} if rule else {})
    assert len(mined.functions) == (0 if rule else 1)


def test_a_deprecating_decorator_drops() -> None:
    source = '@deprecated("use g")\ndef f():\n    """Returns the number one."""\n    x = 1\n    return x\n'
    assert _mined(source).dropped == {"deprecated": 1}


def test_files_that_cannot_be_read() -> None:
    assert _mined("def f(:\n").unreadable == "syntax error for tree-sitter"
    assert mine_file("p", "p/a.py", b"x = '\xff'\n", python_parser()).unreadable == "not UTF-8"


def test_the_code_key_ignores_comments_layout_and_docstring_only() -> None:
    first = 'def f(a):\n    """Returns the sum of all."""\n    b = a + 1\n    return b\n'
    same = 'def f( a ):\n    """Does another thing here."""\n    # why\n    b = a+1\n\n    return b\n'
    other = first.replace("a + 1", "a + 2")
    keys = [_mined(source).functions[0].code_key for source in (first, same, other)]
    assert keys[0] == keys[1] != keys[2]


def test_undocumented_functions_link_files_when_large_enough() -> None:
    small, large = "def f(x):\n    return x\n", "def f(x):\n    y = x * 2 + 1\n    z = g(y, x)\n    return z - y\n"
    assert _mined(small).links == []
    assert len(_mined(large).links) == 1


def test_passages_are_runs_of_eight_lines_whatever_their_indentation() -> None:
    lines = [f"value_{number} = compute({number})" for number in range(10)]
    plain = passages("\n".join(lines))
    assert len(plain) == 3
    assert passages("import os\n# note\n\n" + "\n".join("    " + line for line in lines)) == plain
    assert passages("\n".join(lines[:7])) == []
    assert set(passages("\n".join(lines[:8]))) < set(plain)


def test_code_tokens() -> None:
    assert code_tokens(b'x = f("a # b", 1.5e3)  # note\n"""doc\nstring"""') == [
        b"x", b"=", b"f", b"(", b'"a # b"', b",", b"1.5e3", b")", b'"""doc\nstring"""']
