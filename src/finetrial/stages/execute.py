"""Execute: which generated programs pass their item's tests, found by running them in the sandbox.

The program is the item's `prompt`, the output and the item's `test`, all from the texts of the data stage. An output that
goes on after the function it was asked for is cut there, as Chen et al. 2021 do: a program that merely stops in the
middle of a further function would fail for that. Where no prompt began a function, an output that had to stop loses the last
statement, if that is what it did not finish; and what stands under `if __name__ == "__main__":` is left out, as where a
harness runs a text with `exec`: it would read from the keyboard, or end the program before its tests.

With the input `outputs` the outputs of a model are run; without it the task's floors (copying the input, ...).
"""

from __future__ import annotations

import ast
import io
import re
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from finetrial.errors import DataError, UserError
from finetrial.spec.hypothesis import FLOOR
from finetrial.stages.base import StageContext, StageKind, StageTimeout
from finetrial.stages.generate import OUTPUTS
from finetrial.stages.score import EXECUTED, MODEL, read_columns, read_texts

if TYPE_CHECKING:
    from finetrial.sandbox import Outcome
    from finetrial.sandbox.problems import Problem

OUTCOMES = "outcomes.parquet"
ENDS_OF_A_BODY = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")  # Chen et al. 2021, section 3
GOES_ON = re.compile(r"[)\]}#]|(else|elif|except|finally)\b")  # lines at the margin that begin no statement
PROGRAMS_AT_ONCE = 16  # between two looks at the clock
Columns = dict[str, list[Any]]


