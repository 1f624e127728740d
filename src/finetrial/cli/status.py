"""`finetrial status`: how far the runs are, from what their runners write to `status.json`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from finetrial.analysis.numbers import seconds_text
from finetrial.cli.output import as_typed, heading, indented, say
from finetrial.cli.running import USUAL_RUNS, find_run, run_folders
from finetrial.errors import StoreError
from finetrial.run.board import NOT_RUN
from finetrial.run.run_file import REPORT_FILE
from finetrial.run.status import read_status

RUNNING_SHOWN = 8
NAME_WIDTH = 40  # of a run, at most before it is folded


def status_command(name: str | None, runs: Path) -> None:
    """One line a run; with a name, that run and what it computes just now."""
    if name is not None:
        folder = find_run(name, runs)
        say(*detail(folder, read_status(folder)))
        return
    folders = run_folders(runs)
    if not folders:
        where = f" --runs {as_typed(runs)}" if runs != USUAL_RUNS else ""
        say(f"no runs below {runs}; start one: finetrial run perplexity --size demo{where}")
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("Run", overflow="fold", min_width=min(NAME_WIDTH, max(len(folder.name) for folder in folders)))
    table.add_column("State", no_wrap=True)
    table.add_column("Stages", justify="right", no_wrap=True)
    rows = [(folder.name, *_line_of(folder)) for folder in folders]
    any_failed, any_not_run = any(row[3] for row in rows), any(row[4] for row in rows)
    if any_failed:
        table.add_column("Failed", justify="right")
    if any_not_run:
        table.add_column("Not run", justify="right", no_wrap=True)
    table.add_column("Left", overflow="fold")
    for run, state, stages, failed, not_run, left in rows:
        table.add_row(run, state, stages, *([failed] if any_failed else []), *([not_run] if any_not_run else []), left)
    say(table)


def _line_of(folder: Path) -> tuple[str, str, str, str, str]:
    """The line of a run; one that cannot be read hides no other."""
    try:
        return line(read_status(folder))
    except StoreError:
        return "unreadable", "", "", "", ""


def line(status: Mapping[str, Any] | None) -> tuple[str, str, str, str, str]:
    """State, stages, how many failed, how many were not run for want of what failed, time left."""
    if status is None:
        return "not started", "", "", "", ""
    not_run = status["failures"].get(NOT_RUN, 0)
    failed = sum(status["failures"].values()) - not_run
    return (status["state"], f"{status['stages_done']:,}/{status['stages_total']:,}", f"{failed:,}" if failed else "",
            f"{not_run:,}" if not_run else "", _left(status) if status["state"] == "running" else "")


def detail(folder: Path, status: Mapping[str, Any] | None) -> Iterable[RenderableType]:
    """One run: its state, failures by kind, and the stages that run just now."""
    if status is None:
        yield f"{folder.name}: not started"
        return
    state, stages, _, _, left = line(status)
    yield Text(f"{folder.name}: {state}, {stages} stages" + (f", {left} left" if left else ""), style="bold")
    if status["stages_reused"]:
        yield f"{status['stages_reused']:,} of them were recorded before"
    for outcome, number in status["failures"].items():
        why = "what they need failed" if outcome == NOT_RUN else f"why is in {folder / 'logs'}"
        yield f"{outcome}: {number:,}; {why}"
    for damaged in status["damaged"]:
        yield f"damaged and computed again: {damaged}"
    if status["state"] == "running":
        yield heading("Now")
        yield indented(_now(status["running"]))
    elif (folder / REPORT_FILE).is_file():
        yield f"report: {folder / REPORT_FILE}"
    if status["state"] == "refused":
        yield "by the audit of its data, before anything was trained; the same command says why"
    if status["state"] == "interrupted":
        yield "run the same command again to go on"


def _now(running: list[Mapping[str, Any]]) -> Table:
    table = Table.grid(padding=(0, 2))
    for _ in range(4):
        table.add_column(overflow="fold")
    for stage in running[:RUNNING_SHOWN]:
        fraction, loss = stage["fraction"], stage["loss"]
        table.add_row(stage["kind"], stage["label"], "" if fraction is None else f"{100 * fraction:.0f} %",
                      "" if loss is None else f"loss {loss:.3f}")
    return table


def _left(status: Mapping[str, Any]) -> str:
    seconds = status["left_seconds"]
    if seconds is None:
        return "unknown"
    return ("at least " if status["left_is_at_least"] else "about ") + seconds_text(seconds)
