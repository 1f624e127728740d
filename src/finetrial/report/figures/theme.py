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
_OF_A_LAYER = ("mark", "encoding", "transform")


@dataclass(frozen=True)
class Panel:
    """One chart without a size, as a Vega-Lite specification; `title` names it where a figure has several."""

    spec: dict[str, Any]
    title: str = ""
    height: int | None = None  # None = the figure's


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


def panel(name: str, rows: Rows, layers: Sequence[alt.Chart], height: int | None = None) -> Panel:
    """Layers over one set of rows, kept inline; numbers to six significant digits, to keep the page small.

    Layers have no data of their own: they filter `rows` by `kind`, so that the rows are written once.
    """
    values = [{key: float(f"{value:.6g}") if isinstance(value, float) else value for key, value in row.items()}
              for row in rows]
    bare = [{key: value for key, value in layer.to_dict(validate=False).items() if key in _OF_A_LAYER}
            for layer in layers]  # altair's own `layer` copies every chart several times
    return Panel({"data": {"values": values}, "layer": bare}, name, height)


def of_kind(kind: str) -> alt.Chart:
    """A layer that shows the rows of one kind."""
    return alt.Chart().transform_filter(f"datum.kind === '{kind}'")


def colour(arms: Sequence[ArmMark]) -> alt.Color:
    """Colour by arm; the field is `arm`, holding labels."""
    return alt.Color("arm:N", title=None, scale=alt.Scale(domain=[arm.label for arm in arms],
                                                          range=[arm.colour for arm in arms]))


def shape(arms: Sequence[ArmMark]) -> alt.Shape:
    """Shape by arm, merged with the colour in the legend."""
    return alt.Shape("arm:N", title=None, scale=alt.Scale(domain=[arm.label for arm in arms],
                                                          range=[arm.shape for arm in arms]))


def named(arms: Sequence[ArmMark], names: Iterable[str]) -> tuple[ArmMark, ...]:
    """The arms with these names, in the order of the report."""
    wanted = set(names)
    return tuple(arm for arm in arms if arm.name in wanted)


def title(text: str, width: int = 42) -> str | list[str]:
    """An axis title, broken into lines so that it is never cut."""
    lines = textwrap.wrap(text, width)
    return lines if len(lines) > 1 else text


def span(values: Sequence[float], *, padding: float = 0.06) -> list[float]:
    """A scale's domain around some values, with a margin."""
    low, high = min(values), max(values)
    margin = padding * ((high - low) or abs(high) or 1.0)
    return [low - margin, high + margin]


def config(ink: str, *, legend: bool) -> dict[str, Any]:
    """The Vega-Lite configuration for one colour of ink, with or without legends in the charts."""
    axis = {"labelColor": ink, "titleColor": ink, "domainColor": ink, "domainOpacity": 0.35, "tickColor": ink,
            "tickOpacity": 0.35, "gridColor": ink, "gridOpacity": 0.1, "labelFontSize": 11, "titleFontSize": 12,
            "titleFontWeight": "normal", "titlePadding": 8, "labelOverlap": True, "tickCount": 6}
    legends = {"labelColor": ink, "labelFontSize": 12, "symbolSize": 90, "symbolOpacity": 1, "orient": "bottom",
               "columns": 3, "labelLimit": 400}
    return {"background": "transparent", "font": "sans-serif", "axis": axis, "view": {"stroke": None},
            "text": {"color": ink, "fontSize": 11}, "rule": {"color": NEUTRAL},
            "legend": legends if legend else {"disable": True},
            "title": {"color": ink, "fontSize": 12, "fontWeight": "bold", "anchor": "start"}}
