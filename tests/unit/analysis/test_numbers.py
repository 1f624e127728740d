"""Numbers as people read them."""

from __future__ import annotations

import pytest

from finetrial.analysis import numbers


@pytest.mark.parametrize(("value", "low", "high", "shown"), [
    (0.41234, 0.378, 0.446, ("0.412", "0.378 to 0.446")),
    (0.41234, 0.07, 0.75, ("0.41", "0.07 to 0.75")),
    (-1.5, -12.0, 9.0, ("\N{MINUS SIGN}2", "\N{MINUS SIGN}12 to 9")),
    (1234.5, 1000.0, 1500.0, ("1,234", "1,000 to 1,500")),
    (-0.0001, -0.2, 0.2, ("0.00", "\N{MINUS SIGN}0.20 to 0.20")),
    (0.5, None, 0.7, ("0.500", "")),
    (6_605_088.0, 6_605_088.0, 6_605_088.0, ("6,605,088", "")),
])
def test_an_estimate_has_the_digits_that_its_interval_supports(value, low, high, shown):
    assert numbers.with_interval(value, low, high) == shown


def test_what_all_agree_on_has_no_interval():
    assert numbers.with_certainty(0.31, 0.12, 0.53, 0.95) == ("0.31", "95 % interval 0.12 to 0.53")
    assert numbers.with_certainty(0.0, 0.0, 0.0, 0.95)[1] == "all runs and items agree"


@pytest.mark.parametrize(("text", "expected"), [
    (numbers.bytes_text(27_600_000), "27.6 MB"), (numbers.bytes_text(512), "512 B"),
    (numbers.bytes_text(None), "unknown"), (numbers.seconds_text(None), "unknown"),
    (numbers.seconds_text(4.23), "4.2 s"), (numbers.seconds_text(138), "2.3 min"),
    (numbers.seconds_text(5400), "1.5 h"), (numbers.seconds_text(0.00085), "0.85 ms"),
    (numbers.short_count(6_912_345), "6.91 M"), (numbers.short_count(512), "512"), (numbers.short_count(0), "0"),
    (numbers.rate(3e-4), "3e-4"), (numbers.rate(0.0015), "1.5e-3"), (numbers.percent(0.9875), "98.75 %"),
    (numbers.probability(0.00004), "p < 0.001"), (numbers.probability(0.0123), "p = 0.012"),
    (numbers.counted(1, "seed"), "1 seed"), (numbers.counted(0, "hypothesis", "hypotheses"), "0 hypotheses"),
    (numbers.given(0.05), "0.05"), (numbers.given(20.0), "20"), (numbers.given(-5), "\N{MINUS SIGN}5"),
    (numbers.listed(["a", "b", "c"]), "a, b and c"), (numbers.listed([]), ""),
    (numbers.plain(0.0000123), "1.23e-05"), (numbers.plain(0.0), "0"),
])
def test_quantities_carry_units_and_unknown_is_said(text, expected):
    assert text == expected


def test_an_end_beside_zero_is_shown_on_its_side() -> None:
    """Which side of 0 an end lies on decides, so rounding may not hide it; an end at 0 is 0."""
    assert numbers.with_interval(0.011, -0.0003, 0.022) == ("0.0110", f"{numbers.MINUS}0.0003 to 0.0220")
    assert numbers.with_interval(0.020, 0.0004, 0.040) == ("0.0200", "0.0004 to 0.0400")
    assert numbers.with_interval(0.020, 0.0, 0.040) == ("0.020", "0.000 to 0.040")
    assert numbers.with_interval(0.020, 1e-12, 0.040)[1] == "0.000 to 0.040"
    assert numbers.with_interval(0.020, 0.0004, 0.040, decimals=2) == ("0.02", "0.00 to 0.04")
