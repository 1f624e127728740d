"""How every chart looks, and what a figure is: panels that stack on a phone and stand side by side in a file.

In the page the ink is `currentColor`, so that style sheets alone decide light, dark and print; in files it is fixed.
The page has one legend in HTML for all charts; files carry their own.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from finetrial.report.arms import ArmMark

NEUTRAL = "#808891"  # readable on white and on near-black
INK = "#1d2228"
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Panel:
    """One chart without a size; `title` names it where a figure has several."""

    chart: alt.LayerChart
    title: str = ""


@dataclass(frozen=True)
class Figure:
    """A figure of one or more panels. `name` is its file name; `alt` says in words what is seen."""

    name: str
    title: str
    caption: str
    alt: str
    panels: tuple[Panel, ...]
    columns: int = 1  # panels side by side in files
    height: int = 320  # of one panel, in pixels
    arms: tuple[ArmMark, ...] = ()  # what the legend lists
    lines: tuple[tuple[str, str], ...] = ()  # what the page says of line styles: (css class, meaning)


@dataclass(frozen=True)
class Style:
    """Encodings that give every arm its colour and shape. `legend`: drawn in the chart (files) or not (page)."""

    arms: tuple[ArmMark, ...]
    legend: bool = False

    def of(self, names: Iterable[str]) -> Style:
        """The same style for some arms only: the legend lists no others."""
        wanted = set(names)
        return Style(tuple(arm for arm in self.arms if arm.name in wanted), self.legend)

    def colour(self) -> alt.Color:
        """Colour by arm; the field is `arm`, holding labels."""
        return alt.Color("arm:N", scale=alt.Scale(domain=[arm.label for arm in self.arms],
                                                  range=[arm.colour for arm in self.arms]), legend=self._legend())

    def shape(self) -> alt.Shape:
        """Shape by arm, merged with the colour in the legend."""
        return alt.Shape("arm:N", scale=alt.Scale(domain=[arm.label for arm in self.arms],
                                                  range=[arm.shape for arm in self.arms]), legend=self._legend())

    def _legend(self) -> alt.Legend | None:
        return alt.Legend(title=None, orient="bottom", columns=3, labelLimit=400) if self.legend else None


def data(rows: Rows) -> alt.Data:
    """Rows as inline values; numbers to six significant digits, to keep the page small."""
    return alt.Data(values=[{name: float(f"{value:.6g}") if isinstance(value, float) else value
                             for name, value in row.items()} for row in rows])


def title(text: str, width: int = 42) -> str | list[str]:
    """An axis title, broken into lines so that it is never cut."""
    lines = textwrap.wrap(text, width)
    return lines if len(lines) > 1 else text


def span(values: Sequence[float], *, padding: float = 0.06) -> list[float]:
    """A scale's domain around some values, with a margin."""
    low, high = min(values), max(values)
    margin = padding * ((high - low) or abs(high) or 1.0)
    return [low - margin, high + margin]


def config(ink: str) -> dict[str, Any]:
    """The Vega-Lite configuration for one colour of ink."""
    axis = {"labelColor": ink, "titleColor": ink, "domainColor": ink, "domainOpacity": 0.35, "tickColor": ink,
            "tickOpacity": 0.35, "gridColor": ink, "gridOpacity": 0.1, "labelFontSize": 11, "titleFontSize": 12,
            "titleFontWeight": "normal", "titlePadding": 8, "labelOverlap": True, "tickCount": 6}
    return {"background": "transparent", "font": "sans-serif", "axis": axis, "view": {"stroke": None},
            "text": {"color": ink, "fontSize": 11}, "rule": {"color": NEUTRAL},
            "legend": {"labelColor": ink, "titleColor": ink, "labelFontSize": 12, "symbolSize": 90},
            "title": {"color": ink, "fontSize": 12, "fontWeight": "bold", "anchor": "start"}}
