"""Mining JavaScript: which functions become rows, with which comment, signature and body."""

from __future__ import annotations

import pytest

from finetrial.tasks.pieces import at_margin
from finetrial.tasks.sources.javascript_source import (
    JavaScriptFunction,
    MinedJavaScript,
    comment_text,
    javascript_parser,
    mine_javascript,
    passages,
)

BODY = "{\n  const first = left + right;\n  return first * 2;\n}"
COMMENT = "/** Double the sum of both. */\n"


def _mined(source: str) -> MinedJavaScript:
    return mine_javascript("pack", "pack/x.js", source.encode(), javascript_parser())


def _only(source: str) -> JavaScriptFunction:
    (function,) = _mined(source).functions
    return function


@pytest.mark.parametrize(("before", "after", "signature", "name"), [
    ("function double(left, right) ", "", "function double(left, right)", "double"),
    ("export async function double(left,\n    right) ", "", "export async function double(left, right)", "double"),
    ("export default function double(left, right) ", "", "export default function double(left, right)", "double"),
    ("function* double(left, right) ", "", "function* double(left, right)", "double"),
    ("const double = (left, right) => ", "", "const double = (left, right) =>", "double"),
    ("export const double = function (left, right) ", ";", "export const double = function (left, right)", "double"),
    ("Sum.prototype.double = function(left, right) ", ";", "Sum.prototype.double = function(left, right)",
     "Sum.prototype.double"),
])
def test_statements(before: str, after: str, signature: str, name: str) -> None:
    function = _only(f"'use strict';\n\n{COMMENT}{before}{BODY}{after}\n")
    assert (function.signature, function.name, function.line) == (signature, name, 4)
    assert at_margin(function.body) == "const first = left + right;\nreturn first * 2;"
    assert function.comment == function.description == "Double the sum of both."


@pytest.mark.parametrize("before", ["static async double(left, right) ", "get double() ", "#double(left, right) "])
def test_members_of_classes(before: str) -> None:
    assert _only(f"class Sum {{\n  count = 1;\n\n  {COMMENT}  {before}{BODY}\n}}\n").signature == before.strip()


def test_members_of_objects() -> None:
    mined = _mined(f"module.exports = {{\n{COMMENT}double(left, right) {BODY},\n/* Twice the sum of both */\n"
                   f"twice: function(left, right) {BODY.replace('first', 'second')},\n}};\n")
    assert [f.signature for f in mined.functions] == ["double(left, right)", "twice: function(left, right)"]


def test_a_function_inside_a_row_is_no_row_of_its_own() -> None:
    inner = f"{COMMENT}  const inner = (left, right) => {BODY}\n"
    assert _only(f"{COMMENT}function outer(left) {{\n  {inner}  return inner(left, 2);\n}}\n").name == "outer"
    assert _only(f"function outer(left) {{\n  {inner}  return inner(left, 2);\n}}\n").name == "inner"


def test_runs_of_line_comments() -> None:
    source = f"const x = 1; // Not about this at all\n// Doubles the sum,\n//   of both.\nfunction f(left, right) {BODY}\n"
    assert _only(source).comment == "Doubles the sum, of both."


@pytest.mark.parametrize("source", [
    f"{COMMENT}\nfunction f(left, right) {BODY}\n",  # a blank line between
    f"const x = 1; // Doubles the sum of both\nfunction f(left, right) {BODY}\n",
    f"{COMMENT}const a = 1, f = (left, right) => {BODY};\n",
    f"{COMMENT}call((left, right) => {BODY});\n",
])
def test_comments_that_are_not_about_the_function(source: str) -> None:
    assert _mined(source).functions == []


@pytest.mark.parametrize(("comment", "rule"), [
    ("// eslint-disable-next-line no-unused-vars and so on", "comment is no description"),
    ("/* TODO: double the sum of both */", "comment is no description"),
    ("// ------------------------------", "comment is no description"),
    ("// const old = double(left);\n// return old(1);", "comment is no description"),
    ("/** @param {number} left */", "comment under 3 words"),
    ("/** Double it */", "comment under 3 words"),
    ("/** Double the s\u00fcm of both. */", "not ASCII"),
    ("/** Double the sum of both. @deprecated */", "deprecated"),
])
def test_rules_of_comments(comment: str, rule: str) -> None:
    mined = _mined(f"{comment}\nfunction f(left, right) {BODY}\n")
    assert mined.functions == [] and mined.dropped == {rule: 1}


@pytest.mark.parametrize(("body", "rule"), [
    ("{ return 1; }", "body not 2-60 lines"),
    ("{\n" + "  f();\n" * 61 + "}", "body not 2-60 lines"),
    ("{\n  throw new Error(\n    'no');\n}", "only throws"),
])
def test_rules_of_bodies(body: str, rule: str) -> None:
    mined = _mined(f"{COMMENT}function f(left, right) {body}\n")
    assert mined.functions == [] and mined.dropped == {rule: 1}


def test_tags_stay_a_line_each() -> None:
    comment = "/**\n * Doubles the sum\n * of both.\n *\n * Slowly.\n * @param {number} left what\n *   is left\n * @returns {x}\n */"
    assert comment_text([comment]) == (
        "Doubles the sum of both.",
        "Doubles the sum of both.\nSlowly.\n@param {number} left what is left\n@returns {x}")


def test_unreadable_files() -> None:
    assert _mined("function f( {\n").unreadable == "file with syntax error"
    assert mine_javascript("p", "x.js", b"\xff\xfe", javascript_parser()).unreadable == "file not UTF-8"


def test_code_is_known_without_comments_and_layout() -> None:
    first = _only(f"{COMMENT}function f(left, right) {BODY}\n")
    second = _only("/* Another comment about it */\nfunction f( left, right ) {\n  /* sum */ const first = left + right;"
                   "\n\n  return first * 2; // twice\n}\n")
    assert first.code_key == second.code_key


def test_lists_of_names_tie_no_files() -> None:
    names = "".join(f"  ArrayPrototype{letter},\n" for letter in "ABCDEFGHIJ")
    assert passages(f"const {{\n{names}}} = primordials;\n") == []
    assert len(passages("".join(f"const value{n} = compute({n});\n" for n in range(9)))) == 2
