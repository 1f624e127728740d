"""Write docs/cli.md from the commands' own help. `--check` says whether it is up to date (a test asks).

    .venv/bin/python docs/make_cli.py
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from pathlib import Path

from finetrial.cli import main as finetrial
from finetrial.cli.app import app

PAGE = Path(__file__).with_name("cli.md")
OPENING = """# Command line

Made from `finetrial --help` by `docs/make_cli.py`; do not edit.

Exit codes: 0 done; 1 a check of `doctor` failed, or finetrial itself did; 2 something that you can mend, said in a
sentence; 130 stopped with Ctrl-C (run the same command to resume).
"""


def page() -> str:
    """The whole page."""
    parts = [OPENING, _section("finetrial", [])]
    parts += [_section(f"finetrial {command}", [command]) for command in commands()]
    return "\n".join(parts)


def commands() -> list[str]:
    """All of them, in the order in which `finetrial --help` lists them."""
    return [command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands]


def _section(title: str, arguments: list[str]) -> str:
    return f"## {title}\n\n```\n{_help(arguments)}\n```\n"


def _help(arguments: list[str]) -> str:
    """The help text at 80 columns."""
    os.environ["COLUMNS"] = "80"
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        code = finetrial([*arguments, "--help"])
    assert code == 0, arguments
    return "\n".join(line.rstrip() for line in printed.getvalue().strip().splitlines())


def main() -> int:
    """Write the page, or compare it."""
    text = page()
    if "--check" not in sys.argv:
        PAGE.write_text(text, encoding="utf-8")
        return 0
    if PAGE.read_text(encoding="utf-8") == text:
        return 0
    print(f"{PAGE} is not what the commands' help says; make it again: python docs/make_cli.py", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
