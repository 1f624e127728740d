"""How arms look: one colour and one shape for each, the same in every chart, table and legend.

Colours are Okabe and Ito's (2008), which colour-blind readers can tell apart, the blue a little lighter for dark pages;
shape repeats the difference for print.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from finetrial.records.results import Results

BASE = "base"
FLOOR = "floor"
POSITIVE_CONTROL = "positive control"
AA = "A/A"
ARM = "arm"

COLOURS = ("#2380C3", "#D55E00", "#009E73", "#E69F00", "#56B4E9")
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross")
_OTHERS = {BASE: ("#7F8790", "circle"), POSITIVE_CONTROL: ("#CC79A7", "triangle-down"),
           AA: ("#7F8790", "triangle-right")}
FLOOR_LOOKS = (("#7F8790", "stroke"), ("#A8825C", "stroke"), ("#B38FB3", "stroke"), ("#5C7F78", "stroke"))
_ORDER = (BASE, FLOOR, ARM, POSITIVE_CONTROL, AA)


@dataclass(frozen=True)
class ArmMark:
    """One arm as it is shown. `role`: "arm", "base", "floor", "positive control" or "A/A"."""

    name: str
    label: str
    role: str
    colour: str
    shape: str

    @property
    def is_control(self) -> bool:
        """Whether it is there to check the trial, not to be chosen."""
        return self.role in (POSITIVE_CONTROL, AA)

    @property
    def is_fixed(self) -> bool:
        """Whether nothing was trained: the untouched base, or a floor."""
        return self.role in (BASE, FLOOR)


def arm_marks(results: Results) -> tuple[ArmMark, ...]:
    """Every arm of the results in the order shown: the base, floors, the arms as the study lists them, controls."""
    labels: dict[str, str] = {**dict.fromkeys((BASE, *_named_in(results)), ""), **results.arms}
    roles = {name: results.roles.get(name, BASE if name == BASE else ARM) for name in labels}
    names = sorted(labels, key=lambda name: _ORDER.index(roles[name] if roles[name] in _ORDER else ARM))
    chosen = [name for name in names if roles[name] not in (*_OTHERS, FLOOR)]
    floors = [name for name in names if roles[name] == FLOOR]
    return tuple(_mark(name, labels, roles, chosen, floors) for name in names)


def _mark(name: str, labels: Mapping[str, str], roles: Mapping[str, str], chosen: list[str],
          floors: list[str]) -> ArmMark:
    role = roles[name]
    if role == FLOOR:
        colour, shape = FLOOR_LOOKS[floors.index(name) % len(FLOOR_LOOKS)]
        return ArmMark(name, labels[name] or name, role, colour, shape)
    if role in _OTHERS:
        colour, shape = _OTHERS[role]
        return ArmMark(name, labels[name] or ("untouched base" if role == BASE else name), role, colour, shape)
    place = chosen.index(name)
    shape = SHAPES[(place + place // len(COLOURS)) % len(SHAPES)]
    return ArmMark(name, labels[name] or name, role, COLOURS[place % len(COLOURS)], shape)


def _named_in(results: Results) -> list[str]:
    """Arms that the rows mention, in order: a running study may have rows before it has labels."""
    named = (*(row.arm for row in results.scores), *(row.arm for row in results.measures),
             *(row.arm for row in results.costs))
    return list(dict.fromkeys(name for name in named if name not in results.arms))