class Execute(StageKind):
    """Writes `executed.parquet` (who, item, cluster, num_samples, num_passed: what `pass-at-k` reads) and
    `outcomes.parquet` (who, item, sample, status, cpu_seconds); who is "model" or "floor:<name>"."""

    version: ClassVar[int] = 5

    def run(self, context: StageContext) -> Mapping[str, Any]:
        """The spec has split, language and the interpreter's version (`runtime`), and `limits` where they are not the usual
        ones.

        Raises SandboxError where generated code must not be run, MissingPackage without Node, UserError where the
        interpreter is another one than planned, DataError for a task whose items have no tests, StageTimeout.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        _check_runtime(context.spec)
        texts = read_texts(context.inputs["data"].folder, context.spec["split"])
        outputs = _model_outputs(context) if "outputs" in context.inputs else _floors(texts)
        outcomes = list(_outcomes(context, _problems(texts, outputs, context.spec["language"])))
        pq.write_table(pa.table(_counted(texts, outputs, outcomes)), context.folder / EXECUTED)
        pq.write_table(pa.table({
            "who": outputs["who"], "item": outputs["item"], "sample": outputs["sample"],
            "status": [str(outcome.status) for outcome in outcomes],
            "cpu_seconds": [outcome.cpu_seconds for outcome in outcomes]}), context.folder / OUTCOMES)
        return {"num_items": len(texts["item"]), "num_programs": len(outcomes),
                "num_passed": sum(outcome.passed for outcome in outcomes),
                "statuses": dict(sorted(Counter(str(outcome.status) for outcome in outcomes).items())),
                "layers": list(outcomes[0].layers) if outcomes else []}


def _check_runtime(spec: Mapping[str, Any]) -> None:
    """Raise UserError where programs would be run by another version of the interpreter than the key holds, or by one that it
    does not hold."""
    from finetrial.sandbox.languages import NAMES, runtime, runtime_version

    runtime(spec["language"])
    planned, found = spec.get("runtime"), runtime_version(spec["language"])
    if planned != found:
        name = NAMES[spec["language"]]
        raise UserError(f"programs would be run by {name} {found or 'of a version that is not known'} here, and the study was "
                        f"planned with {f'{name} {planned}' if planned else f'no {name}'}: which pass may depend on it",
                        f"use the same {name} here and where the study is planned, or run the study again")


def _model_outputs(context: StageContext) -> Columns:
    """Who, item, sample and output of everything that a model wrote."""
    written = read_columns(context.inputs["outputs"].folder / OUTPUTS)
    return {"who": [MODEL] * len(written["item"]), **{name: written[name] for name in ("item", "sample", "output", "finished")}}


def _floors(texts: Mapping[str, Sequence[Any]]) -> Columns:
    """The same of the floors, which answer each item once."""
    names = [name for name in texts if name.startswith(FLOOR)]
    count = len(texts["item"])
    return {"who": [name for name in names for _ in range(count)], "item": [*texts["item"]] * len(names),
            "sample": [0] * (count * len(names)), "output": [text for name in names for text in texts[name]],
            "finished": [True] * (count * len(names))}


def _counted(texts: Mapping[str, Sequence[Any]], outputs: Columns, outcomes: Sequence[Outcome]) -> Columns:
    """For everyone a row an item: how many samples there are, and how many passed."""
    keys = list(zip(outputs["who"], outputs["item"], strict=True))
    samples = Counter(keys)
    passed = Counter(key for key, outcome in zip(keys, outcomes, strict=True) if outcome.passed)
    names = list(dict.fromkeys(outputs["who"]))
    rows = [(who, item, cluster) for who in names for item, cluster in zip(texts["item"], texts["cluster"], strict=True)]
    return {"who": [who for who, _, _ in rows], "item": [item for _, item, _ in rows],
            "cluster": [cluster for _, _, cluster in rows],
            "num_samples": [samples[who, item] for who, item, _ in rows],
            "num_passed": [passed[who, item] for who, item, _ in rows]}


def _problems(texts: Mapping[str, Sequence[Any]], outputs: Columns, language: Any) -> list[Problem]:
    """One program for each output."""
    from finetrial.sandbox.problems import Problem

    for name in ("prompt", "test"):
        if name not in texts:
            raise DataError(f"the items of this task have no {name!r}: its outputs cannot be run",
                            "pass-at-k is for tasks with tests, such as humaneval and mbpp")
    around = {item: (prompt, test)
              for item, prompt, test in zip(texts["item"], texts["prompt"], texts["test"], strict=True)}
    problems = []
    columns = (outputs[name] for name in ("item", "sample", "output", "finished"))
    for item, sample, output, finished in zip(*columns, strict=True):
        prompt, test = around[item]
        problems.append(Problem(f"{item}/{sample}", program(prompt, output, test, language, finished=finished), language))
    return problems


def program(prompt: str, output: str, test: str, language: str, *, finished: bool = True) -> str:
    """An output between what its task puts before and behind it."""
    if language == "python":
        output = body(output) if prompt else without_main(output if finished else whole_statements(output))
    elif language == "javascript":
        output += "\n;\n"  # else an output that stops after `if (0)` would take the first test for its own
    return f"{prompt}{output}{test}"


def body(output: str) -> str:
    """What belongs to the function that a prompt began: the output up to the next statement at the margin."""
    ends = [place for place in (output.find(end) for end in ENDS_OF_A_BODY) if place >= 0]
    return output[:min(ends, default=len(output))]


def whole_statements(output: str) -> str:
    """The statements of a text up to the last one that is whole; all of it where none is."""
    lines = output.splitlines(keepends=True)
    starts = [place for place, line in enumerate(lines) if line[:1].strip() and not GOES_ON.match(line)]
    for end in [len(lines), *reversed(starts)]:
        kept = "".join(lines[:end])
        if kept.strip() and _tree(kept) is not None:
            return kept
    return output


def without_main(output: str) -> str:
    """A text without its statements `if __name__ == ...:` at the margin; the text itself where it does not parse."""
    tree, lines = _tree(output), [*io.StringIO(output, newline="")]  # lines as Python counts them
    for node in reversed(tree.body if tree is not None else ()):
        if isinstance(node, ast.If) and not node.orelse and _asks_for_the_name(node.test):
            del lines[node.lineno - 1:node.end_lineno]
    return "".join(lines)


def _asks_for_the_name(test: ast.expr) -> bool:
    return any(isinstance(node, ast.Name) and node.id == "__name__" for node in ast.walk(test))


def _tree(text: str) -> ast.Module | None:
    """The syntax tree of a program; None where it has none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what a model wrote
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _outcomes(context: StageContext, problems: Sequence[Problem]) -> Iterator[Outcome]:
    """Run them in order, a few at a time, as long as there is time."""
    from finetrial.sandbox import Limits
    from finetrial.sandbox.problems import solve

    limits = Limits(**context.spec.get("limits", {}))
    for start in range(0, len(problems), PROGRAMS_AT_ONCE):
        if context.deadline is not None and time.monotonic() > context.deadline:
            raise StageTimeout(start)
        for outcome in solve(problems[start:start + PROGRAMS_AT_ONCE], limits=limits,
                             allow_unsandboxed=context.allow_unsandboxed):
            yield replace(outcome, stdout="", stderr="")  # which nobody reads, up to 1 MB each
        context.progress({"fraction": min(1.0, (start + PROGRAMS_AT_ONCE) / len(problems))})
