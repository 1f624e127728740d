"""The page: one file that opens from disk without a network, on a phone, in the dark and on paper."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from finetrial.cache import cache_root, kept_text
from finetrial.report.examples import MOST_CHARACTERS
from finetrial.report.figures import Figure
from finetrial.report.model import View
from finetrial.report.render import PAGE_CONFIG, page_specs
from finetrial.report.words import GLOSSARY

# Outlines of the arms' shapes in a box from -5 to 5, for legends outside charts.
SHAPE_PATHS = {"circle": "M-4.2 0a4.2 4.2 0 1 0 8.4 0a4.2 4.2 0 1 0-8.4 0z", "square": "M-3.8-3.8h7.6v7.6h-7.6z",
               "triangle-up": "M0-4.6L4.8 3.8H-4.8z", "diamond": "M0-5.2L4.2 0L0 5.2L-4.2 0z",
               "cross": "M-1.6-4.8h3.2v3.2h3.2v3.2h-3.2v3.2h-3.2v-3.2h-3.2v-3.2h3.2z",
               "triangle-down": "M0 4.6L4.8-3.8H-4.8z", "triangle-right": "M4.6 0L-3.8 4.8V-4.8z",
               "stroke": "M-5-1.2h10v2.4h-10z"}
_ALWAYS = ("scores", "cost", "threats", "provenance", "terms")
MANY_PANELS = 18  # a figure with more is folded away until it is asked for


def page(view: View, figures: Sequence[Figure], *, files: bool = True) -> str:
    """The whole report as HTML. `files`: whether figure files lie beside it, so that links to them are offered."""
    shown = {figure.name: figure for figure in figures}
    specs = {f"{figure.name}-{place}": spec for figure in figures for place, spec in enumerate(page_specs(figure))}
    parts = {"claims": view.claims, "sequence": view.sequences or "matrix" in shown, "examples": view.examples}
    anchors = {*shown, *(name for name, part in parts.items() if part), *_ALWAYS}
    rendered: str = _template().render(
        view=view, figures=shown, shown=anchors, files=files, specs=script_json(specs) if specs else "",
        config=script_json(PAGE_CONFIG), bundle=_bundle() if specs else "", shapes=SHAPE_PATHS, glossary=GLOSSARY,
        slug=slug, many=MANY_PANELS, most_characters=f"{MOST_CHARACTERS:,}")
    return rendered


def script_json(value: Any) -> str:
    """JSON that may stand inside a script element: no text in it can end the element."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")


def slug(verdict: str) -> str:
    """`NOT MEASURED` -> `not-measured`, for classes of style."""
    return verdict.lower().replace(" ", "-")


@functools.cache
def _bundle() -> str:
    """Vega, Vega-Lite and vega-embed as one script (0.9 MB, sets `window.vegaEmbed`); made once a version of the library,
    which takes a second or two."""
    def made() -> str:
        import vl_convert

        return vl_convert.javascript_bundle()  # type: ignore[call-arg]  # its stub takes the default for required

    return kept_text(cache_root() / f"vega-{version('vl-convert-python')}.js", made).replace("</script", "<\\/script")


@functools.cache
def _template() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(loader=PackageLoader("finetrial.report"), autoescape=True, trim_blocks=True,
                              lstrip_blocks=True, undefined=StrictUndefined)
    return environment.get_template("report.html.jinja")
