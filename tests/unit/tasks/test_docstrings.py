"""Docstrings as text: the standard library's answers where it has one."""

from __future__ import annotations

import ast
import inspect

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetrial.tasks.sources import docstrings

GOOGLE = '''Computes the norm of a vector.

    The norm is the square root of the sum of squares, which is what most people mean
    when they speak about length.

    Args:
        vector (list): The vector that is to be measured, as floating point numbers.
        power (int): Which norm is meant.

    Example:
        >>> norm([3, 4])
        5.0
    '''
NUMPY = '''Return the sum.

    Parameters
    ----------
    values : list
        The values which are summed up in their order.

    Notes
    -----
    Uses compensated summation so that small values are not lost.

    .. versionadded:: 2.0
    '''


@pytest.mark.parametrize("text", [GOOGLE, NUMPY, "one line", "first\n\n  second\n    third\n", "\n\n   a\n     b\n"])
def test_dedent_equals_cleandoc(text: str) -> None:
    assert docstrings.dedent(text) == inspect.cleandoc(text).strip()


@given(st.text(st.sampled_from("ab \\\n'nt"), max_size=30))
def test_unescape_equals_python_where_python_accepts_it(content: str) -> None:
    literal = f'"""{content}"""'
    try:
        expected = ast.literal_eval(literal)
    except (SyntaxError, ValueError):
        return
    if "\\ " not in content and "\\a" not in content and "\\b" not in content:
        assert docstrings.unescape(content) == expected


def test_google_style() -> None:
    text = docstrings.dedent(GOOGLE)
    summary, prose = docstrings.summary_and_prose(text)
    assert summary == "Computes the norm of a vector."
    assert prose == [("The norm is the square root of the sum of squares, which is what most people mean when they "
                      "speak about length.")]
    told = docstrings.long_description(text)
    assert told.endswith("power (int): Which norm is meant.")
    assert ">>>" not in told


def test_numpy_style() -> None:
    text = docstrings.dedent(NUMPY)
    assert docstrings.summary_and_prose(text) == (
        "Return the sum.", ["Uses compensated summation so that small values are not lost."])
    told = docstrings.long_description(text)
    assert told.startswith("values : list The values which")
    assert "----" not in told and "versionadded" not in told


@pytest.mark.parametrize("text", ["Args:\n    x: something or other", ":param x: what it is", ">>> f(1)\n2",
                                  "Parameters\n----------\nx : int"])
def test_no_summary_where_a_section_comes_first(text: str) -> None:
    assert docstrings.summary_and_prose(text) == ("", [])


@pytest.mark.parametrize(("block", "expected"), [
    ("This tells what the function is good for.", True), ("- a list item with many words in it", False),
    ("    indented text with more than five words", False), ("| a | b | c | d | e | f |", False),
    ("too few words", False), (".. note:: this is a directive of some words", False),
    ("x = 1 + 2 * (3 - 4) / 5 ** 6 and so on it is", False)])
def test_is_prose(block: str, expected: bool) -> None:
    assert docstrings.is_prose(block) is expected
