"""`analysis.md`: the same answers, tables and caveats as the page, in plain text for repositories and reviews."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from finetrial.report.examples import Page
from finetrial.report.figures import Figure
from finetrial.report.model import Answer, Card, View
from finetrial.report.tabular import Cell, Table
from finetrial.report.words import GLOSSARY

_SPECIAL = re.compile(r"([\\`*_\[\]<>|])")


def markdown(view: View, figures: Sequence[Figure], *, files: bool = True) -> str:
    """The whole analysis as Markdown. `files`: whether figure files exist to be shown."""
    return "\n".join(_lines(view, figures, files)) + "\n"


def _lines(view: View, figures: Sequence[Figure], files: bool) -> Iterable[str]:
    yield from (f"# {escaped(view.question)}", "", f"Study {escaped(view.title)}. {escaped(view.summary)}", "")
    if view.alerts:
        yield from ("**Read this first:**", "", *(f"- {escaped(text)}" for text in view.alerts), "")
    claims = [*_section("Published claims", [view.claims] if view.claims else [])]
    if view.cards:
        yield from ("## Answers", "")
        for card in view.cards:
            yield from _card(card)
    else:
        yield from claims
    yield from _advice(view)
    shown = {figure.name: figure for figure in figures}
    if view.cards:
        yield from claims
    for name in ("plane", "factors", "interaction"):
        yield from _figure(shown.get(name), files)
    yield from _section("Scores", view.scores)
    yield from _section("Along the sequence", view.sequences)
    for name in ("matrix", "transfer"):
        yield from _figure(shown.get(name), files)
    yield from _examples(view.examples)
    for name in ("distributions", "rates", "curves", "forest"):
        yield from _figure(shown.get(name), files)
    yield from _section("Cost", view.costs)
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
    if card.answer.caveats:
        yield from (escaped(card.answer.caveats), "")
    for part in card.parts:
        said = (escaped(part.sentence), _support(part), escaped(part.caveats))
        yield f"- {part.verdict}: {escaped(part.contrast)}. {' '.join(filter(None, said))}"
    if card.parts:
        yield ""


def _support(answer: Answer) -> str:
    return f"({escaped('; '.join(answer.facts))})" if answer.facts else ""


def _advice(view: View) -> Iterable[str]:
    name = f": {escaped(view.recommended.label)}" if view.recommended else ""
    yield from (f"## Which arm to choose{name}", "", escaped(view.recommendation), "")
    if view.not_chosen:
        yield from (*(f"- {escaped(reason)}" for reason in view.not_chosen), "")
    if view.runners_up:
        yield from (f"Next: {escaped('; '.join(view.runners_up))}.", "")
    yield from ("## How far to trust this", "",
                *(f"- {escaped(check.title)}. {escaped(check.text)}" for check in view.checks),
                f"- {escaped(view.scope)}", "")


def _section(title: str, tables: Sequence[Table]) -> Iterable[str]:
    if tables:
        yield from (f"## {title}", "")
    for table in tables:
        yield from _table(table)


def _examples(pages: Sequence[Page]) -> Iterable[str]:
    """The first item of each kind; the page has them all."""
    if pages:
        yield from ("## Outputs side by side", "")
    for page in pages:
        yield from (f"### {escaped(page.title)}", "", escaped(page.rule), "")
        for one in (one for one in page.items if one.is_first):
            yield from (f"**{escaped(one.why)}** {escaped(one.difference)} ({escaped(one.item)})".rstrip(), "",
                        f"- reference: {_quoted(one.reference)}")
            yield from (f"- {escaped(answer.arm.label)}{f' ({answer.score})' if answer.score else ''}: "
                        + ("not recorded" if answer.pieces is None else _quoted("".join(piece.text for piece in answer.pieces)))
                        for answer in one.answers)
            yield ""


def _quoted(text: str) -> str:
    return escaped(" ".join(text.split())) or "(empty)"


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
