"""Charts as bytes: specifications for the page, SVG, PNG and PDF for files. The same input gives the same bytes.

(Except PDF, whose trailer carries an identifier that the converter draws anew each time.)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from finetrial.report.figures import Figure
from finetrial.report.figures.theme import INK, config

PAGE_CONFIG = config("currentColor", legend=False)
PNG_SCALE = 2.0  # pixels for one unit of the drawing
_WIDTHS = {1: 620, 2: 380, 3: 270}  # of a panel in files, in pixels, by the number of columns
CHANNELS = ("color", "fill", "stroke", "shape", "strokeDash")
_COUNTED = re.compile(r"\b(clip|gradient_)(\d+)\b")


def page_specs(figure: Figure) -> list[dict[str, Any]]:
    """One Vega-Lite specification a panel, as wide as its container. No reference to any schema or server."""
    return [{**panel.spec, "width": "container", "height": panel.height or figure.height}
            for panel in figure.panels]


def file_spec(figure: Figure) -> dict[str, Any]:
    """The whole figure as one Vega-Lite specification of fixed size, on white, with its own legend."""
    columns = min(figure.columns, len(figure.panels))
    panels = [{**panel.spec, "width": _WIDTHS[columns], "height": panel.height or figure.height,
               **({"title": panel.title} if panel.title else {})} for panel in figure.panels]
    looks = dict(pair for panel in panels for pair in _looks(panel))
    whole = panels[0] if len(panels) == 1 else {"concat": [_with_looks(panel, looks) for panel in panels], "columns": columns}
    return {**whole, "config": {**config(INK, legend=True), "background": "white"}, "padding": 12}


def _looks(spec: Any) -> Iterator[tuple[tuple[str, str], str]]:
    """(channel, value) -> colour or shape, of every scale of names in a specification."""
    if isinstance(spec, dict):
        for channel in CHANNELS:
            scale = _named_scale(spec.get(channel))
            if scale is not None:
                yield from (((channel, value), look) for value, look in zip(scale["domain"], scale["range"], strict=True))
    for part in spec.values() if isinstance(spec, dict) else spec if isinstance(spec, list) else ():
        yield from _looks(part)


def _with_looks(spec: Any, looks: Mapping[tuple[str, str], str]) -> Any:
    """The specification with every scale of names over all that `looks` knows. Panels share their scales: of domains that
    differ the names would be united, and the ranges of all but the first be lost."""
    if isinstance(spec, list):
        return [_with_looks(part, looks) for part in spec]
    if not isinstance(spec, dict):
        return spec
    made = {key: _with_looks(part, looks) for key, part in spec.items()}
    for channel in CHANNELS:
        scale = _named_scale(made.get(channel))
        if scale is not None:
            of_channel = {value: look for (name, value), look in looks.items() if name == channel}
            made[channel] = {**made[channel], "scale": {**scale, "domain": [*of_channel], "range": [*of_channel.values()]}}
    return made


def _named_scale(encoding: Any) -> dict[str, Any] | None:
    scale = encoding.get("scale") if isinstance(encoding, dict) else None
    return scale if isinstance(scale, dict) and isinstance(scale.get("domain"), list) and isinstance(scale.get("range"), list) else None


def write_figures(figures: Iterable[Figure], folder: Path) -> list[Path]:
    """Write NAME.svg, NAME.png and NAME.pdf for every figure into `folder`, in order. Returns the paths."""
    import vl_convert

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for figure in figures:
        svg = stable_svg(vl_convert.vegalite_to_svg(file_spec(figure)))
        contents = {"svg": svg.encode(), "png": vl_convert.svg_to_png(svg, scale=PNG_SCALE),
                    "pdf": vl_convert.svg_to_pdf(svg)}
        for suffix, content in contents.items():
            path = folder / f"{figure.name}.{suffix}"
            path.write_bytes(content)
            written.append(path)
    return written


def stable_svg(svg: str) -> str:
    """The same drawing with its ids counted from 0: the converter counts on from one drawing to the next."""
    numbers: dict[str, str] = {}
    return _COUNTED.sub(lambda match: match[1] + numbers.setdefault(match[0], str(len(numbers))), svg)
