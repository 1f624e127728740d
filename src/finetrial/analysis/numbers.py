"""Numbers as people read them: rounded to what their interval supports, with units, a true minus sign, no false digits.

The half width of an interval is shown with two significant digits and the estimate to the same decimal place (the
rule of the GUM, 7.2.6: uncertainty to at most two significant digits, the result to match).
"""

from __future__ import annotations

import math

MINUS = "\N{MINUS SIGN}"
UNKNOWN = "unknown"
MAX_DECIMALS = 6


def decimals_for(low: float, high: float) -> int:
    """Decimal places at which the half width of [low, high] has two significant digits; 0 to 6."""
    half = abs(high - low) / 2
    if half == 0 or not math.isfinite(half):
        return 3
    return min(MAX_DECIMALS, max(0, 1 - math.floor(math.log10(half))))


def _telling(low: float, high: float) -> int:
    """Decimal places of an interval, with up to two more where an end would else be rounded to 0: its side decides."""
    fewest = decimals_for(low, high)
    return next((places for places in range(fewest, min(fewest + 2, MAX_DECIMALS) + 1)
                 if all(end == 0 or float(f"{end:.{places}f}") for end in (low, high))), fewest)


def fixed(value: float, decimals: int) -> str:
    """`-1234.5, 1` -> `−1,234.5`; never `−0.00`."""
    text = f"{abs(value):,.{decimals}f}"
    is_zero = not text.strip("0.,")
    return text if value >= 0 or is_zero else MINUS + text


def plain(value: float, significant: int = 3) -> str:
    """A number without an interval, to so many significant digits: `0.123`, `12.3`, `1,234`, `1.2e-05`."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else str(value)
    exponent = math.floor(math.log10(abs(value)))
    if exponent < -4:
        return f"{value:.{significant - 1}e}".replace("-", MINUS, 1 if value < 0 else 0)
    return fixed(value, max(0, significant - 1 - exponent))


def with_interval(value: float, low: float | None, high: float | None, decimals: int | None = None) -> tuple[str, str]:
    """The estimate and its interval as text: `("0.31", "0.22 to 0.40")`; the second is empty without an interval.

    `decimals` replaces what the interval supports, where a column of a table shares one precision.
    """
    if low is None or high is None or low == high or not (math.isfinite(low) and math.isfinite(high)):
        return plain(value) if decimals is None else fixed(value, decimals), ""
    places = _telling(low, high) if decimals is None else decimals
    return fixed(value, places), f"{fixed(low, places)} to {fixed(high, places)}"


def with_certainty(value: float, low: float | None, high: float | None, confidence: float) -> tuple[str, str]:
    """The estimate, and how sure it is: `("0.31", "95 % interval 0.12 to 0.53")`."""
    shown, interval = with_interval(value, low, high)
    return shown, f"{percent(confidence)} interval {interval}" if interval else "all runs and items agree"


def percent(fraction: float) -> str:
    """`0.975` -> `97.5 %`."""
    return f"{100 * fraction:.4g} %"


def given(value: float) -> str:
    """A number that a person chose, such as a margin, as it was written: `0.05`, `20`."""
    return f"{value:g}".replace("-", MINUS, 1) if value < 0 else f"{value:g}"


def probability(p_value: float) -> str:
    """`p = 0.012`, `p < 0.001`."""
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.2g}" if p_value < 0.1 else f"p = {p_value:.2f}"


def rate(value: float) -> str:
    """A learning rate: `3e-4`, `1.5e-3`."""
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def counted(number: int, noun: str, plural: str = "") -> str:
    """`1 seed`, `5 seeds`, `1,200 clusters`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def short_count(value: float | None) -> str:
    """A count with three digits: `6.91 M`, `73.7 k`, `512`."""
    if value is None:
        return UNKNOWN
    for size, suffix in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= size:
            return plain(value / size) + suffix
    return f"{value:,.0f}"


def bytes_text(value: float | None) -> str:
    """Bytes in decimal units: `295 kB`, `27.6 MB`."""
    if value is None:
        return UNKNOWN
    for size, suffix in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if abs(value) >= size:
            return f"{plain(value / size)} {suffix}"
    return f"{value:,.0f} B"


def seconds_text(value: float | None) -> str:
    """A duration: `0.85 ms`, `4.2 s`, `2.3 min`, `1.5 h`."""
    if value is None:
        return UNKNOWN
    if 0 < value < 0.1:
        return f"{plain(1000 * value, 2)} ms"
    for size, suffix in ((3600, "h"), (60, "min")):
        if value >= 1.5 * size:
            return f"{plain(value / size, 2)} {suffix}"
    return f"{plain(value, 2)} s"


def listed(words: list[str], joiner: str = "and") -> str:
    """`a`, `a and b`, `a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {joiner} {words[-1]}" if words else ""
