"""Metrics of code: CodeBLEU's syntax match in cases worked by hand, and what parses."""

from __future__ import annotations

import pytest

from finetrial.scorers.ast_similarity import AstSimilarity
from finetrial.scorers.syntax import _nodes, parsed, parser, subtrees
from finetrial.scorers.syntax_pass_rate import javascript_parses, python_parses


def matched(output: str, reference: str, language: str = "python") -> tuple[float, ...] | None:
    return AstSimilarity(language=language).judge(output, reference)


def test_the_subtrees_of_a_line() -> None:
    """`x = a + 1`: module, statement, assignment and sum; the names and the number are leaves and no subtrees."""
    whole = subtrees("x = a + 1", "python")
    assert len(set(whole)) == 4 and whole == subtrees("total = count - 7", "python")
    assert [one in whole for one in subtrees("a + 1", "python")] == [False, False, True]  # module, statement, sum


@pytest.mark.parametrize("language", ["python", "javascript"])
def test_subtrees_are_told_apart_as_their_s_expressions_are(language: str) -> None:
    code = ["f(x, *y)[1:2]", "if a: b = [1", "x = 'a\\n b'", "for (;;) {", "return a +", "\u00e9 = {1: (2, 3)", "const f = (a) => a;", "}", ""]
    digests: dict[str, set[bytes]] = {}
    for one in [*code, *(text[:end] for text in code for end in range(len(text)))]:
        root = parser(language).parse(one.encode()).root_node
        if parsed(one, language)[0] == one.encode() and "comment" not in str(root):
            expressions = [str(node) for node in _nodes(root) if node.child_count or node == root]
            if len(expressions) == len(found := subtrees(one, language)):  # without docstrings
                for expression, digest in zip(expressions, found, strict=True):
                    digests.setdefault(expression, set()).add(digest)
    assert len(digests) > 30 and all(len(found) == 1 for found in digests.values())
    assert len(set.union(*digests.values())) == len(digests)


def test_code_that_nests_deeply_takes_little() -> None:
    assert len(subtrees("-" * 20_000 + "x", "python")) == 20_002  # written out, 2 GB


@pytest.mark.parametrize("output, num, total, why", [
    ("x = a + 1", 4, 4, "the same"),
    ("total = count - 7", 4, 4, "names, numbers and operators do not count"),
    ("x = a + b", 0, 4, "the sum has another shape, and so has all that holds it"),
    ("y = 3\nx = a + 1", 3, 4, "all but the module, which has a statement more"),
    ("return a + 1", 1, 4, "the sum alone"),
    ("", 0, 4, "nothing"),
    ("# x = a + 1", 0, 4, "a comment is nothing"),
    ("x = a + 1 +", 1, 4, "broken code is matched as far as it can be parsed"),
])
def test_one_assignment(output: str, num: int, total: int, why: str) -> None:
    assert matched(output, "x = a + 1") == (num, total), why


def test_a_subtree_is_matched_however_often_the_reference_has_it() -> None:
    """As in CodeBLEU's program: two equal sums of the reference are both matched by one of the output.

    Reference: module, 2 statements, 2 assignments, 2 sums; the output lacks only the module.
    """
    assert matched("x = a + 1", "x = a + 1\ny = b + 2") == (6, 7)
    assert matched("x = a + 1\ny = b + 2", "x = a + 1") == (3, 4)


def test_a_function_in_javascript() -> None:
    """Reference: program, declaration, parameters, block, return, sum = 6; the output's return holds a call.

    Matched: the parameters only; what holds the return differs with it.
    """
    reference = "function f(a) { return a + 1 }"
    assert matched("function g(b) { return b - 2 }", reference, "javascript") == (6, 6)
    assert matched("function f(a) { return g(a) }", reference, "javascript") == (1, 6)
    assert matched("a + 1", reference, "javascript") == (1, 6)


def test_comments_and_docstrings_do_not_count() -> None:
    bare = "def f(a):\n    return a\n"
    told = 'def f(a):\n    """Give it back."""\n    # at once\n    return a  # here\n'
    assert matched(told, bare) == matched(bare, told) == matched(bare, bare)
    assert matched("/* why */ f(1) // so", "f(1)", "javascript") == matched("f(1)", "f(1)", "javascript")


@pytest.mark.parametrize(("told", "bare", "language"), [
    ("function f(a){return/*x*/a}", "function f(a){return a}", "javascript"), ("let/*x*/b=1", "let b=1", "javascript"),
    ("if(a)y();else/*b*/z()", "if(a)y();else z()", "javascript"),
    ('def f():\n    """d"""; return 1', "def f():\n    return 1", "python")])
def test_what_is_left_out_joins_no_tokens(told: str, bare: str, language: str) -> None:
    assert subtrees(told, language) == subtrees(bare, language)


@pytest.mark.parametrize(("reference", "language"), [("# why", "python"), ('"""Why."""\n', "python"), ("// why", "javascript")])
def test_a_reference_of_comments_alone_is_missing(reference: str, language: str) -> None:
    assert matched("", reference, language) is None and matched("x = 1", reference, language) is None


def test_a_method_is_parsed_inside_a_class() -> None:
    method = "async area(width) {\n  return width * this.height\n}"
    assert matched(method, method, "javascript") == (9, 9)
    assert not parsed(method, "javascript")[1].has_error


def test_code_may_nest_deeply_and_hold_what_utf8_cannot() -> None:
    deep = "x = " + "[" * 400 + "]" * 400
    found = matched(deep, deep)
    assert found is not None and found[0] == found[1] > 400
    assert not python_parses("x = " + "(" * 5000) and not python_parses("-" * 200_000 + "1")
    assert matched("x = '\ud800'", "x = 'a'") == (4, 4) and not javascript_parses("x = \ud800 (")


@pytest.mark.parametrize("code, passes", [
    ("def f(a):\n    return a", True),
    ("    total = 0\n    return total", True),  # the body of a function that the prompt began
    ("x = '\\d'", True),  # a doubtful escape is a warning
    ("print 'a'", False), ("x = 08", False), ("def f(a):\nreturn a", False), ("f(a=1, 2)", False), ("if x:", False),
    ("", False), ("\n  \n", False), ("# nothing", False), ("x = 1\0", False), ("    # nothing", False),
    ("```python\nx = 1\n```", False),
])
def test_python_that_parses(code: str, passes: bool) -> None:
    assert python_parses(code) is passes


@pytest.mark.parametrize("code, passes", [
    ("const f = (a) => a + 1", True), ("function (a) { return a }", True), ("area(w) { return w * this.h }", True),
    ("static async area(w) { return w }", True), ("return 1", True),
    ("if (x) {", False), ("f(", False), ("a b", False), ("def f(a): return a", False), ("let = = 1", False),
    ("a() { return 1 }\nb() { return 2 }", False),  # two methods are no function
    ("", False), ("// nothing", False), ("}", False),
])
def test_javascript_that_parses(code: str, passes: bool) -> None:
    assert javascript_parses(code) is passes
