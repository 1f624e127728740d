"""`analysis.md`: the same answers, tables and caveats as the page, in plain text for repositories and reviews."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from finetrial.report.figures import Figure
from finetrial.report.model import Answer, Card, View
from finetrial.report.tables import Cell, Table
from finetrial.report.words import GLOSSARY

_SPECIAL = re.compile(r"([\\`*_\[\]<>|])")


def markdown(view: View, figures: Sequence[Figure], *, files: bool = True) -> str:
    """The whole analysis as Markdown. `files`: whether figure files exist to be shown."""
    return "\n".join(_lines(view, figures, files)) + "\n"


def _lines(view: View, figures: Sequence[Figure], files: bool) -> Iterable[str]:
    yield from (f"# {escaped(view.question)}", "", f"Study {escaped(view.title)}. {escaped(view.summary)}", "")
    if view.alerts:
        yield from ("**Read this first:**", "", *(f"- {escaped(text)}" for text in view.alerts), "")
    yield from ("## Answers", "")
    for card in view.cards:
        yield from _card(card)
    yield from _advice(view)
    shown = {figure.name: figure for figure in figures}
    yield from _figure(shown.get("plane"), files)
    yield from ("## Scores", "")
    for table in view.scores:
        yield from _table(table)
    for name in ("rates", "curves", "forest"):
        yield from _figure(shown.get(name), files)
    if view.costs:
        yield from ("## Cost", "")
        for table in view.costs:
            yield from _table(table)
    yield from _figure(shown.get("efficiency"), files)
    yield from _caveats(view)
    yield from ("## Provenance", "", *(f"- {escaped(name)}: {escaped(value)}" for name, value in view.provenance), "",
                "Repeat it with:", "", "```sh", view.command, "```", "", "## Terms", "",
                *(f"- **{escaped(term)}**: {escaped(text)}" for term, text in GLOSSARY))


def escaped(text: str) -> str:
    """Text whose characters have no meaning in Markdown."""
    return _SPECIAL.sub(r"\\\1", text).replace("\n", " ")


def _card(card: Card) -> Iterable[str]:
    kind = "" if card.primary else " (secondary)"
    yield from (f"### {escaped(card.name)}{kind}: {card.answer.verdict}", "", f"> {escaped(card.statement)}", "")
    yield from (escaped(card.answer.sentence), "")
    if card.answer.facts:
        yield from (_support(card.answer), "")
    if card.answer.recorded:
        yield from (f"As recorded: {escaped(card.answer.recorded)}", "")
    for part in card.parts:
        yield f"- {part.verdict}: {escaped(part.contrast)}. {escaped(part.sentence)} {_support(part)}".rstrip()
    if card.parts:
        yield ""


def _support(answer: Answer) -> str:
    return f"({escaped('; '.join(answer.facts))})" if answer.facts else ""


def _advice(view: View) -> Iterable[str]:
    name = f": {escaped(view.recommended.label)}" if view.recommended else ""
    yield from (f"## Which arm to choose{name}", "", escaped(view.recommendation), "")
    if view.runners_up:
        yield from (f"Next: {escaped(', '.join(view.runners_up))}.", "")
    yield from ("## How far to trust this", "",
                *(f"- {escaped(check.title)}. {escaped(check.text)}" for check in view.checks),
                f"- {escaped(view.scope)}", "")


def _figure(figure: Figure | None, files: bool) -> Iterable[str]:
    if figure is None:
        return
    yield from (f"## {escaped(figure.title)}", "")
    if files:
        yield from (f"![{escaped(figure.alt)}](figures/{figure.name}.svg)", "")
    yield from (escaped(figure.caption), "")


def _caveats(view: View) -> Iterable[str]:
    if view.tuning:
        yield from ("## Tuning", "", *_table(view.tuning))
    yield from ("## Threats to validity", "")
    if view.audit:
        yield from _table(view.audit)
    yield from (*(f"- {escaped(text)}" for text in view.threats), f"- {escaped(view.scope)}", "")


def _table(table: Table) -> Iterable[str]:
    yield from (escaped(table.caption), "")
    heads = [escaped(column.title) + (f" ({escaped(column.note)})" if column.note else "") for column in table.columns]
    yield f"| {' | '.join(heads)} |"
    yield f"|{'---|' * len(heads)}"
    for row in table.rows:
        yield f"| {' | '.join(_cell(cell) for cell in row.cells)} |"
    yield ""


def _cell(cell: Cell) -> str:
    text = f"**{escaped(cell.text)}**" if cell.kind == "outcome" else escaped(cell.text)
    notes = "; ".join(filter(None, (cell.note, cell.more)))
    return f"{text} ({escaped(notes)})" if notes else text
