"""`finetrial compare`: units read, the plan said before it starts, one page at the end."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from finetrial.cli.output import heading, say, say_line, warn
from finetrial.errors import UserError

if TYPE_CHECKING:
    from finetrial.compare.compare import Planned
    from finetrial.run.trial import Trial
    from finetrial.spec.study import Limits

SECONDS = {"s": 1, "sec": 1, "min": 60, "m": 60, "h": 3600}
BYTES = {"B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_QUANTITY = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z%]*)\s*")


@dataclass(frozen=True)
class Asked:
    """The options as they were written."""

    model: str
    learn: Path
    keep: Path | None
    within: str
    arms: str | None
    max_memory: str | None
    max_forgetting: str | None
    max_trainable: str | None
    revision: str | None


def compare_command(asked: Asked, *, runs: Path, store: Path | None, device: str, jobs: int | None,
                    command: str) -> None:
    """Run the comparison; print the plan before it starts and the answers after."""
    seconds, limits = read_seconds(asked.within), read_limits(asked)

    from finetrial.compare.compare import Comparison, compare
    from finetrial.run.machine import unused_accelerator
    from finetrial.run.trial import RunOptions

    unused = unused_accelerator(device)
    if unused:
        warn(unused)
    say_line("reading the data and timing a few steps of each arm")
    wanted = Comparison(asked.model, asked.learn, asked.keep, seconds, asked.arms, limits, asked.revision)
    options = RunOptions(runs=runs, store=store, device=device, jobs=jobs)
    _say_answer(compare(wanted, options, say=_say_plan, command=command))


def read_seconds(text: str) -> float:
    """`30min` -> 1800. Raises UserError for what is no time."""
    number, unit = _quantity(text, "--within", "a time such as 30min, 2h or 90s")
    if unit not in SECONDS:
        raise UserError(f"--within {text!r}: unknown unit {unit!r}", "expected a time such as 30min, 2h or 90s")
    return number * SECONDS[unit]


def read_limits(asked: Asked) -> Limits:
    """The limits of the recommendation. Raises UserError for a value that cannot be read."""
    from finetrial.spec.study import Limits

    found: dict[str, float | int] = {}
    if asked.max_memory is not None:
        number, unit = _quantity(asked.max_memory, "--max-memory", "a size such as 16GB")
        if unit not in BYTES:
            raise UserError(f"--max-memory {asked.max_memory!r}: unknown unit {unit!r}",
                            f"expected one of {', '.join(BYTES)}")
        found["max_memory_bytes"] = int(number * BYTES[unit])
    for option, text, name in (("--max-forgetting", asked.max_forgetting, "max_forgetting"),
                               ("--max-trainable", asked.max_trainable, "max_trainable")):
        if text is None:
            continue
        number, unit = _quantity(text, option, "a number, or a share such as 5%")
        if unit not in ("", "%"):
            raise UserError(f"{option} {text!r}: unknown unit {unit!r}", "expected a number, or a share such as 5%")
        if unit == "%":
            found[f"{name}_share"] = number / 100
        else:
            found[name] = int(number) if name == "max_trainable" else number
    return Limits(**found)  # type: ignore[arg-type]


def _quantity(text: str, option: str, expected: str) -> tuple[float, str]:
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise UserError(f"{option} {text!r} cannot be read", f"expected {expected}")
    return float(match.group(1)), match.group(2)


def _say_plan(planned: Planned) -> None:
    """What will be run, and how long it is forecast to take."""
    grid, request, study = planned.grid, planned.request, planned.study
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("model", f"{request.base.name} ({request.base.folder})")
    for use, data in zip(study.tasks, (request.learn, request.keep), strict=False):
        assert data is not None
        rows = data.rows
        table.add_row(use.name, f"{rows['train']:,} rows to train on, {use.num_val} of {rows['val']:,} to validate, "
                                f"{use.num_test} of {rows['test']:,} to test; {data.median_tokens} tokens each "
                                f"(median)")
    if request.keep is None:
        table.add_row("keep", "not given: forgetting is NOT MEASURED")
    table.add_row("arms", ", ".join(arm.title for arm in study.arms))
    table.add_row("rates", f"{grid.rates} for each arm")
    table.add_row("seeds", f"{grid.seeds}")
    table.add_row("steps", f"{grid.steps} of {study.training.batch_sequences} x {study.training.sequence_length} "
                           "tokens for each run")
    table.add_row("forecast", f"{grid.seconds / 60:.1f} minutes")
    say(heading("The plan"), table)
    for arm, why in planned.left_out.items():
        say(Text(f"left out: {arm} ({why})", style="yellow"))


def _say_answer(trial: Trial) -> None:
    from finetrial.cli.answers import short_answers
    from finetrial.report import view

    say(*short_answers(view(trial.study, trial.results)))
    recommended = trial.results.recommendation
    if recommended is not None and recommended.arm is not None:
        seed = trial.study.seeds[0]
        base, path = trial.study.bases[0].name, trial.study.paths[0]
        folder = trial.folder / "artifacts" / base / recommended.arm / path.name / f"seed-{seed}"
        say_line(f"\nweights: {folder / f'phase-1-{path.tasks[0]}' / 'main'}")
    say_line(f"study: {trial.folder / 'study.yaml'}")
    say_line(f"report: {trial.folder / 'report.html'}")
