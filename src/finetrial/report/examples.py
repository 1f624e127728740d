"""Outputs side by side, as data for the page: what each arm wrote for an item, with what differs from the reference."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher

from finetrial.analysis import numbers
from finetrial.records.outputs import Example, Written
from finetrial.report.arms import ArmMark
from finetrial.report.facts import Facts, Path
from finetrial.report.quantities import metric_name

MOST_CHARACTERS = 1500  # of one text on the page; results.json holds it whole
CUT = " \N{HORIZONTAL ELLIPSIS}"  # behind a text that is longer
_TOKENS = re.compile(r"\w+|\s+|[^\w\s]")
_WHY = {"best": "most in favour of {left}", "median": "in the middle", "worst": "most in favour of {right}",
        "random": "drawn by a digest of its id"}


@dataclass(frozen=True)
class Piece:
    """A run of text; `is_other`: the reference has nothing of it, or has it out of this order."""

    text: str
    is_other: bool


@dataclass(frozen=True)
class Answered:
    """What one arm wrote. `pieces` is None where nothing was recorded, and empty for an empty answer."""

    arm: ArmMark
    pieces: tuple[Piece, ...] | None
    score: str


@dataclass(frozen=True)
class Shown:
    """One item. `why` says by which rule it is here."""

    item: str
    why: str
    difference: str
    input: str
    reference: str
    answers: tuple[Answered, ...]
    is_first: bool  # of its kind: shown open


@dataclass(frozen=True)
class Page:
    """All items shown of one task along one sequence."""

    title: str
    rule: str
    items: tuple[Shown, ...]


def example_pages(facts: Facts) -> tuple[Page, ...]:
    """A page for each sequence and task with outputs."""
    pages = []
    for path in facts.paths:
        for task in dict.fromkeys(row.task for row in facts.results.examples):
            rows = [row for row in facts.results.examples
                    if (row.base, row.sequence, row.task) == (path.base, path.sequence, task)]
            if rows:
                pages.append(_page(facts, path, task, rows))
    return tuple(pages)


def pieces(output: str, reference: str) -> tuple[Piece, ...]:
    """The output, cut where it stops or starts to agree with the reference, word by word; of both what the page shows."""
    words, wanted = _TOKENS.findall(output[:MOST_CHARACTERS]), _TOKENS.findall(reference[:MOST_CHARACTERS])
    found: list[Piece] = []
    matcher = SequenceMatcher(None, wanted, words, autojunk=False)
    for kind, _, _, start, end in matcher.get_opcodes():
        if start < end:
            found.append(Piece("".join(words[start:end]), kind != "equal"))
    if len(output) > MOST_CHARACTERS:
        found.append(Piece(CUT, is_other=False))
    return tuple(found)


def shortened(text: str) -> str:
    """The text, or its beginning if it is too long for the page."""
    return text if len(text) <= MOST_CHARACTERS else text[:MOST_CHARACTERS] + CUT


def _page(facts: Facts, path: Path, task: str, rows: list[Example]) -> Page:
    name = facts.path_label(path)
    left, right = facts.label(rows[0].left), facts.label(rows[0].right)
    rule = (f"Items ranked by {metric_name(rows[0].metric)} of {left} minus {right}, mean over seeds: the first, the "
            f"middle and the last ones, and some that no result could sway. Every arm at its first seed.")
    use = facts.study.task(task)
    rule = f"{rule} Outputs are made thus: {use.decoded}."
    if use.sampling is not None and use.sampling.num_samples > 1:
        rule = f"{rule} Of {use.sampling.num_samples} samples the first is shown; scores are over all of them."
    if path.last_phase > 1:
        rule = f"Written after phase {path.last_phase}, {path.last_task}, by the newest weights (LATEST). {rule}"
    seen: set[str] = set()
    items = []
    for row in rows:
        items.append(_shown(facts, row, row.chosen not in seen and row.chosen != "random"))
        seen.add(row.chosen)
    return Page(", ".join(filter(None, (task, name))), rule, tuple(items))


def _shown(facts: Facts, row: Example, is_first: bool) -> Shown:
    why = _WHY[row.chosen].format(left=facts.label(row.left), right=facts.label(row.right))
    difference = "" if row.difference is None else f"{numbers.fixed(row.difference, 3)} {metric_name(row.metric)}"
    return Shown(row.item, f"{row.chosen}: {why}", difference, shortened(row.input), shortened(row.reference),
                 tuple(_answers(facts, row)), is_first)


def _answers(facts: Facts, row: Example) -> Iterable[Answered]:
    by_arm: Mapping[str, Written] = {one.arm: one for one in row.written}
    for arm in facts.arms:
        if (one := by_arm.get(arm.name)) is not None:
            score = "" if one.score is None else numbers.fixed(one.score, 3)
            yield Answered(arm, None if one.output is None else pieces(one.output, row.reference), score)
