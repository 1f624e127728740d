"""`finetrial doctor`, printed line by line as the checks are done."""

from __future__ import annotations

from pathlib import Path

import typer
from rich.table import Table
from rich.text import Text

from finetrial.cli.output import say
from finetrial.run.doctor import Check, examine

STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def doctor_command(store: Path, network: bool) -> None:
    """Print every check; exit code 1 if one fails."""
    states = []
    for check in examine(store, network=network):
        states.append(check.state)
        say(_line(check))
    failed, warned = states.count("fail"), states.count("warn")
    say(f"\n{len(states) - failed - warned} well, {warned} with a warning, {failed} failed")
    if failed:
        raise typer.Exit(1)


def _line(check: Check) -> Table:
    line = Table.grid(padding=(0, 2, 0, 0))
    line.add_column(width=4)
    line.add_column(width=10)
    line.add_column(overflow="fold")
    line.add_row(Text(check.state, style=STYLES[check.state]), Text(check.name, style="bold"), check.text)
    if check.mend:
        line.add_row("", "", Text(check.mend, style="dim"))
    return line
