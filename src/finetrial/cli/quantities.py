"""Times and sizes as people write them: `30min`, `16GB`, `5%`."""

from __future__ import annotations

import re

from finetrial.errors import UserError

SECONDS = {"s": 1, "sec": 1, "min": 60, "m": 60, "h": 3600}
BYTES = {"B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_QUANTITY = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z%]*)\s*")


def read_seconds(text: str) -> float:
    """`30min` -> 1800. Raises UserError for what is no time."""
    number, unit = quantity(text, "--within", "a time such as 30min, 2h or 90s")
    if unit not in SECONDS:
        raise UserError(f"--within {text!r}: {unit_text(unit)}", "expected a time such as 30min, 2h or 90s")
    return number * SECONDS[unit]


def read_bytes(text: str, option: str) -> int:
    """`4GB` -> 4000000000. Raises UserError for what is no size."""
    number, unit = quantity(text, option, "a size such as 16GB or 900MB")
    if unit not in BYTES or not number:
        raise UserError(f"{option} {text!r} is no size", "expected a size such as 16GB or 900MB")
    return int(number * BYTES[unit])


def read_stack(text: str) -> int | None:
    """`8` -> 8, `auto` -> None. Raises UserError for anything else."""
    if text == "auto":
        return None
    if not text.isdecimal() or not int(text):
        raise UserError(f"--stack {text!r} is no number of cells", "expected auto, 1 for none, or how many: 8")
    return int(text)


def unit_text(unit: str) -> str:
    """What is wrong with a unit that is none of those expected."""
    return f"unknown unit {unit!r}" if unit else "a number without a unit"


def quantity(text: str, option: str, expected: str) -> tuple[float, str]:
    """The number and the unit of a text. Raises UserError that says what was `expected`."""
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise UserError(f"{option} {text!r} cannot be read", f"expected {expected}")
    return float(match.group(1)), match.group(2)
