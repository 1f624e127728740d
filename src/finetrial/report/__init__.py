"""The report: a pure function of (study, results), rebuilt at any time, from a partial run too. Needs no torch.

    written = build(study, results, folder)   # report.html, analysis.md, figures/*.svg|png|pdf

Three layers: `model.view` decides what is shown and makes every sentence; `figures` makes the charts; `html` and
`markdown` write both down.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from finetrial.report.model import View, view

if TYPE_CHECKING:
    from finetrial.records.results import Results
    from finetrial.report.figures import Figure
    from finetrial.spec import Study

__all__ = ["View", "analysis_markdown", "build", "report_html", "view"]


def build(study: Study, results: Results, folder: Path, *, figures: bool = True) -> tuple[Path, ...]:
    """Write `report.html`, `analysis.md` and, unless `figures` is False, `figures/*.svg|png|pdf` into `folder`.

    Returns the paths written, `report.html` first. The charts in the page do not depend on the figure files.
    Raises UserError if the folder cannot be written.
    """
    from finetrial.errors import UserError
    from finetrial.report.html import page
    from finetrial.report.markdown import markdown
    from finetrial.report.render import write_figures

    shown, charts = view(study, results), _figures(study, results)
    texts = {"report.html": page(shown, charts, files=figures), "analysis.md": markdown(shown, charts, files=figures)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        written = [folder / name for name in texts]
        for path in written:
            path.write_text(texts[path.name], encoding="utf-8", newline="\n")
        if figures:
            written += write_figures(charts, folder / "figures")
    except OSError as error:
        raise UserError(f"the report cannot be written to {folder}: {error.strerror or error}",
                        "choose a folder that you may write to, on a disk with free space", code="report") from error
    return tuple(written)


def report_html(study: Study, results: Results, *, files: bool = False) -> str:
    """The page as text. `files`: whether it links to figure files beside it."""
    from finetrial.report.html import page

    return page(view(study, results), _figures(study, results), files=files)


def analysis_markdown(study: Study, results: Results, *, files: bool = False) -> str:
    """The analysis as Markdown. `files`: whether it shows figure files beside it."""
    from finetrial.report.markdown import markdown

    return markdown(view(study, results), _figures(study, results), files=files)


def _figures(study: Study, results: Results) -> tuple[Figure, ...]:
    from finetrial.report.facts import Facts
    from finetrial.report.figures import all_figures

    return all_figures(Facts(study, results))
