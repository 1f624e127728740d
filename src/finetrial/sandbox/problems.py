"""Programming problems with tests: a completion becomes a program that ends well only if its tests do.

A program passes if it exits with 0 *and* its last line was reached: one that leaves early (`exit()`, `process.exit()`)
has not been tested. Tests must be over by then: a promise of JavaScript that is never kept is not waited for. Code that
sets out to fake this can; that is a question of trust in scores, not of containment.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from finetrial.sandbox.languages import Language
from finetrial.sandbox.layers import Layers
from finetrial.sandbox.outcome import Limits, Outcome, Status
from finetrial.sandbox.runner import DEFAULT_LIMITS, Program, run_many

ENDED_EARLY = "finetrial: the program ended before its tests did"
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
