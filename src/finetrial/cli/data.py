"""`finetrial data STUDY`: what the data is before anything is trained on it.

For every task: rows and clusters per split, what each rule dropped, what the base's tokenizer and the length limit do
to the rows, and a few training rows with the scored text marked.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from finetrial.cli.output import console, heading, indented, note, say
from finetrial.cli.study import Changes, find_study
from finetrial.errors import DataError
from finetrial.plan.bases import resolve_base
from finetrial.plan.fetch import fetch_study
from finetrial.plan.specs import output_metrics
from finetrial.spec.study import Study
from finetrial.spec.uses import TaskUse
from finetrial.tasks.assemble import Form
from finetrial.tasks.base import Examples, MiningReport, Split
from finetrial.tasks.flaws import flawed

OPEN, CLOSE = "\N{MATHEMATICAL LEFT WHITE SQUARE BRACKET}", "\N{MATHEMATICAL RIGHT WHITE SQUARE BRACKET}"
SCORED = "black on green"
COLUMNS = {"num_rows": "rows", "num_cut": "of these cut", "num_dropped": "too long",
           "num_target_tokens": "scored tokens", "num_lost_target_tokens": "lost"}
PROMPTS_CUT = "prompts cut"  # of the rows that are answered


@dataclass(frozen=True)
class Reader:
    """What turns rows into tokens: the tokenizer of a base, and whether source and target are apart."""

    base: str
    tokenizer: Any
    form: Form


def data_command(name: str, changes: Changes, num_rows: int) -> None:
    """Print everything about a study's data. Raises DataError where it cannot be used."""
    found = find_study(name, changes)
    fetch_study(found.study, found.relative_to, say=note)
    from finetrial.models.load import load_tokenizer

    short: list[tuple[str, DataError]] = []
    readers: dict[tuple[str, Form], Reader] = {}
    for written in found.study.bases:
        base = resolve_base(written, found.relative_to)
        readers.setdefault((base.tokenizer_digest, base.form), Reader(base.name, load_tokenizer(base.folder), base.form))
    for written_use in found.study.tasks:
        use = written_use.model_copy(update={"task": written_use.task.located(found.relative_to)})
        examples = flawed(use.task, use.flaws).load()
        say(*mined(use, examples.report))
        for reader in readers.values():
            say(*encoded(found.study, use, examples, reader, num_rows, short))
    if short:
        raise DataError("; ".join(f"{name}: {error.problem}" for name, error in short),
                        "; ".join(f"{name}: {error.mend}" for name, error in short))


def mined(use: TaskUse, report: MiningReport) -> Iterable[RenderableType]:
    """What the source yielded."""
    role = "learned" if use.role == "learn" else "only scored"
    yield heading(f"{use.name} ({role})")
    yield indented(Text(type(use.task).summary))
    table = _table("split", "rows", "clusters")
    for split, rows in report.rows.items():
        table.add_row(split, f"{rows:,}", f"{report.clusters[split]:,}" if split in report.clusters else "")
    yield from (Text(), indented(table))
    if report.dropped:
        dropped = _table("dropped by rule", "rows")
        for rule, number in report.dropped.items():
            dropped.add_row(rule, f"{number:,}")
        yield from (Text(), indented(dropped))
    yield from (indented(Text(note)) for note in report.notes)


def encoded(study: Study, use: TaskUse, examples: Examples, reader: Reader, num_rows: int,
            short: list[tuple[str, DataError]]) -> Iterable[RenderableType]:
    """What a tokenizer and the length limit make of the rows that the study uses, and some training rows. Splits of which
    there are fewer rows than are asked for come into `short`."""
    from finetrial.stages.data import check_enough, of_items, stable_order
    from finetrial.tasks.chat import in_chat_form
    from finetrial.tasks.encode import encode_examples, encode_prompts, preview

    tokenizer, form, max_tokens = reader.tokenizer, reader.form, use.max_tokens or study.training.sequence_length
    task = flawed(in_chat_form(use.task, tokenizer) if form == "decoder" else use.task, use.flaws)
    room = use.max_new_tokens if output_metrics(use) else None
    table = _table("split", *COLUMNS.values(), *([] if room is None else [PROMPTS_CUT]))
    for split in use.task.splits:
        rows = stable_order(examples.split(split))
        dataset, report = encode_examples(task, rows, tokenizer, max_tokens, limit=use.num_scored(split), form=form,
                                    max_new_tokens=room, flaws=use.flaws)
        try:
            check_enough(examples, split, use.num_scored(split), report, max_tokens)
        except DataError as error:
            short.append((use.name, error))
        counts = report.as_dict()
        cells = [f"{counts[column]:,}" for column in COLUMNS]
        if room is not None and use.num_scored(split) is not None:
            _, cut = encode_prompts(task, of_items(rows, dataset), tokenizer, max_tokens, max_new_tokens=room, form=form)
            cells.append(f"{cut.num_cut:,}")
        table.add_row(split, *cells)
    yield from (Text(), indented(Text(f"As tokens of {reader.base}, at most {max_tokens} a row:")), indented(table))
    shown: Split = "train" if "train" in use.task.splits else "test"
    first = preview(task, stable_order(examples.split(shown)), tokenizer, max_tokens, num_rows, form=form, flaws=use.flaws)
    for number, tokens in enumerate(first, start=1):
        yield heading(f"  {use.name}, {'training' if shown == 'train' else 'test'} row {number} of {len(first)}; scored text is "
                      + ("green" if console().is_terminal else f"between {OPEN} and {CLOSE}"))
        yield indented(marked(tokens, colour=console().is_terminal), 4)


def marked(tokens: list[tuple[str, bool]], *, colour: bool) -> Text:
    """A row's text, what is scored in colour or between brackets."""
    text = Text()
    before = False
    for token, scored in [*tokens, ("", False)]:
        if scored != before and not colour:
            text.append(OPEN if scored else CLOSE)
        text.append(token, style=SCORED if scored and colour else "")
        before = scored
    return text


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column(first, overflow="fold")
    for title in others:
        table.add_column(title, justify="right")
    return table
