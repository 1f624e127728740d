"""Execute: which generated programs pass their item's tests, found by running them in the sandbox.

The program is the item's `prompt`, the output and the item's `test`, all from the texts of the data stage. An output that
goes on after the function it was asked for is cut there, as Chen et al. 2021 do: a program that merely stops in the
middle of a further function would fail for that.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from finetrial.errors import DataError
from finetrial.stages.base import StageContext, StageKind, StageTimeout
from finetrial.stages.score import OUTPUTS, read_columns, read_texts

if TYPE_CHECKING:
    from finetrial.sandbox import Outcome
    from finetrial.sandbox.problems import Problem

PASSED, OUTCOMES = "passed.parquet", "outcomes.parquet"
ENDS_OF_A_BODY = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")  # Chen et al. 2021, section 3
PROGRAMS_AT_ONCE = 16  # between two looks at the clock


class Execute(StageKind):
    """Writes `passed.parquet` (item, cluster, num_samples, num_passed: what `pass-at-k` reads) and `outcomes.parquet`
    (item, sample, status, cpu_seconds)."""

    version: ClassVar[int] = 1

    def run(self, context: StageContext) -> Mapping[str, Any]:
        """The spec has split and language; `limits` where they are not the usual ones, and `allow_unsandboxed`.

        Raises SandboxError where generated code must not be run, DataError for a task whose items have no tests,
        StageTimeout.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        texts = read_texts(context.inputs["data"].folder, context.spec["split"])
        outputs = read_columns(context.inputs["outputs"].folder / OUTPUTS)
        outcomes = list(_outcomes(context, _problems(texts, outputs, context.spec["language"])))
        samples = Counter(outputs["item"])
        passed = Counter(item for item, outcome in zip(outputs["item"], outcomes, strict=True) if outcome.passed)
        pq.write_table(pa.table({
            "item": texts["item"], "cluster": texts["cluster"],
            "num_samples": pa.array([samples[item] for item in texts["item"]], pa.int64()),
            "num_passed": pa.array([passed[item] for item in texts["item"]], pa.int64())}), context.folder / PASSED)
        pq.write_table(pa.table({
            "item": outputs["item"], "sample": outputs["sample"],
            "status": [str(outcome.status) for outcome in outcomes],
            "cpu_seconds": [outcome.cpu_seconds for outcome in outcomes]}), context.folder / OUTCOMES)
        return {"num_items": len(texts["item"]), "num_programs": len(outcomes), "num_passed": passed.total(),
                "statuses": dict(sorted(Counter(str(outcome.status) for outcome in outcomes).items())),
                "layers": list(outcomes[0].layers) if outcomes else []}


def _problems(texts: Mapping[str, Sequence[Any]], outputs: Mapping[str, Sequence[Any]], language: Any) -> list[Problem]:
    """One program for each output."""
    from finetrial.sandbox.problems import Problem

    for name in ("prompt", "test"):
        if name not in texts:
            raise DataError(f"the items of this task have no {name!r}: its outputs cannot be run",
                            "pass-at-k is for tasks with tests, such as humaneval and mbpp")
    around = {item: (prompt, test)
              for item, prompt, test in zip(texts["item"], texts["prompt"], texts["test"], strict=True)}
    problems = []
    for item, sample, output in zip(outputs["item"], outputs["sample"], outputs["output"], strict=True):
        prompt, test = around[item]
        completed = body(output) if prompt and language == "python" else output
        problems.append(Problem(f"{item}/{sample}", f"{prompt}{completed}{test}", language))
    return problems


def body(output: str) -> str:
    """What belongs to the function that a prompt began: the output up to the next statement at the margin."""
    ends = [place for place in (output.find(end) for end in ENDS_OF_A_BODY) if place >= 0]
    return output[:min(ends, default=len(output))]


def _outcomes(context: StageContext, problems: Sequence[Problem]) -> Iterator[Outcome]:
    """Run them in order, a few at a time, as long as there is time."""
    from finetrial.sandbox import Limits
    from finetrial.sandbox.problems import solve

    limits = Limits(**context.spec.get("limits", {}))
    for start in range(0, len(problems), PROGRAMS_AT_ONCE):
        if context.deadline is not None and time.monotonic() > context.deadline:
            raise StageTimeout(start)
        yield from solve(problems[start:start + PROGRAMS_AT_ONCE], limits=limits,
                         allow_unsandboxed=context.spec.get("allow_unsandboxed", False))
        context.progress({"fraction": min(1.0, (start + PROGRAMS_AT_ONCE) / len(problems))})
