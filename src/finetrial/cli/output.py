"""How commands print: plain text that looks good at 80 columns; colour only where a terminal shows it."""

from __future__ import annotations

import shlex
import sys
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

PLAIN_WIDTH = 80  # where there is no terminal to ask
WIDEST = 110  # longer lines are hard to read


def console() -> Console:
    """The console on standard output, at the terminal's width within limits."""
    found = Console(highlight=False, markup=False, emoji=False)
    found.width = min(found.width, WIDEST) if found.is_terminal else PLAIN_WIDTH
    return found


def say(*parts: RenderableType) -> None:
    """Print each part on lines of its own; without trailing spaces where no terminal needs them."""
    out = console()
    if out.is_terminal:
        out.print(*parts, sep="\n")
        return
    with out.capture() as captured:
        out.print(*parts, sep="\n")
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))


def say_line(text: str) -> None:
    """Print one line that is never wrapped, such as a path that will be copied."""
    print(text)


def note(text: str) -> None:
    """A line on standard error, such as progress."""
    print(text, file=sys.stderr)


def warn(text: str) -> None:
    """A warning on standard error."""
    print(f"warning: {text}", file=sys.stderr)


def as_typed(name: Path | str) -> str:
    """A path as a shell takes it, for commands that people copy."""
    return shlex.quote(str(name))


def printable(text: str) -> str:
    """What a model wrote, fit for a terminal: control characters, which could command it, as escapes."""
    return "".join(repr(one)[1:-1] if unicodedata.category(one) == "Cc" and one not in "\n\t" else one for one in text)


def heading(text: str) -> Text:
    """A heading with an empty line above it."""
    return Text(f"\n{text}", style="bold")


def indented(part: RenderableType, by: int = 2) -> Padding:
    """Moved to the right."""
    return Padding(part, (0, 0, 0, by), expand=False)


def facts(rows: Mapping[str, str]) -> Table:
    """Two columns: names and what they are; long text is wrapped beside its name."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def print_json(content: Any) -> None:
    """Indented JSON, for programs."""
    import json

    print(json.dumps(content, indent=1))
