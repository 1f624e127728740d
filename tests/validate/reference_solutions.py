"""Do the reference solutions of HumanEval, MBPP and HumanEval-X (JavaScript) pass in the sandbox, and how fast?

    python tests/validate/reference_solutions.py [--processes 1] [--only mbpp]

Reads FINETRIAL_REAL_DATA (see that folder's README); a set that is not there is left out, with the reason. Expected:
164/164, 974/974, and of HumanEval-X all but the two whose published solution is wrong (WRONG_REFERENCES), as it is by
the publisher's own rule that nothing may be printed. By exit code alone, which failed assertions of `console.assert` do
not change, those two pass as well. JavaScript/162 needs the npm package js-md5, fetched for this check only.
"""

from __future__ import annotations

import argparse
import dataclasses
import gzip
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from finetrial.errors import UserError
from finetrial.sandbox.problems import Problem, solve
from finetrial.stages.execute import program
from finetrial.tasks.base import Task
from finetrial.tasks.humaneval import Humaneval
from finetrial.tasks.mbpp import Mbpp

REAL = Path(os.environ.get("FINETRIAL_REAL_DATA", Path(__file__).parents[3] / "shared" / "real"))
NEEDS_A_PACKAGE = "JavaScript/162"
PACKAGE = "js-md5@0.8.3"
WRONG_REFERENCES = {
    "JavaScript/112": "returns `(z, false)`, which in JavaScript is false, where its tests want ['bcd', false]",
    "JavaScript/155": "counts no digit in 0, where its test wants one even digit",
}


THROWING_ASSERT = ("console.assert = (condition, ...said) => "
                   "{ if (!condition) throw new Error(['assertion failed', ...said].join(' ')); };")  # which only prints; HumanEval-X's tests use it


@dataclass(frozen=True)
class Collection:
    """Rows of one file, and what makes a problem of a row with its own solution."""

    name: str
    file: Path
    problems: Callable[[list[dict[str, Any]]], list[Problem]]

    def rows(self) -> list[dict[str, Any]]:
        """As they were published."""
        content = self.file.read_bytes()
        text = (gzip.decompress(content) if self.file.suffix == ".gz" else content).decode()
        return [json.loads(line) for line in text.split("\n") if line]


def of_task(kind: type[Task], rows: list[dict[str, Any]]) -> list[Problem]:
    """The programs that a trial makes of reference solutions."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        task = kind(path=str(file))
        found = [(example.source, task.texts(example)) for example in task.load().rows]
    return [Problem(name, program(texts["prompt"], texts["reference"], texts["test"], "python")) for name, texts in found]


def all_of_mbpp(rows: list[dict[str, Any]]) -> list[Problem]:
    """The first ten, which no trial uses, under other numbers."""
    return of_task(Mbpp, [row | {"task_id": row["task_id"] + 900} if row["task_id"] <= 10 else row for row in rows])


def in_javascript(rows: list[dict[str, Any]]) -> list[Problem]:
    """HumanEval-X, with assertions that throw."""
    return [Problem(row["task_id"], f"{THROWING_ASSERT}{row['prompt']}{row['canonical_solution']}\n{row['test']}", "javascript")
            for row in rows]


COLLECTIONS = (
    Collection("humaneval", REAL / "humaneval" / "HumanEval.jsonl.gz", partial(of_task, Humaneval)),
    Collection("mbpp", REAL / "mbpp" / "mbpp_974.jsonl", all_of_mbpp),
    Collection("humaneval-x-javascript", REAL / "humaneval_x" / "humaneval_js.jsonl.gz", in_javascript),
)


def main() -> int:
    """One line a collection; the exit code is 1 if a right solution fails, or a wrong one passes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--only", choices=[collection.name for collection in COLLECTIONS])
    options = parser.parse_args()
    failed = 0
    for collection in COLLECTIONS:
        if options.only in (None, collection.name):
            failed += check(collection, options.processes)
    return 1 if failed else 0


def check(collection: Collection, processes: int) -> int:
    """Run all of one collection and say how it went; the number of outcomes that are not as expected."""
    if not collection.file.is_file():
        print(f"{collection.name}: left out, {collection.file} is not there")
        return 0
    problems = [with_package(problem) for problem in collection.problems(collection.rows())]
    runnable = [problem for problem in problems if problem is not None]
    started, cpu_before = time.monotonic(), os.times()
    try:
        outcomes = solve(runnable, processes)
    except UserError as error:
        print(f"{collection.name}: left out, {error}")
        return 0
    elapsed, cpu = time.monotonic() - started, os.times()
    cpu_seconds = sum(cpu[:4]) - sum(cpu_before[:4])
    walls = sorted(outcome.wall_seconds for outcome in outcomes)
    print(f"{collection.name}: {sum(outcome.passed for outcome in outcomes)}/{len(outcomes)} passed in {elapsed:.1f} s "
          f"with {processes} process(es): {1000 * elapsed * processes / len(outcomes):.0f} ms a program "
          f"({1000 * cpu_seconds / len(outcomes):.0f} ms of CPU), without set-up median "
          f"{1000 * statistics.median(walls):.0f} ms, longest {walls[-1]:.2f} s; most CPU "
          f"{max(outcome.cpu_seconds for outcome in outcomes):.2f} s; layers: {', '.join(outcomes[0].layers)}")
    unexpected = 0
    for problem, outcome in zip(runnable, outcomes, strict=True):
        wrong = WRONG_REFERENCES.get(problem.name)
        unexpected += outcome.passed != (wrong is None)
        if not outcome.passed:
            lenient = dataclasses.replace(problem, code=problem.code.removeprefix(THROWING_ASSERT))
            print(f"  {problem.name}: {outcome.status}: {wrong or outcome.stderr}; by exit code alone: "
                  f"{solve([lenient])[0].status}")
    return unexpected


def with_package(problem: Problem) -> Problem | None:
    """The problem that needs js-md5 with that package's source in front; None where npm cannot fetch it."""
    if problem.name != NEEDS_A_PACKAGE:
        return problem
    with tempfile.TemporaryDirectory() as folder:
        try:
            packed = subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=folder, capture_output=True, text=True,
                                    check=True, timeout=60).stdout.strip()
        except (OSError, subprocess.SubprocessError) as error:
            print(f"{NEEDS_A_PACKAGE}: left out, npm cannot fetch {PACKAGE}: {error}")
            return None
        with tarfile.open(Path(folder) / packed) as archive:
            file = archive.extractfile("package/src/md5.js")
            assert file is not None
            source = file.read().decode()
    prelude = (f"const md5 = {{ exports: {{}} }};\n(function (module, exports) {{\n{source}\n}})(md5, md5.exports);\n"
               "require = ((before) => (name) => name === 'js-md5' ? md5.exports : before(name))(require);\n")
    return dataclasses.replace(problem, code=prelude + problem.code)


if __name__ == "__main__":
    sys.exit(main())
