"""Problems with tests: right solutions pass, wrong ones and those that leave early do not."""

from __future__ import annotations

import pytest

from finetrial.errors import DataError
from finetrial.sandbox import Status, probe
from finetrial.sandbox.languages import find_node
from finetrial.sandbox.problems import ENDED_EARLY, human_eval, human_eval_x_javascript, mbpp, solve

needs_sandbox = pytest.mark.skipif(bool(probe().missing), reason=f"no sandbox on this machine: {probe().missing}")
needs_node = pytest.mark.skipif(find_node() is None, reason="needs Node: pip install 'finetrial[javascript]'")

HUMAN_EVAL = {"task_id": "HumanEval/x", "prompt": "def double(x):\n    '''Twice x.'''\n", "entry_point": "double",
              "test": "def check(candidate):\n    assert candidate(2) == 4\n"}
MBPP = {"task_id": 7, "test_setup_code": "value = double(3)",
        "test_list": ["assert double(2) == 4", "assert value == 6"]}
JAVASCRIPT = {"task_id": "JavaScript/x", "prompt": "/* Twice x. */\nconst double = (x) => {\n",
              "test": "const test = () => { console.assert(double(2) === 4) }\ntest()\n"}


@needs_sandbox
def test_python() -> None:
    right, prints, wrong, leaves, leaves_hard, catches = solve([
        human_eval(HUMAN_EVAL, "    return 2 * x\n"),
        human_eval(HUMAN_EVAL, "    print('working')\n    return 2 * x"),
        human_eval(HUMAN_EVAL, "    return x\n"),
        human_eval(HUMAN_EVAL, "    return 2 * x\nraise SystemExit(0)\n"),
        human_eval(HUMAN_EVAL, "    import os\n    os._exit(0)\n"),
        human_eval(HUMAN_EVAL, "    '''unterminated\n"),
    ], processes=2)
    assert (right.status, right.stdout) == (Status.PASSED, "")
    assert (prints.status, prints.stdout) == (Status.PASSED, "working\n")
    assert [outcome.status for outcome in (wrong, leaves, leaves_hard, catches)] == [Status.FAILED] * 4
    assert "AssertionError" in wrong.stderr
    assert leaves.stderr.endswith(f"{ENDED_EARLY}\n")


@needs_sandbox
def test_mbpp() -> None:
    right, wrong = solve([mbpp(MBPP, "def double(x):\r\n    return 2 * x"), mbpp(MBPP, "def double(x):\n    return 4")])
    assert (right.status, wrong.status) == (Status.PASSED, Status.FAILED), right.stderr


@needs_sandbox
@needs_node
def test_javascript() -> None:
    """`console.assert` alone would let every program pass that ends."""
    right, wrong, leaves, shadows = solve([
        human_eval_x_javascript(JAVASCRIPT, "  return 2 * x;\n}\n"),
        human_eval_x_javascript(JAVASCRIPT, "  return x;\n}\n"),
        human_eval_x_javascript(JAVASCRIPT, "  return process.exit(0);\n}\n"),
        human_eval_x_javascript(JAVASCRIPT, "  return 2 * x;\n}\nconst process = 1;\n"),
    ], processes=2)
    assert [outcome.status for outcome in (right, wrong, leaves, shadows)] == [
        Status.PASSED, Status.FAILED, Status.FAILED, Status.PASSED], (right.stderr, shadows.stderr)
    assert "assertion failed" in wrong.stderr


def test_rows_without_their_fields() -> None:
    with pytest.raises(DataError, match=r"HumanEval/x: no field 'test' \(it has: entry_point, prompt, task_id\)"):
        human_eval({name: value for name, value in HUMAN_EVAL.items() if name != "test"}, "")
    with pytest.raises(DataError, match="problem without task_id: no field 'task_id'"):
        human_eval_x_javascript({}, "")
    with pytest.raises(DataError, match="problem 7: no field 'test_list'"):
        mbpp({"task_id": 7}, "")
