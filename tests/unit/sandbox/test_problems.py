"""Problems with tests: right solutions pass, wrong ones and those that leave early do not."""

from __future__ import annotations

import pytest

from finetrial.sandbox import Status, probe
from finetrial.sandbox.languages import find_node
from finetrial.sandbox.problems import ENDED_EARLY, Problem, solve
from finetrial.stages.execute import program
from finetrial.tasks.base import Example
from finetrial.tasks.mbpp import Mbpp

needs_sandbox = pytest.mark.skipif(bool(probe().missing), reason=f"no sandbox on this machine: {probe().missing}")
needs_node = pytest.mark.skipif(find_node() is None, reason="needs Node: pip install 'finetrial[javascript]'")

PROMPT, TEST = "def double(x):\n    '''Twice x.'''\n", "\nassert double(2) == 4\n"
JAVASCRIPT = ("const double = (x) => {\n", "if (double(2) !== 4) throw new Error('not four')\n")


def in_python(body: str) -> Problem:
    return Problem("x", f"{PROMPT}{body}{TEST}")


def in_javascript(body: str) -> Problem:
    return Problem("x", body.join(JAVASCRIPT), "javascript")


@needs_sandbox
def test_python() -> None:
    right, prints, wrong, leaves, leaves_hard, catches = solve([
        in_python("    return 2 * x\n"),
        in_python("    print('working')\n    return 2 * x"),
        in_python("    return x\n"),
        in_python("    return 2 * x\nraise SystemExit(0)\n"),
        in_python("    import os\n    os._exit(0)\n"),
        in_python("    '''unterminated\n"),
    ], processes=2)
    assert (right.status, right.stdout) == (Status.PASSED, "")
    assert (prints.status, prints.stdout) == (Status.PASSED, "working\n")
    assert [outcome.status for outcome in (wrong, leaves, leaves_hard, catches)] == [Status.FAILED] * 4
    assert "AssertionError" in wrong.stderr
    assert leaves.stderr.endswith(f"{ENDED_EARLY}\n")


@needs_sandbox
def test_mbpp() -> None:
    """What sets the tests up may use the function: it comes after it."""
    fields = {"text": "", "code": "", "setup": "value = double(3)", "tests": "assert double(2) == 4\nassert value == 6"}
    texts = Mbpp(test="x.jsonl").texts(Example("7", "7", "test", fields, ""))
    right, wrong = solve([Problem("7", program(texts["prompt"], code, texts["test"], "python")) for code in
                          ("def double(x):\r\n    return 2 * x", "def double(x):\n    return 4")])
    assert (right.status, wrong.status) == (Status.PASSED, Status.FAILED), right.stderr


@needs_sandbox
@needs_node
def test_javascript() -> None:
    right, wrong, leaves, shadows = solve([
        in_javascript("  return 2 * x;\n}\n"),
        in_javascript("  return x;\n}\n"),
        in_javascript("  return process.exit(0);\n}\n"),
        in_javascript("  return 2 * x;\n}\nconst process = 1;\n"),
    ], processes=2)
    assert [outcome.status for outcome in (right, wrong, leaves, shadows)] == [
        Status.PASSED, Status.FAILED, Status.FAILED, Status.PASSED], (right.stderr, shadows.stderr)
    assert "not four" in wrong.stderr
