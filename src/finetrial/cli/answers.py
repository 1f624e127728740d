"""A run's answers in the terminal: the same sentences as the report's, made by `report.view`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from finetrial.cli.output import as_typed, heading, indented
from finetrial.errors import UserError
from finetrial.records.results import Results
from finetrial.report.model import Card, View, view
from finetrial.report.tabular import Table as ScoreTable
from finetrial.run.run_file import RESULTS_FILE, study_of_run
from finetrial.spec.study import Study

STYLES = {"SUPPORTED": "bold green", "REFUTED": "bold red", "EQUIVALENT": "bold blue", "INCONCLUSIVE": "bold yellow",
          "NOT MEASURED": "bold", "ASSAY FAILED": "bold red"}


def read_run(folder: Path) -> tuple[Study, View]:
    """A run's study, and what its report shows. Raises UserError if the folder has no results, or results of another version."""
    from pydantic import ValidationError

    results = folder / RESULTS_FILE
    if not results.is_file():
        raise UserError(f"{folder} has no results yet", f"finetrial status {as_typed(folder)} shows how far it is; "
                                                        f"finetrial report {as_typed(folder)} reports what is there")
    try:
        study = study_of_run(folder)
        return study, view(study, Results.model_validate_json(results.read_text(encoding="utf-8")))
    except (ValidationError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{results} cannot be read: {str(error).splitlines()[0]}",
                        f"make it again from the store: finetrial report {as_typed(folder)}") from error


def short_answers(shown: View) -> Iterable[RenderableType]:
    """What a run ends with: a verdict and a sentence for each hypothesis, what limits them, the recommendation."""
    yield from _answers(shown, [f"{check.title}. {check.text}" for check in shown.checks if check.state != "good"])


def _answers(shown: View, doubts: Iterable[str]) -> Iterable[RenderableType]:
    yield heading(shown.question)
    if not shown.cards:
        yield Text(shown.summary)
    for card in shown.cards:
        yield from _card(card)
    for text in shown.alerts:
        yield Text()
        yield Text(text, style="yellow")
    limits = [*_edges(shown.tuning), *doubts]
    if limits:
        yield Text()
        yield from (Text(text, style="yellow") for text in limits)
    yield Text()
    yield Text.assemble(("Recommendation  ", "bold"), shown.recommendation)
    yield from (indented(Text(reason)) for reason in shown.not_chosen)


def verdict_page(study: Study, shown: View) -> Iterable[RenderableType]:
    """The short answers, then how far to trust them, the primary scores, and threats to validity, the audit's among them."""
    yield from _answers(shown, ())
    yield heading("How far to trust this")
    for check in shown.checks:
        yield Text.assemble((check.title, "bold red" if check.state == "bad" else "bold"), ". ", check.text)
    yield Text(shown.scope)
    for table in shown.scores[:len(study.bases) * len(study.paths)]:  # the tables of other metrics come after
        yield heading("Scores")
        yield _primary_scores(table)
    if shown.threats or shown.audit:
        yield heading("Threats to validity")
        yield from (Text(text) for text in shown.threats)
    for severity, rule, found in (row.cells for row in (shown.audit.rows if shown.audit else ())):
        yield Text.assemble((severity.text, "bold red" if severity.text == "threat" else "bold"), f"  {found.text} ({rule.text})")


def _edges(tuning: ScoreTable | None) -> Iterable[str]:
    """A line for each arm whose chosen learning rate lies at the edge of its grid, for any seed."""
    for row in tuning.rows if tuning else ():
        arm, edge = row.cells[0], row.cells[-1]
        if edge.kind == "warning":
            name = f"{arm.text} ({arm.note})" if arm.note else arm.text
            yield f"{name}: learning rate {edge.text.replace('edge', 'edge of its grid')}; a better one may lie outside."


def _card(card: Card) -> Iterable[RenderableType]:
    yield Text()
    yield Text.assemble((f"{card.name}  ", "bold"), (card.answer.verdict, STYLES[card.answer.verdict]),
                        "" if card.primary else "  (secondary)")
    yield indented(Text(card.statement, style="italic"))
    yield indented(Text(card.answer.sentence))
    for part in card.parts:
        yield Padding(Text.assemble((part.verdict, STYLES[part.verdict]), f"  {part.sentence}"), (0, 0, 0, 4))


def _primary_scores(table: ScoreTable) -> Table:
    """Each task's first column: the primary metric, with interval and n below the mean."""
    titles = [column.title for column in table.columns]
    shown = [titles.index(title) for title in dict.fromkeys(titles)]
    printed = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for place in shown:
        column = table.columns[place]
        printed.add_column("\n".join(filter(None, (column.title, column.note))), overflow="fold",
                           justify="right" if place else "left")
    for row in table.rows:
        cells = (row.cells[place] for place in shown)
        printed.add_row(*("\n".join(filter(None, (cell.text, cell.note))) for cell in cells))
    return printed
