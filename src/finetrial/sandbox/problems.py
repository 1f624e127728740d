"""Programming problems with tests: a completion becomes a program that ends well only if its tests do.

A program passes if it exits with 0 *and* its last line was reached: one that leaves early (`exit()`, `process.exit()`)
has not been tested. Code that sets out to fake this can; that is a question of trust in scores, not of containment.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from finetrial.errors import DataError
from finetrial.sandbox.languages import Language
from finetrial.sandbox.layers import Layers
from finetrial.sandbox.outcome import Limits, Outcome, Status
from finetrial.sandbox.runner import DEFAULT_LIMITS, Program, run_many

ENDED_EARLY = "finetrial: the program ended before its tests did"
THROWING_ASSERT = ("console.assert = (condition, ...said) => "
                   "{ if (!condition) throw new Error(['assertion failed', ...said].join(' ')); };")
LAST_LINE = {"python": '\n\n__import__("os").write(1, b"{}")\n',
             "javascript": '\n\nglobalThis.process.stdout.write("{}");\n'}


@dataclass(frozen=True)
class Problem:
    """A candidate solution followed by its tests: source text whose end is reached only if every test holds."""

    name: str
    code: str
    language: Language = "python"

    @property
    def mark(self) -> str:
        """What the program says at its end; no program contains it by accident."""
        return f"<{hashlib.sha256(self.code.encode('utf-8', 'surrogatepass')).hexdigest()}>"

    def program(self) -> Program:
        """The program to run."""
        return Program(self.code + LAST_LINE[self.language].format(self.mark), self.language)

    def judged(self, outcome: Outcome) -> Outcome:
        """The outcome without the mark; FAILED where the end was not reached."""
        if outcome.passed and self.mark not in outcome.stdout:
            return dataclasses.replace(outcome, status=Status.FAILED, stderr=f"{outcome.stderr}{ENDED_EARLY}\n")
        return dataclasses.replace(outcome, stdout=outcome.stdout.replace(self.mark, ""))


def solve(problems: Iterable[Problem], processes: int = 1, *, limits: Limits = DEFAULT_LIMITS,
          layers: Layers | None = None, allow_unsandboxed: bool = False) -> list[Outcome]:
    """Run each problem's program in the sandbox, at most `processes` at once. Raises what `sandbox.run` raises."""
    problems = list(problems)
    outcomes = run_many([problem.program() for problem in problems], processes, limits=limits, layers=layers,
                        allow_unsandboxed=allow_unsandboxed)
    return [problem.judged(outcome) for problem, outcome in zip(problems, outcomes, strict=True)]


def human_eval(row: Mapping[str, Any], completion: str) -> Problem:
    """A row of HumanEval (task_id, prompt, entry_point, test) and the body that a model wrote.

    Raises DataError for a missing field, as the others do.
    """
    name, prompt, entry_point, test = _fields(row, "task_id", "prompt", "entry_point", "test")
    return Problem(name, f"{prompt}{completion}\n{test}\ncheck({entry_point})")


def mbpp(row: Mapping[str, Any], code: str) -> Problem:
    """A row of MBPP (task_id, test_list, and test_setup_code or test_imports) and a whole function.

    What sets the tests up may use the function: it comes after it.
    """
    (name,) = _fields(row, "task_id")
    setup = [row.get("test_setup_code") or "", *(row.get("test_imports") or ())]
    if "test_list" not in row:
        raise _missing(row, "test_list")
    return Problem(f"MBPP/{name}", "\n".join([code, *setup, *row["test_list"]]))


def human_eval_x_javascript(row: Mapping[str, Any], completion: str) -> Problem:
    """A JavaScript row of HumanEval-X (task_id, prompt, test) and the rest of the function.

    Its tests use `console.assert`, which only prints: here it throws.
    """
    name, prompt, test = _fields(row, "task_id", "prompt", "test")
    return Problem(name, f"{THROWING_ASSERT}{prompt}{completion}\n{test}", "javascript")


def _fields(row: Mapping[str, Any], *names: str) -> list[str]:
    for name in names:
        if row.get(name) is None:
            raise _missing(row, name)
    return [str(row[name]) for name in names]


def _missing(row: Mapping[str, Any], name: str) -> DataError:
    which = row.get("task_id", "without task_id")
    return DataError(f"problem {which}: no field {name!r} (it has: {', '.join(sorted(map(str, row)))})",
                     "give the rows as their publisher does: HumanEval, MBPP or HumanEval-X")
