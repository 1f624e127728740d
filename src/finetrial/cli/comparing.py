"""`finetrial compare`: what is written on the command line, read; what is printed is in `comparison_page`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from finetrial.cli.output import say, say_line, warn
from finetrial.cli.quantities import BYTES, quantity, read_seconds, unit_text
from finetrial.errors import UserError

if TYPE_CHECKING:
    from finetrial.compare.compare import Planned
    from finetrial.spec.study import Limits

@dataclass(frozen=True)
class Asked:
    """The options as they were written."""

    model: str
    learn: str
    keep: str | None
    within: str
    arms: str | None
    max_memory: str | None
    max_forgetting: str | None
    max_trainable: str | None
    revision: str | None
    columns: str | None = None
    keep_columns: str | None = None


def compare_command(asked: Asked, *, runs: Path, store: str | None, device: str, jobs: int | None,
                    accept: tuple[str, ...] = (), command: str) -> None:
    """Run the comparison; print the plan before it starts and the answers after."""
    seconds, limits = read_seconds(asked.within), read_limits(asked)
    if asked.max_forgetting is not None and asked.keep is None:
        raise UserError("--max-forgetting needs --keep: without old text forgetting is NOT MEASURED",
                        "give text that must not be forgotten: --keep old.txt")
    if asked.keep_columns is not None and asked.keep is None:
        raise UserError("--keep-columns says what the file of --keep calls its columns, and there is no --keep",
                        "leave --keep-columns out, or give --keep; --columns is for --learn")
    columns = read_columns(asked.columns, "--columns")
    keep_columns = read_columns(asked.keep_columns, "--keep-columns")

    from finetrial.cli.comparison_page import answer_page, plan_page
    from finetrial.compare.compare import Comparison, compare
    from finetrial.run.machine import unused_accelerator
    from finetrial.run.options import RunOptions

    unused = unused_accelerator(device)
    if unused:
        warn(unused)
    wanted = Comparison(asked.model, asked.learn, asked.keep, seconds, asked.arms, limits, asked.revision, columns,
                        keep_columns)
    options = RunOptions(runs=runs, store=store, device=device, jobs=jobs, accept=accept)

    def told(what: Planned | str) -> None:
        if isinstance(what, str):
            say_line(what)
        else:
            say(*plan_page(what))

    trial = compare(wanted, options, say=told, command=command)
    page, lines = answer_page(trial)
    say(*page)
    for line in lines:
        say_line(line)
    if trial.failure is not None:
        raise trial.failure


def read_columns(text: str | None, option: str) -> dict[str, str]:
    """`prompt=question,completion=answer` -> our name: the file's. Raises UserError for what is no mapping."""
    found: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in (text or "").split(","))):
        column, _, name = (piece.strip() for piece in part.partition("="))
        if not column or not name or column in found:
            raise UserError(f"{option} {text!r}: {part!r} is not a column's name here = its name in the file",
                            f"for example {option} prompt=question,completion=answer")
        found[column] = name
    return found


def read_limits(asked: Asked) -> Limits:
    """The limits of the recommendation. Raises UserError for a value that cannot be read."""
    from pydantic import ValidationError

    from finetrial.spec.study import Limits

    found: dict[str, float | int] = {}
    if asked.max_memory is not None:
        number, unit = quantity(asked.max_memory, "--max-memory", "a size such as 16GB")
        if unit not in BYTES:
            raise UserError(f"--max-memory {asked.max_memory!r}: {unit_text(unit)}",
                            f"expected one of {', '.join(BYTES)}")
        found["max_memory_bytes"] = int(number * BYTES[unit])
    for option, text, name in (("--max-forgetting", asked.max_forgetting, "max_forgetting"),
                               ("--max-trainable", asked.max_trainable, "max_trainable")):
        if text is None:
            continue
        number, unit = quantity(text, option, "a number, or a share such as 5%")
        if unit not in ("", "%"):
            raise UserError(f"{option} {text!r}: unknown unit {unit!r}", "expected a number, or a share such as 5%")
        if unit == "%":
            found[f"{name}_share"] = number / 100
        else:
            found[name] = int(number) if name == "max_trainable" else number
    try:
        return Limits.model_validate(found)
    except ValidationError as error:
        (problem, *_) = error.errors()
        name = next(name for name in ("max_memory", "max_forgetting", "max_trainable") if str(problem["loc"][0]).startswith(name))
        raise UserError(f"--{name.replace('_', '-')} {getattr(asked, name)!r}: {problem['msg'].lower()}",
                        "a limit is above nothing, and a share of the parameters at most 100%") from None
